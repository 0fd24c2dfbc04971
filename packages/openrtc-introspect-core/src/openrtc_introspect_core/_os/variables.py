"""The variables of another thread's frame, or of a suspended coroutine's, without a trace left in it."""

from __future__ import annotations

import sys
from types import FrameType
from typing import Any

_KEEPS_SNAPSHOT = sys.version_info < (3, 13)
"""Whether reading `f_locals` writes all variables into a dictionary that the frame keeps."""

_SEES_SNAPSHOT = frozenset({"locals", "vars", "dir", "eval", "exec"})
"""The functions by which code gets at that dictionary."""


def variables_of(frame: FrameType) -> dict[str, Any] | None:
    """Return the variables of a frame by name, those in cells included.

    None: reading them would change what the frame's own code, or a debugger, sees of them.
    """
    if not _KEEPS_SNAPSHOT:
        return dict(frame.f_locals)
    if frame.f_trace is not None or not _SEES_SNAPSHOT.isdisjoint(frame.f_code.co_names):
        return None
    if frame.f_locals is frame.f_globals:  # a module's or a class's own
        return None
    snapshot = frame.f_locals
    variables = dict(snapshot)
    snapshot.clear()  # else the frame would keep objects alive that it has let go of
    return variables
