"""The await chain of a suspended task.

It leads from the task's coroutine to what the coroutine awaits, and so on inwards. Following it costs no frame, and
reading a line none of a coroutine of Python's own (suspended_calls.py): Python makes the frame of a suspended coroutine
when it is asked for, and keeps it as long as the coroutine lives.

Nothing here calls code of the host: attributes are read of Python's own types, and of types whose class declares them.
"""

from __future__ import annotations

import asyncio
import gc
import re
import sys
import threading
from types import CodeType, CoroutineType, FrameType, GeneratorType, SimpleNamespace
from typing import Any

from .._accounting.meter import drive, is_metered
from .._base.gil import has_gil
from .._os.stacks import MAX_FRAMES, Call, call_of
from .asyncio_names import FUTURES, is_task, name_of
from .coroutine_kinds import WRAPPERS, begin_of, code_in, frame_in, is_coroutine, kind_of, read
from .portals import PORTALS, inside_of
from .suspended_calls import suspended_call

_LOOP: Any = SimpleNamespace(get_debug=bool)
_FUTURE_ITERATOR: type = type(FUTURES[0](loop=_LOOP).__await__())
"""The iterator that `await` makes of a future in C."""

_DRIVE = drive.__code__
_CODE_FROM = 1 if sys.version_info < (3, 12) else 0
"""On Python 3.11 a coroutine's first reference is to the code, which its frame refers to once more."""
_AWAIT_OF_FUTURE = asyncio.futures._PyFuture.__await__.__code__  # type: ignore[attr-defined]
"""The code of the generator that `await` makes of a future in Python."""
_MAX_HELD = 64
"""The objects that one without known attributes may hold, to be looked through."""
_MAX_DEPTH = 4
"""How many of these may await each other."""


def may_look_into(thread_id: int) -> bool:
    """Return whether tasks of this thread stay suspended while they are read.

    Without a GIL only those of the calling thread do.
    """
    return has_gil() or thread_id == threading.get_ident()


def is_future(value: object) -> bool:
    """Return whether this is a future of asyncio's, without a call of the host's code."""
    return issubclass(type(value), FUTURES)


def suspended_in(awaitable: Any, future: Any = None) -> tuple[list[Any], Any]:
    """Return the suspended coroutines and generators, outermost first, and what the innermost awaits.

    That is a future or its iterator. None: the chain leads to no future. Between them are the frames of a greenlet that
    waits, with the synchronous code that awaits there.

    future: what the task awaits, by its own word. An awaitable that does not show what it awaits, such as a coroutine
    of mypyc's or an object with `__next__`, is looked through if it holds what leads to this future. None: it is not
    known; then if it holds a single suspended coroutine.
    """
    chain: list[Any] = []
    return chain, _follow(awaitable, future, chain, 0)


def _follow(awaitable: Any, future: Any, chain: list[Any], depth: int) -> Any:
    """Add the suspended coroutines and generators to the chain, and return what the innermost awaits."""
    has_greenlets = "greenlet" in sys.modules
    while awaitable is not None and len(chain) < MAX_FRAMES:
        kind = type(awaitable)
        if kind is CoroutineType:
            chain.append(awaitable)
            outer, awaitable = awaitable, awaitable.cr_await
            if has_greenlets and outer.cr_code.co_qualname in PORTALS:
                awaitable = _through_portal(outer, outer.cr_code, chain) or awaitable
        elif kind is GeneratorType and awaitable.gi_code is not _DRIVE:
            if awaitable.gi_code is _AWAIT_OF_FUTURE:
                return awaitable
            chain.append(awaitable)
            outer, awaitable = awaitable, awaitable.gi_yieldfrom
            if has_greenlets and outer.gi_code.co_qualname in PORTALS:
                awaitable = _through_portal(outer, outer.gi_code, chain) or awaitable
        elif kind is _FUTURE_ITERATOR or issubclass(kind, FUTURES):
            return awaitable
        elif is_metered(awaitable):  # someone wrapped the metered coroutine in another
            awaitable = awaitable.coro
        elif kind is GeneratorType or kind.__name__ in WRAPPERS:  # the meter's; an async generator's step
            awaitable = next(filter(is_coroutine, gc.get_referents(awaitable)), None)
        elif (shown := kind_of(kind)) is not None:
            chain.append(awaitable)
            awaitable = read(shown.awaits, awaitable)
        else:
            return _look_through(awaitable, future, chain, depth)
    return None


def _look_through(awaitable: Any, future: Any, chain: list[Any], depth: int) -> Any:
    """Go on at what an object holds that does not show what it awaits."""
    held = _held_in(awaitable)
    if len(held) > _MAX_HELD or depth == _MAX_DEPTH:
        return None
    awaited = [each for each in held if type(each) is _FUTURE_ITERATOR or is_coroutine(each) or _is_driven(type(each))]
    if future is None:
        suspended = [each for each in awaited if is_coroutine(each) and _is_suspended(each)]
        return _follow(suspended[0], None, chain, depth + 1) if len(suspended) == 1 else None
    for each in awaited:
        further = chain[:]
        if _future_of(_follow(each, future, further, depth + 1)) is future:
            chain[:] = further
            return future
    return None


def _future_of(awaited: Any) -> Any:
    """Return the future that the end of a chain is, or iterates. None: it is none."""
    if awaited is None or is_future(awaited):
        return awaited
    return next(filter(is_future, gc.get_referents(awaited)), None)


def _is_driven(kind: type) -> bool:
    """Return whether `await` can go through an object of this type."""
    return any("__next__" in vars(each) or "send" in vars(each) for each in kind.__mro__)


def _is_suspended(coro: Any) -> bool:
    if type(coro) is CoroutineType:
        suspended: bool = coro.cr_suspended
    else:
        suspended = type(coro) is not GeneratorType or coro.gi_suspended
    return suspended


def _held_in(awaitable: Any) -> list[Any]:
    found: list[Any] = []
    for each in gc.get_referents(awaitable):
        if type(each) is dict:  # an object's attributes
            found.extend(list(each.values()))
        else:
            found.append(each)
    return found


def code_of(suspended: Any) -> CodeType | None:
    """Return the code of a member of a chain. None: it shows none."""
    kind = type(suspended)
    if kind is CoroutineType:
        code: CodeType | None = suspended.cr_code
    elif kind is GeneratorType:
        code = suspended.gi_code
    elif kind is FrameType:
        code = suspended.f_code
    else:
        shown = kind_of(kind)
        code = code_in(suspended, shown) if shown is not None else None
    return code


def frame_of(suspended: Any) -> FrameType | None:
    """Return the frame of a member of a chain. None: it has ended meanwhile, or shows none with a line."""
    if type(suspended) is CoroutineType:
        frame: FrameType | None = suspended.cr_frame
    elif type(suspended) is FrameType:
        frame = suspended
    else:
        shown = kind_of(type(suspended))
        frame = frame_in(suspended, shown) if shown is not None else None
    return frame


def call_in(suspended: Any) -> Call | None:
    """Return the call that a member of a chain is in.

    Of compiled code without frames, the line is the one where the function begins. None: it has ended meanwhile, or
    shows none.
    """
    call = suspended_call(suspended)
    if call is not None:
        return call
    frame = frame_of(suspended)
    if frame is not None:
        return call_of(frame)
    shown = kind_of(type(suspended))
    return begin_of(suspended, shown) if shown is not None and shown.frame is None else None


def locals_of(suspended: Any) -> list[Any]:
    """Return the values of the variables of a member of a chain, its arguments first, without its frame.

    Variables without a value are left out. The values on its stack follow.
    """
    code = code_of(suspended)
    held = gc.get_referents(suspended)
    for number in range(_CODE_FROM, len(held)):
        if held[number] is code:
            return held[number + 1 :]
    return []


def await_chain(awaitable: Any, future: Any = None) -> tuple[list[Call], str | None]:
    """Return the suspended calls, and what the innermost waits on.

    The calls are outermost first. The second is a description, or None. future: as for `suspended_in`.
    """
    chain, awaited = suspended_in(awaitable, future)
    calls: list[Call] = []
    for each in chain:
        call = call_in(each)
        if call is not None:
            calls.append(call)
        elif type(each) in (CoroutineType, GeneratorType):  # it has gone on meanwhile
            return calls, None
    awaited = _future_of(awaited)
    if future is not None and awaited is not future:  # the chain breaks off where its last one does not show more
        awaited, chain = future, []
    return calls, _describe(awaited, chain[-1] if chain else None) if awaited is not None else None


def _through_portal(portal: Any, code: CodeType, chain: list[Any]) -> Any:
    """Add the frames inside of a portal to a chain. Return the coroutine awaited there; None: the portal awaits it."""
    inside = inside_of(code, locals_of(portal))
    if inside is None:
        return None
    chain += [frame for frame in inside.frames if frame.f_code is not _DRIVE]
    return inside.awaited


def _describe(future: Any, innermost: Any) -> str | None:
    if is_task(future):
        return f"task {name_of(future)}"
    if type(future).__name__ == "_GatheringFuture" and isinstance(children := getattr(future, "_children", None), list):
        return f"gather of {len(children)}"
    if innermost is not None and code_of(innermost) is asyncio.sleep.__code__:
        delay = next(iter(locals_of(innermost)), None)
        return f"sleep of {delay:.4g} s" if isinstance(delay, int | float) else None
    return None


def natural(name: str) -> list[tuple[int, str]]:
    """Return a sort key by which Task-9 is before Task-10."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name)]
