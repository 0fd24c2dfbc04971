"""Whether the waits of a loop's selector show its iterations, by what the loop does.

asyncio's own loop waits in `selector.select`, once in each iteration, and one frame runs all iterations. A loop may be
derived from it, have its attributes, and do otherwise: Qt's never calls the selector, and GLib's waits elsewhere
and calls it for what it has found. What comes between two such calls is no iteration, and may be hours of waiting.
"""

from __future__ import annotations

import asyncio
import sys
from types import CodeType, FrameType

from .._os.signal_handlers import code_of

MAX_FRAMES_TRIED = 4
"""So many frames may each have run one iteration, as nested iterations do, until they are taken for no loop."""

_BASE = asyncio.BaseEventLoop
_OWN: tuple[CodeType, CodeType] | None = None
"""The code of one iteration of asyncio's own, and of what runs all. None: they were patched before."""
if all(each.__module__ == _BASE.__module__ for each in (_BASE._run_once, _BASE.run_forever)):  # type: ignore[attr-defined]
    _OWN = _BASE._run_once.__code__, _BASE.run_forever.__code__  # type: ignore[attr-defined]


class SelectorTrial:
    """What the loop does until it is known whether its selector's waits show iterations. On the loop's thread."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.waits = 0
        self._runner = runner_of(sys._getframe(1))
        """The frame that runs the latest iteration. None: there was none."""

    def runs_here(self) -> bool:
        """Return whether asyncio's own code runs the iteration that the calling code is in."""
        frame: FrameType | None = sys._getframe(1)
        while _OWN is not None and frame is not None:
            if frame.f_code is _OWN[0] and frame.f_locals.get("self") is self._loop:
                outer = runner_of(frame)
                return outer is not None and outer.f_code is _OWN[1]
            frame = frame.f_back
        return False

    def see_wait(self) -> bool | None:
        """Take note of a wait that the calling code's caller begins.

        Return True if waits show iterations: asyncio's own code waits, or the frame that has run the iteration before.
        False: the last few iterations had a frame each. None: it is not known so far.
        """
        self.waits += 1
        runner = runner_of(sys._getframe(2))
        if runner is None or runner is self._runner or self.runs_here():  # None: what iterates is compiled
            return True
        self._runner = runner
        return False if self.waits > MAX_FRAMES_TRIED else None


def has_asyncio_code(loop: asyncio.AbstractEventLoop) -> bool:
    """Return whether asyncio's own code will run all iterations: then each waits in the selector."""
    run_forever = getattr(type(loop), "run_forever", None)
    return _OWN is not None and (code_of(getattr(loop, "_run_once", None)), code_of(run_forever)) == _OWN


def waits_by_own_code(loop: asyncio.AbstractEventLoop) -> bool:
    """Return whether the loop's iterations are not asyncio's code, and call `select`, as nest_asyncio's do.

    Then the next wait comes without fail. A handle of ours would change how many of the others one iteration runs:
    where iterations nest, those that it does not reach are run by the one inside of it.
    """
    code = code_of(getattr(loop, "_run_once", None))
    return _OWN is not None and code is not None and code is not _OWN[0] and "select" in code.co_names


def runner_of(frame: FrameType | None) -> FrameType | None:
    """Return the frame that runs the iteration in which this one is. None: no frame is an iteration's.

    A loop's `_run_once` may call the one of the class that it is derived from.
    """
    while frame is not None and frame.f_code.co_name != "_run_once":
        frame = frame.f_back
    while frame is not None and frame.f_code.co_name == "_run_once":
        frame = frame.f_back
    return frame
