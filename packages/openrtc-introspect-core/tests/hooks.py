"""A hook into an asyncio loop, without an introspector: with a ledger of its own, and attached to nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import ContextVar

from openrtc_introspect_core._accounting.ledger import Ledger
from openrtc_introspect_core._base.clock import Clock, perf_counter
from openrtc_introspect_core._loops.asyncio_hook import AsyncioHook
from openrtc_introspect_core._sessions.session import Session


def hook_on(
    loop: asyncio.AbstractEventLoop,
    clock: Clock = perf_counter,
    *,
    on_stall: Callable[[float, float], None] = lambda _since, _until: None,
    on_fault: Callable[[str, BaseException], None] = lambda _problem, _error: None,
) -> AsyncioHook:
    """Return a hook that meters the steps of `loop` once it is attached; blocks are longer than 50 ms."""
    binding: ContextVar[Session] = ContextVar("session_of_a_hook_without_introspector")
    return AsyncioHook(loop, Ledger(binding, clock, 0.05), meter=True, on_stall=on_stall, on_fault=on_fault)
