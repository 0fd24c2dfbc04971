"""The threads that a capacity limiter of anyio's or Trio's allows, as it reports them."""

from __future__ import annotations

from contextvars import ContextVar
from typing import Any, NamedTuple

_KNOWN = {
    ("anyio._backends._asyncio", "CapacityLimiter"): "_wait_queue",
    ("trio", "CapacityLimiter"): "_pending_borrowers",
}
"""By (module, class): the attribute with the tasks that wait."""

_MAX_DEPTH = 64
"""Coroutines of a task that are searched for the one which hands a call to a thread."""


class Limiter(NamedTuple):
    """The state of a limiter."""

    total: int | None
    """None: no limit, or not known."""
    borrowed: int
    waiting: int


class WaitingCall(NamedTuple):
    """A call that waits for Trio's limiter."""

    session: Any
    func: Any
    """The function that is to be called. None: not known."""


def limiter_of(target: Any) -> Limiter | None:
    """Return the state of a limiter; None: it is of a class that is not known."""
    target = _behind(target)
    attribute = _KNOWN.get((type(target).__module__, type(target).__name__))
    if attribute is None:
        return None
    total = target._total_tokens
    return Limiter(total if type(total) is int else None, len(target._borrowers), len(getattr(target, attribute)))


def waiting_on_trio(target: Any, binding: ContextVar[Any]) -> list[WaitingCall]:
    """Return the calls that wait for a limiter of Trio's."""
    found = []
    for task in list(target._pending_borrowers):
        func = _func_of(task.coro)
        if func is not None:  # else it borrows for something else than a thread
            found.append(WaitingCall(task.context.get(binding), func))
    return found


def _behind(target: Any) -> Any:
    """Return the limiter that anyio has made for its own, which was made outside of a loop."""
    adapts = (type(target).__module__, type(target).__name__) == (
        "anyio._core._synchronization",
        "CapacityLimiterAdapter",
    )
    inner = getattr(target, "_internal_limiter", None) if adapts else None
    return inner if inner is not None else target


def _func_of(coro: Any) -> Any:
    """Return the function that a task wants to call in a thread; None: it waits in another function of Trio's."""
    for _ in range(_MAX_DEPTH):
        frame = getattr(coro, "cr_frame", None)
        if frame is None:
            break
        if frame.f_code.co_name == "to_thread_run_sync":
            return frame.f_locals.get("sync_fn")
        coro = getattr(coro, "cr_await", None)
    return None
