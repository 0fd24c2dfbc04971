"""Where the stack of a task, or of a callback, ends on the thread of one loop.

asyncio's own loop calls all that it runs from a function in Python. Another one may have no such frame, as uvloop does.
There the stack ends at the frame that runs the loop. That is the host's own code, so it is learned: from the method
that is replaced to see the loop start, from the task that attaches, and from each beat of the heartbeat.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import CodeType, FrameType, FunctionType

from .._os.stacks import step_frames


class StackEnds:
    """The ends on one loop's thread. All methods run there.

    codes: that of the frames in which a task's or a callback's own frames end, on every loop of this kind.
    """

    def __init__(self, codes: frozenset[CodeType]) -> None:
        self._always = codes
        self.codes = codes
        """The code of the frames in which a task's or a callback's own end: further out are ours and the loop's."""
        self.in_c = False
        """Whether the loop may have no frame around what it runs but the one that runs the loop."""
        self.known = True
        """Whether each stack has a frame of this code."""
        self.on_change: Callable[[], None] = _nothing
        """Called when `codes` has changed."""

    def learn(self, kind: type) -> None:
        """Take note that a loop of this type may have no frame around what it runs: the one that runs it is the end."""
        self.in_c, self.known = True, False
        methods = (getattr(kind, name, None) for name in ("run_forever", "run_until_complete"))
        self._always |= {method.__code__ for method in methods if type(method) is FunctionType}
        self._set(self._always)

    def look(self) -> None:
        """Look for the frame that runs the loop, outside of the coroutine that calls this."""
        if self.in_c:
            frames, end = step_frames(sys._getframe(), self.codes)
            self.see_runner(end or (frames[-1].f_back if frames else None))

    def see_runner(self, frame: FrameType | None) -> None:
        """Take note of the frame that runs the loop. None: it is not known."""
        if frame is not None:
            self.known = True
            self._set(self._always | {frame.f_code})

    def see_start(self) -> None:
        """Take note that the loop is run by a method that has one of these codes."""
        self.known = True

    def _set(self, codes: frozenset[CodeType]) -> None:
        if codes != self.codes:
            self.codes = codes
            self.on_change()


def _nothing() -> None:
    pass
