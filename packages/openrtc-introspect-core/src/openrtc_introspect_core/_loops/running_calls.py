"""The calls of what a loop's thread runs: its frames, and compiled code around them, which has none."""

from __future__ import annotations

from collections.abc import Sequence
from types import CoroutineType, FrameType
from typing import Any

from .._os.stacks import Call, Calls, CompiledCall, frames_now, take
from .coroutine_kinds import compiled_calls
from .hook import LoopHook

NO_FRAME = CompiledCall("", 0, "")
"""The call of code without a frame that shows nothing of itself."""


def running_calls(
    hook: LoopHook, frame: FrameType | None, coro: Any, *, gil_kept: bool = False
) -> tuple[Calls, FrameType | None]:
    """Return the calls of a task's step, or of a callback, innermost first, and the frame that they end at.

    frame: the innermost one of the loop's thread. coro: the task's coroutine. None: a callback runs. gil_kept: as for
    `take`.
    """
    of_python = type(coro) is CoroutineType
    calls, end = take(
        frame,
        hook.ends.codes,
        in_c=hook.ends.in_c,
        gil_kept=gil_kept,
        called_from_c=not of_python,
        outermost=coro.cr_frame if of_python else None,
        beyond=hook.greenlets.beyond(),
    )
    return within(calls, compiled_calls(coro)), end


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
    calls, _ = running_calls(hook, frames.get(hook.thread_id), hook.running_coroutine())
    return [call for call in reversed(calls) if call.file]
