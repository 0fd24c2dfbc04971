"""The frames of greenlets that do not run, read from any thread with the GIL.

greenlet itself makes the frames of a greenlet that is left, and links them to each other, so reading them changes
nothing. The class of a greenlet may be the host's: only what the library's own class answers is read.
"""

from __future__ import annotations

import sys
from types import FrameType
from typing import Any

from .._os.stacks import MAX_FRAMES


def _kind() -> Any:
    """Return the class of greenlets. None: greenlet is not loaded."""
    return getattr(sys.modules.get("greenlet"), "greenlet", None)


def is_greenlet(value: object) -> bool:
    """Return whether this is a greenlet."""
    kind = _kind()
    return kind is not None and issubclass(type(value), kind)


def parent_of(greenlet: Any) -> Any:
    """Return the parent of a greenlet. None: it is a thread's main one."""
    return _kind().parent.__get__(greenlet)


def frame_of_greenlet(greenlet: Any) -> FrameType | None:
    """Return the innermost frame of a greenlet. None: it runs, has not begun, or is over."""
    frame: FrameType | None = _kind().gr_frame.__get__(greenlet)
    return frame


def frames_from(innermost: FrameType | None) -> list[FrameType]:
    """Return the frames of one greenlet, outermost first."""
    frames: list[FrameType] = []
    frame = innermost
    while frame is not None and len(frames) < MAX_FRAMES:
        frames.append(frame)
        frame = frame.f_back
    frames.reverse()
    return frames


def frames_beyond(running: Any) -> list[FrameType]:
    """Return the innermost frame of each ancestor of the greenlet that runs, the nearest first.

    Empty: this greenlet does not run.
    """
    if _kind().dead.__get__(running) or frame_of_greenlet(running) is not None:
        return []
    frames: list[FrameType] = []
    above = parent_of(running)
    while above is not None and len(frames) < MAX_FRAMES:
        if (frame := frame_of_greenlet(above)) is not None:
            frames.append(frame)
        above = parent_of(above)
    return frames
