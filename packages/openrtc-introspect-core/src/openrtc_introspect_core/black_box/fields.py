"""The tables of fields in the black box's page, from the docstrings of its header and records.

`python -m openrtc_introspect_core.black_box.fields docs/black-box.md` writes them into the page anew.
"""

from __future__ import annotations

import sys
from pathlib import Path

from .._os import stacks
from ..wire import fields
from . import _layout, _records

SOURCES = (_layout, _records, stacks)

if __name__ == "__main__":
    for path in map(Path, sys.argv[1:]):
        path.write_text(fields.fill(path.read_text(encoding="utf-8"), SOURCES), encoding="utf-8")
