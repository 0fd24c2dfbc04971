"""The limits of a pool: memory, and signals that drain or stop it."""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import Protocol

import anyio
import anyio.abc

from .._base.log import QueuedLogger

logger = QueuedLogger("openrtc.pool")

WARN_AT = 0.8
"""The share of the memory limit at which a warning is logged."""

_MEMORY_CHECK_S = 1.0
_TOPIC = "memory limit"


class Drained(Protocol):
    """A pool, as far as its limits use it."""

    name: str

    @property
    def active(self) -> int: ...

    @property
    def draining(self) -> bool: ...

    def drain(self) -> None: ...

    def stop(self) -> None: ...


async def keep_memory_limit(
    pool: Drained, limit_mb: float, rss_mb: Callable[[], float], note: Callable[[str, str | None], None]
) -> None:
    """Warn once at 80 % of the memory limit, and drain the pool at the limit.

    Then return.

    The note is shown while more than 80 % are used, and for good once the pool drains for it.
    """
    warned = False
    while not pool.draining:
        used = rss_mb()
        if used >= limit_mb:
            note(_TOPIC, f"draining: memory reached {used:.0f} MB, the limit is {limit_mb:g}")
            logger.warning(
                "pool %s drains: RSS is %.0f MB, memory_limit_mb is %g; it waits for %s",
                pool.name, used, limit_mb, sessions(pool.active),
            )  # fmt: skip
            pool.drain()
            return
        near = used >= WARN_AT * limit_mb
        note(_TOPIC, f"memory is above 80 % of its limit of {limit_mb:g} MB, where the pool drains" if near else None)
        if near and not warned:
            warned = True
            logger.warning(
                "pool %s: RSS is %.0f MB, %.0f %% of memory_limit_mb, which is %g: it drains at the limit",
                pool.name, used, 100.0 * used / limit_mb, limit_mb,
            )  # fmt: skip
        await anyio.sleep(_MEMORY_CHECK_S)


async def end_on_signals(
    pool: Drained,
    timeout_s: float | None,
    ended_by: Callable[[signal.Signals], None],
    *,
    task_status: anyio.abc.TaskStatus[None] = anyio.TASK_STATUS_IGNORED,
) -> None:
    """Drain the pool at the first SIGINT or SIGTERM, stop it at the second.

    A third one ends the process.
    Runs until it is cancelled, and then restores the signals' handlers. ended_by: called with the second signal.
    """
    interrupt = signal.getsignal(signal.SIGINT)
    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        task_status.started()
        numbers = aiter(signals)
        _drain(pool, timeout_s, signal.Signals(await anext(numbers)))
        number = signal.Signals(await anext(numbers))
        logger.warning(
            "pool %s stops on %s, a second signal: cancels %s", pool.name, number.name, sessions(pool.active)
        )
        ended_by(number)
        pool.stop()
    try:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # a KeyboardInterrupt would only cancel the sessions once more
        await anyio.sleep_forever()
    finally:
        signal.signal(signal.SIGINT, interrupt)


def _drain(pool: Drained, timeout_s: float | None, number: signal.Signals) -> None:
    pool.drain()
    if pool.active:
        limit = "" if timeout_s is None else f", at most {timeout_s:g} s"
        again = " (Ctrl-C again)" if number == signal.SIGINT else ""
        logger.warning(
            "pool %s drains on %s: it waits for %s to end%s; a second signal%s cancels what runs",
            pool.name, number.name, sessions(pool.active), limit, again,
        )  # fmt: skip


def sessions(count: int) -> str:
    """Return a count such as 1 session or 7 sessions."""
    return "1 session" if count == 1 else f"{count} sessions"
