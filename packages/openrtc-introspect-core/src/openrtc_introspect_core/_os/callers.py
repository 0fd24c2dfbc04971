"""The line of the user's code that led to a call of a library, such as the start of a thread or a task."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from itertools import islice
from types import CodeType, FrameType

from .stacks import MAX_FRAMES, Call, Places, call_of, outwards, step_frames

_STARTERS = frozenset({"anyio", "asyncio", "concurrent", "threading", "trio", "uvloop"})
"""The libraries that start threads and tasks for others: their own lines say little."""


def user_call(
    frame: FrameType | None,
    places: Places,
    ends: Collection[CodeType] = (),
    *,
    in_c: bool = False,
    beyond: Iterable[FrameType] = (),
) -> Call | None:
    """Return the innermost call in the user's own code, of `frame` and those outside of it.

    If there is none, the innermost one outside of the libraries that start threads and tasks; None: there is none
    either. ends, in_c, beyond: where a task's own stack ends, as for `take`: further out is not who made this call.
    """
    other: Call | None = None
    for each in _frames(frame, ends, in_c=in_c, beyond=beyond):
        file = each.f_code.co_filename
        if places.is_users(file):
            return call_of(each)
        if other is None and not places.is_own(file):
            module = each.f_globals.get("__name__")
            if type(module) is not str or module.partition(".")[0] not in _STARTERS:
                other = call_of(each)
    return other


def _frames(
    frame: FrameType | None, ends: Collection[CodeType], *, in_c: bool, beyond: Iterable[FrameType]
) -> Iterator[FrameType]:
    if in_c:
        yield from step_frames(frame, ends, beyond=beyond)[0]
        return
    for each in islice(outwards(frame, beyond), MAX_FRAMES):  # mostly only few of them are needed
        if each.f_code in ends:
            return
        yield each
