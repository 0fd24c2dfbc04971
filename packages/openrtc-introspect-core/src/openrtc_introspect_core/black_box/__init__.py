"""The black box: the file that says what a worker is doing while it cannot answer, and did before it died.

docs/black-box.md is the contract.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .._base.errors import BoxError

if TYPE_CHECKING:
    from ._files import BoxFile, box_path, find_boxes
    from ._layout import LAYOUT_VERSION, MAX_LOOPS
    from ._moment import blocks_now, snapshot_now
    from ._reader import Box, read_box, remove_box
    from ._records import LoopState, MemoryPoint

__all__ = [
    "LAYOUT_VERSION",
    "MAX_LOOPS",
    "Box",
    "BoxError",
    "BoxFile",
    "LoopState",
    "MemoryPoint",
    "blocks_now",
    "box_path",
    "find_boxes",
    "read_box",
    "remove_box",
    "snapshot_now",
]

_PLACES = {
    "_files": ("BoxFile", "box_path", "find_boxes"),
    "_layout": ("LAYOUT_VERSION", "MAX_LOOPS"),
    "_moment": ("blocks_now", "snapshot_now"),
    "_reader": ("Box", "read_box", "remove_box"),
    "_records": ("LoopState", "MemoryPoint"),
}


def __getattr__(name: str) -> Any:
    # Loaded when needed: a worker only writes its box, and does not wait for what reads one.
    for module, names in _PLACES.items():
        if name in names:
            return getattr(import_module(f".{module}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
