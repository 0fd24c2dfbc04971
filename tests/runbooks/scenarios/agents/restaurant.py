"""An agent with a fault for each runbook that is about a session's own code."""

from __future__ import annotations

import asyncio
import socket
import time

MENU_S = 0.25

kept: list[bytes] = []


def lookup_menu() -> None:
    """A synchronous request to a slow service."""
    time.sleep(MENU_S)


async def asks_for_the_menu(*, fixed: bool) -> None:
    """Once a second; in a thread, once it is fixed."""
    while True:
        await asyncio.sleep(0.5)
        if fixed:
            await asyncio.to_thread(lookup_menu)
        else:
            lookup_menu()


def wait_for_payment(terminal: socket.socket) -> bytes:
    """Read what the terminal says, which it never does."""
    return terminal.recv(64)


async def waits_for_payment(*, fixed: bool) -> None:
    """The loop can wait for a socket as well as a thread can."""
    terminal, ours = socket.socketpair()
    with terminal, ours:
        if fixed:
            ours.setblocking(False)
            await asyncio.get_running_loop().sock_recv(ours, 64)
        else:
            wait_for_payment(ours)


def score(seconds: float) -> None:
    """Compute, in a piece that is short enough to be no block."""
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        sum(range(50))


async def scores_all_the_time(*, fixed: bool) -> None:
    """Two thirds of the loop; a sixtieth, once it scores only what has changed."""
    while True:
        score(0.0002 if fixed else 0.008)
        await asyncio.sleep(0.012 if fixed else 0.004)


async def keeps_what_was_said(*, fixed: bool) -> None:
    """4 MB a second; no more than 1 MB in all, once it is bounded."""
    while True:
        kept.append(b"\x01" * (200 << 10))
        if fixed or len(kept) > 1500:
            del kept[:-5]
        await asyncio.sleep(0.05)
