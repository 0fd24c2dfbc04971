"""The lines of code that a block may be reported with."""

from __future__ import annotations

import asyncio
import inspect
import os
from collections.abc import Callable
from functools import lru_cache
from types import FrameType
from typing import Any

from openrtc_introspect_core.wire import Location

from .calls import MARK

_MAX_FRAMES = 64
_LOOPS_OWN = (asyncio.Handle._run.__code__, asyncio.Runner.run.__code__)


def calls_from(frame: FrameType | None) -> list[Location]:
    """Return the calls from `frame` outwards, up to the event loop's own."""
    found: list[Location] = []
    while frame is not None and not _is_loops(frame) and len(found) < _MAX_FRAMES:
        found.append(Location(frame.f_code.co_filename, frame.f_lineno, frame.f_code.co_qualname))
        frame = frame.f_back
    return found


def _is_loops(frame: FrameType) -> bool:
    return frame.f_code in _LOOPS_OWN or frame.f_globals.get("__name__") == "trio._core._run"


@lru_cache
def marked_lines(function: Callable[..., Any]) -> tuple[Location, ...]:
    """Return the lines of the function's source that are marked as those that block."""
    source, first = inspect.getsourcelines(function)
    code = function.__code__
    file = os.path.abspath(code.co_filename)
    return tuple(Location(file, first + index, code.co_qualname) for index, line in enumerate(source) if MARK in line)
