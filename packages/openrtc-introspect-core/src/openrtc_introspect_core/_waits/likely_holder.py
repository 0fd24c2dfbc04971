"""The likely holder of a lock that was taken by `acquire`, and not by `with`.

asyncio.Lock and threading.Lock do not know who has them. A frame is a likely holder if its code has called `acquire` on
this very lock, in an earlier line than the one that it is at, and no `release` in between. Whoever asks names nobody if
that is true of several.
"""

from __future__ import annotations

from types import CodeType, FrameType
from typing import Any

from .._loops.await_chain import code_of, frame_of, suspended_in
from .._os.stacks import Call
from .expressions import Names, Use, uses_of
from .locks import inner_lock, is_lock

_TAKES = frozenset({"acquire", "acquire_nowait"})


def taken_along(awaitable: Any, lock: object, future: Any = None) -> Call | None:
    """Return the line at which a suspended coroutine, or one that it awaits, has taken the lock. None: none has.

    future: what the task awaits, as for `suspended_in`.
    """
    for suspended in suspended_in(awaitable, future)[0]:
        code = code_of(suspended)
        # Python keeps the frame that is asked for, so only one that can have taken a lock is.
        frame = frame_of(suspended) if code is not None and _may_take(code) else None
        if frame is not None and (taken_at := taken_in(frame, lock)) is not None:
            return taken_at
    return None


def taken_in(frame: FrameType, lock: object) -> Call | None:
    """Return the line at which this frame has taken the lock by `acquire`. None: it has not."""
    code, now = frame.f_code, frame.f_lineno
    if not _may_take(code) or now is None:
        return None
    uses = uses_of(code)
    names = Names(frame)
    for use in uses:
        if use.path[-1] in _TAKES and use.line < now and not _released(use, uses, now):
            value = names.value(use.path[:-1])
            if value is not None and is_lock(value) and inner_lock(value) is lock:
                return Call(code.co_filename, use.line, code.co_qualname)
    return None


def _may_take(code: CodeType) -> bool:
    return not _TAKES.isdisjoint(code.co_names)


def _released(taken: Use, uses: list[Use], now: int) -> bool:
    release = (*taken.path[:-1], "release")
    return any(use.path == release and taken.line < use.line <= now for use in uses)
