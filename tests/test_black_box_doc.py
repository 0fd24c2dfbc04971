"""docs/black-box.md is held to the code: its tables of fields, its numbers, and the reader in it."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from openrtc_introspect_core.black_box import LoopState, _layout
from openrtc_introspect_core.black_box._files import KEEP_DEAD_S, MAX_DEAD
from openrtc_introspect_core.black_box._records import MAX_BLOCKS, WorkerRecord
from openrtc_introspect_core.black_box.fields import SOURCES
from openrtc_introspect_core.wire import fields

NAMES = ("Header", "Sections", "Folders", "WorkerRecord", "MemoryPoint", "LoopState")
PAGE = (Path(__file__).parent.parent / "docs" / "black-box.md").read_text(encoding="utf-8")


def test_the_tables_of_fields_are_those_of_the_code() -> None:
    """`nox -s schema` writes them."""
    assert fields.fill(PAGE, SOURCES) == PAGE
    assert set(re.findall(r"<!-- fields of (\w+) -->", PAGE)) == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_each_field_says_what_it_is(name: str) -> None:
    """In sentences, and what null means."""
    for row in fields.table(name, SOURCES).splitlines()[2:]:
        assert row.endswith(". |"), row
        assert "null |" not in row or "Null: " in row, row


def test_its_numbers_are_those_of_the_code() -> None:
    """Offsets and sizes in bytes, and what is kept for how long."""
    sections = _layout.SECTIONS
    for row in (
        f"| 24 | at most {_layout.HEADER_BYTES - _layout.PREFIX.size} | the header:",
        f"| {sections.worker.offset} | 2 × {sections.worker.size:,} | the section of the worker |",
        f"| {sections.loops[0].offset:,} | {_layout.MAX_LOOPS} × 2 × {sections.loops[0].size:,} | the sections of",
        f"| {sections.dump.offset:,} | {sections.dump.size:,} | reserved |",
        f"The file is {_layout.FILE_BYTES:,} bytes long",
        f"A box that is longer than {_layout.MAX_FILE_BYTES >> 20} MB is none",
        f"at most {MAX_BLOCKS}. |",
    ):
        assert row in PAGE, row
    assert re.search(rf"died more than a day ago, and all\s+but the {MAX_DEAD} latest", PAGE)
    assert KEEP_DEAD_S == 86_400


@pytest.mark.skipif(sys.platform == "win32", reason="has no boxes")
def test_the_reader_in_it_reads_a_box(tmp_path: Path) -> None:
    """Another program can be written from the page alone."""
    from openrtc_introspect_core.black_box._writer import BoxWriter

    (code,) = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    namespace: dict[str, Any] = {}
    exec(code, namespace)
    read: Callable[[Path], tuple[Any, Any, Any]] = namespace["read"]
    tmp_path.chmod(0o700)
    box = BoxWriter(_layout.Header(worker="voice-a", pid=os.getpid(), started_at=1e9), tmp_path / "w.sock")
    header, worker, loops = read(box.path)
    assert (header["worker"], worker, loops) == ("voice-a", None, [])
    for number in (1, 2, 3):
        box.write_worker(msgspec.json.encode(WorkerRecord(at=number)))
        box.write_loop(2, LoopState(at=number, state="held"))
    header, worker, loops = read(box.path)
    assert (worker["at"], [(loop["at"], loop["state"]) for loop in loops]) == (3, [(3, "held")])
    box.remove()
    box.close()
