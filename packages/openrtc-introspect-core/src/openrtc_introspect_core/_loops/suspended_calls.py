"""The call that a suspended coroutine or generator is in, read without its frame.

Python makes the frame of a suspended coroutine when it is asked for, and keeps it as long as the coroutine lives: some
hundred bytes for each, and tens of thousands of them set off collections of the host's whole heap. The part in C reads
where the coroutine is suspended without one.
"""

from __future__ import annotations

from collections.abc import Callable
from types import CodeType, CoroutineType, GeneratorType
from typing import Any

from .._native import native
from .._os.stacks import Call

_MAX_KNOWN = 4096

_calls: dict[tuple[int, int], tuple[CodeType, Call]] = {}
"""By the code's id() and the instruction."""


async def _suspended() -> None:
    await _Forever()


class _Forever:
    def __await__(self) -> Any:
        yield


def _tried() -> Callable[[Any, CodeType], int | None] | None:
    """Return the function in C, if it finds the instruction that Python itself names."""
    if native is None:
        return None
    coro: Any = _suspended()
    coro.send(None)
    generator = coro.cr_await
    try:
        found = [native.suspended_at(coro, coro.cr_code), native.suspended_at(generator, generator.gi_code)]
        return native.suspended_at if found == [coro.cr_frame.f_lasti, generator.gi_frame.f_lasti] else None
    finally:
        coro.close()


_suspended_at = _tried()


def suspended_call(suspended: Any) -> Call | None:
    """Return the call that a coroutine or generator of Python's own is suspended in. From any thread, with the GIL.

    None: it does not show that without its frame, or is not suspended.
    """
    kind = type(suspended)
    if kind is CoroutineType and suspended.cr_suspended:
        code: CodeType = suspended.cr_code
    elif kind is GeneratorType and suspended.gi_suspended:
        code = suspended.gi_code
    else:
        return None
    at = _suspended_at(suspended, code) if _suspended_at is not None else None
    if at is None:
        return None
    key = id(code), at
    known = _calls.get(key)
    if known is None or known[0] is not code:
        if len(_calls) >= _MAX_KNOWN:
            _calls.clear()
        known = _calls[key] = code, Call(code.co_filename, _line_at(code, at), code.co_qualname)
    return known[1]


def _line_at(code: CodeType, at: int) -> int:
    line = next((line for start, end, line in code.co_lines() if start <= at < end), None)
    return line if line is not None else code.co_firstlineno
