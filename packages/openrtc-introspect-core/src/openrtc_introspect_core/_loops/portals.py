"""Portals: coroutines of SQLAlchemy and greenback that run synchronous code in a greenlet, from where it can await.

While the synchronous code awaits, its greenlet is left, and the portal waits for it: the frames in the greenlet belong
into the await chain, between the portal and what is awaited.
"""

from __future__ import annotations

import gc
from types import CodeType, CoroutineType, FrameType
from typing import Any, NamedTuple

from .._accounting.meter import is_metered
from .._os.variables import variables_of
from .greenlet_frames import frame_of_greenlet, frames_from, is_greenlet, parent_of

_GREENBACK = "greenback/_impl.py"

PORTALS: dict[str, tuple[str, ...]] = {
    "greenlet_spawn": ("sqlalchemy/util/concurrency.py", "sqlalchemy/util/_concurrency_py3k.py"),
    "_greenback_shim": (_GREENBACK,),
    "_greenback_shim_sync": (_GREENBACK,),
}
"""By the qualified name of the function: the ends of the files that have it."""


class Inside(NamedTuple):
    """What is inside of a portal that waits."""

    frames: list[FrameType]
    """Those of the greenlet, outermost first."""
    awaited: Any
    """The coroutine that is awaited there. None: the portal itself awaits it."""


def inside_of(code: CodeType, values: list[Any]) -> Inside | None:
    """Return what is inside of a suspended coroutine or generator. None: it is no portal, or nothing waits in it.

    values: those of its variables, in their order.
    """
    if not _in_files(code, PORTALS.get(code.co_qualname, ())):
        return None
    greenlets = [value for value in values if is_greenlet(value)]
    if not greenlets or (innermost := frame_of_greenlet(greenlets[-1])) is None:
        return None
    frames = frames_from(innermost)
    if len(greenlets) > 1:  # greenback's: the portal's own, its child, and the one that waits, which may be deeper
        above = parent_of(greenlets[-1])
        while above is not None and above is not greenlets[0]:
            frames = [*frames_from(frame_of_greenlet(above)), *frames]
            above = parent_of(above)
    awaited = None
    if _in_files(innermost.f_code, (_GREENBACK,)):
        if innermost.f_code.co_qualname == "await_":
            awaited = (variables_of(innermost) or {}).get("coro")
        elif innermost.f_code.co_qualname == "trampoline":  # the task's own coroutine awaits
            awaited = values[0]
    return Inside(frames, awaited)


def original_of(coro: Any) -> Any:
    """Return the coroutine that greenback's shim has taken the place of in a task; `coro` itself if it is no shim.

    From any thread, with the GIL.
    """
    if type(coro) is not CoroutineType or coro.cr_code.co_qualname != "greenback_shim":
        return coro
    for held in gc.get_referents(coro):  # empty while the task runs
        if type(held) is CoroutineType or is_metered(held):
            return held
    frame = coro.cr_frame
    original = (variables_of(frame) or {}).get("orig_coro") if frame is not None else None
    return original if original is not None else coro


def _in_files(code: CodeType, ends: tuple[str, ...]) -> bool:
    return bool(ends) and code.co_filename.replace("\\", "/").endswith(ends)
