"""A place in source code, in the room there is for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from openrtc_top._view.line import cells, visible

if TYPE_CHECKING:
    from openrtc_introspect_core.wire import Location


def place(location: Location, max_width: int) -> str:
    """Return `file:line in function` in so many cells.

    If that does not fit, the beginning of the path is cut, and at last the function.
    """
    names = location.file.split("/")
    shorter = ["/".join(names[-kept:]) for kept in (2, 1) if kept < len(names)]
    for file in (location.file, *shorter):
        text = visible(f"{file}:{location.line} in {location.function}")
        if cells(text) <= max_width:
            return text
    return visible(f"{names[-1]}:{location.line}")
