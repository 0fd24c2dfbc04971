"""An agent with a fault for each runbook about a session's own code."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import socket
import time
from concurrent.futures import Executor

MENU_S = 0.25

PART_S = 3.0
kept: list[bytes] = []


def lookup_menu() -> None:
    """Make a synchronous request to a slow service."""
    time.sleep(MENU_S)


async def asks_for_the_menu(*, fixed: bool) -> None:
    """Look up the menu about once a second; with the fix, in a thread."""
    while True:
        await asyncio.sleep(0.5)
        if fixed:
            await asyncio.to_thread(lookup_menu)
        else:
            lookup_menu()


def wait_for_payment(terminal: socket.socket) -> bytes:
    """Read from the terminal, which never sends anything."""
    return terminal.recv(64)


async def waits_for_payment(*, fixed: bool) -> None:
    """Wait for the terminal in a synchronous call; with the fix, by the loop."""
    terminal, ours = socket.socketpair()
    with terminal, ours:
        if fixed:
            ours.setblocking(False)
            await asyncio.get_running_loop().sock_recv(ours, 64)
        else:
            wait_for_payment(ours)


def parse_menu(seconds: float) -> None:
    """Run C code that keeps the GIL."""
    ctypes.PyDLL(None).usleep(int(1e6 * seconds))


async def parses_the_menu(*, fixed: bool) -> None:
    """Parse a menu of a minute in one call; with the fix, in small pieces."""
    for _ in range(60_000 if fixed else 1):
        parse_menu(0.001 if fixed else 60.0)
        await asyncio.sleep(0.05 if fixed else 0.0)


def score(seconds: float) -> None:
    """Compute in one step that is too short to be a block."""
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        sum(range(50))


async def scores_all_the_time(*, fixed: bool) -> None:
    """Hold two thirds of the loop; with the fix, which scores changes only, a sixtieth."""
    while True:
        score(0.0002 if fixed else 0.008)
        await asyncio.sleep(0.012 if fixed else 0.004)


async def keeps_what_was_said(*, fixed: bool) -> None:
    """Keep 4 MB more each second; with the fix, a bound, no more than 1 MB in all."""
    while True:
        kept.append(b"\x01" * (200 << 10))
        if fixed or len(kept) > 1500:
            del kept[:-5]
        await asyncio.sleep(0.05)


def upload_part(_part: int) -> None:
    """Send a part of a recording to a slow store."""
    time.sleep(PART_S)


async def uploads_the_recording(pool: Executor, *, fixed: bool) -> None:
    """Upload forty parts at once in the loop's own executor; with the fix, in one of their own."""
    loop = asyncio.get_running_loop()
    while True:
        await asyncio.gather(*(loop.run_in_executor(pool if fixed else None, upload_part, n) for n in range(40)))


async def looks_up_names() -> None:
    """Call the loop's own executor about twice a second."""
    while True:
        await asyncio.sleep(0.5)
        await asyncio.to_thread(len, "localhost")


async def waits_for_the_kitchen(*, fixed: bool) -> None:
    """Wait for an answer that nobody gives; with the fix, ask again after a while."""
    answers: asyncio.Queue[str] = asyncio.Queue()
    while True:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.2 if fixed else None):
                await answers.get()


async def waits_for_a_dead_caller(*, fixed: bool) -> None:
    """Wait for what only the caller would send; with the fix, not for ever."""
    for _ in range(20):
        await asyncio.sleep(0.02)
    said: asyncio.Queue[str] = asyncio.Queue()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(0.5 if fixed else None):
            await said.get()
