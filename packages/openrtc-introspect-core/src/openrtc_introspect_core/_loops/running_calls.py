"""The calls of what a loop's thread runs: its frames, and compiled code around them, which has none."""

from __future__ import annotations

from collections.abc import Sequence
from types import CoroutineType, FrameType
from typing import Any

from .._os.stacks import Call, Calls, CompiledCall, Walk, calls_of, frames_now, own_part, walk
from .coroutine_kinds import compiled_calls
from .hook import LoopHook

NO_FRAME = CompiledCall("", 0, "")
"""The call of code without a frame that shows nothing of itself."""


def walk_on(hook: LoopHook, frame: FrameType | None) -> Walk:
    """Return the frames of a task's step, or of a callback, on a loop's thread. frame: the innermost one."""
    return walk(frame, hook.ends.codes, in_c=hook.ends.in_c, beyond=hook.greenlets.beyond())


def running_calls(hook: LoopHook, walked: Walk, coro: Any, *, gil_kept: bool = False) -> Calls:
    """Return the calls of a task's step, or of a callback, innermost first.

    coro: the task's coroutine. None: a callback runs. gil_kept: as for `take`.
    """
    of_python = type(coro) is CoroutineType
    own = own_part(walked, in_c=hook.ends.in_c, outermost=coro.cr_frame if of_python else None)
    return within(calls_of(own, gil_kept=gil_kept, called_from_c=not of_python), compiled_calls(coro))


def within(calls: Sequence[Call], compiled: Sequence[Call]) -> Calls:
    """Return calls with those of compiled code around them, which are given outermost first.

    Compiled code whose calls have frames, as Nuitka's, is not added. If there are none at all, one stands for them.
    """
    framed = {(call.file, call.function) for call in calls}
    around = [call for call in reversed(compiled) if (call.file, call.function) not in framed]
    return (*calls, *around) or (NO_FRAME,)


def calls_now(hook: LoopHook) -> list[Call]:
    """Return the calls of the task that holds a loop, outermost first, as far as they are in files."""
    frames = frames_now()
    calls = running_calls(hook, walk_on(hook, frames.get(hook.thread_id)), hook.running_coroutine())
    del frames
    return [call for call in reversed(calls) if call.file]
