from __future__ import annotations

import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from openrtc_introspect_core import BoxError
from openrtc_introspect_core.black_box import Box, LoopState, MemoryPoint, blocks_now, read_box, snapshot_now
from openrtc_introspect_core.black_box._layout import FILE_BYTES, MAX_FILE_BYTES, SECTIONS
from openrtc_introspect_core.black_box._writer import BoxWriter
from openrtc_introspect_core.wire import Block

MakeBox = Callable[..., BoxWriter]
Record = Callable[..., bytes]

_quietly = settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))


def put(path: Path, offset: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(data)


def slots(section: int = -1) -> tuple[int, int]:
    """Return where the slots of the worker's section begin, or those of a loop's."""
    offset, size = SECTIONS.worker if section < 0 else SECTIONS.loops[section]
    return offset, offset + size


def test_a_box_that_nothing_was_written_to_has_its_header(make_box: MakeBox) -> None:
    """As of a worker that died within its first moments."""
    box = make_box("w", pid=7, python="3.14.0", meter="C")
    seen = read_box(box.path)
    assert (seen.worker, seen.pid, seen.epoch, seen.version) == ("w", 7, "e", "1.2.3")
    assert (seen.python, seen.meter, seen.started_at, seen.at) == ("3.14.0", "C", 1e9, 1e9)
    assert (seen.snapshot, seen.recorded_at, seen.blocks, seen.loops) == (None, None, [], [])
    assert seen.alive


def test_a_box_has_what_was_written(make_box: MakeBox, record: Record) -> None:
    """The worker's record and those of loops."""
    box = make_box()
    memory = [MemoryPoint(at=1e9, rss_mb=99.5)]
    block = Block(seq=3, session_id="job-1")
    box.write_worker(record("job-1", memory=memory, blocks=[block], rows_left_out=2, at=1e9 + 5))
    box.write_loop(0, LoopState(at=1e9 + 9, state="held", since=1e9 + 3, session_id="job-1", agent_name="a"))
    seen = read_box(str(box.path))
    assert seen.snapshot is not None
    assert [row.session_id for row in seen.snapshot.sessions] == ["job-1"]
    assert (seen.memory, seen.blocks, seen.rows_left_out) == (memory, [block], 2)
    assert [(state.state, state.session_id) for state in seen.loops] == [("held", "job-1")]
    assert seen.threads == [7]
    assert (seen.recorded_at, seen.at) == (1e9 + 5, 1e9 + 9)


def test_the_loops_of_several_are_named(make_box: MakeBox, record: Record) -> None:
    """A worker's only loop is not, as in its blocks."""
    box = make_box()
    for index in (0, 2):
        box.write_loop(index, LoopState())
    assert read_box(box.path).loop_names == [None, None]
    box.write_worker(record(threads=[7, 0, 9], names=["asyncio-1", "", "trio-3"]))
    assert (read_box(box.path).loop_names, read_box(box.path).threads) == (["asyncio-1", "trio-3"], [7, 9])


# --- damage --------------------------------------------------------------------------------------


def test_a_torn_record_gives_way_to_the_one_before(make_box: MakeBox, record: Record) -> None:
    """It was written while the writer was killed."""
    box = make_box()
    for number in (1, 2, 3):
        box.write_worker(record(rows_left_out=number))
    put(box.path, slots()[1] + 40, b"torn")
    assert read_box(box.path).rows_left_out == 2


def test_a_torn_first_record_is_none(make_box: MakeBox, record: Record) -> None:
    """There was no record before."""
    box = make_box()
    box.write_worker(record())
    put(box.path, slots()[1] + 40, b"torn")
    assert read_box(box.path).snapshot is None


@pytest.mark.parametrize(("section", "what"), [(-1, "worker's record"), (0, "record of loop 0")])
def test_two_torn_records_are_an_error(make_box: MakeBox, record: Record, section: int, what: str) -> None:
    """No writer leaves such a box."""
    box = make_box()
    for _ in range(2):
        box.write_worker(record())
        box.write_loop(0, LoopState())
    for offset in slots(section):
        put(box.path, offset + 17, b"torn")
    with pytest.raises(BoxError, match=f"is damaged: neither slot of its {what} is what was written"):
        read_box(box.path)


@pytest.mark.parametrize("length", [2**32 - 1, SECTIONS.worker.size - 15, 2**31])
def test_a_length_beyond_the_slot_is_not_read(make_box: MakeBox, record: Record, length: int) -> None:
    """The slot counts as torn."""
    box = make_box()
    box.write_worker(record(rows_left_out=1))
    box.write_worker(record(rows_left_out=2))
    put(box.path, slots()[0] + 8, length.to_bytes(4, "little"))
    assert read_box(box.path).rows_left_out == 1


@pytest.mark.parametrize(
    "record",
    [
        b"",
        b"[]",
        b"{",
        b"null",
        b'{"at":"now"}',
        b'{"at":1e300}',
        b'{"blocks":[{}]}',
        b"[" * 900_000,
        b'{"names":["\xff"]}',
    ],
)
def test_a_record_that_is_none_is_an_error(make_box: MakeBox, record: bytes) -> None:
    """Although it is what was written."""
    box = make_box()
    box.write_worker(record)
    with pytest.raises(BoxError, match="is damaged: its worker's record cannot be read: ") as caught:
        read_box(box.path)
    assert "\n" not in str(caught.value)


def test_unknown_fields_are_ignored(make_box: MakeBox) -> None:
    """A later version of this layout may have more."""
    box = make_box()
    box.write_worker(b'{"at":5,"weather":{"rain":[true]}}')
    assert read_box(box.path).recorded_at == 5


@pytest.mark.parametrize("size", [0, 23, 5000, 8192, 1_000_000, SECTIONS.dump.offset - 1])
def test_a_truncated_box_is_an_error(make_box: MakeBox, size: int) -> None:
    """In one line."""
    path = make_box().path
    os.truncate(path, size)
    with pytest.raises(BoxError, match=r"is no black box: it has \d+ bytes|is truncated: it has \d+ of 2629632 bytes"):
        read_box(path)


def test_the_reserved_part_is_not_read(make_box: MakeBox) -> None:
    """Whatever is in it, and if it is missing."""
    path = make_box().path
    before = read_box(path)
    put(path, SECTIONS.dump.offset, b"Thread 0x07 (most recent call first):\n")
    assert read_box(path) == before
    os.truncate(path, SECTIONS.dump.offset)
    assert read_box(path) == before


def test_a_huge_file_is_not_read(make_box: MakeBox) -> None:
    """However little space it takes."""
    path = make_box().path
    os.truncate(path, 2**40)
    with pytest.raises(BoxError, match=f"is {2**40} bytes long, at most {MAX_FILE_BYTES} are read"):
        read_box(path)


def test_a_file_system_that_fails_is_an_error_of_ours(make_box: MakeBox, monkeypatch: pytest.MonkeyPatch) -> None:
    """With its reason."""
    path = make_box().path

    def fails(*_: object) -> bytes:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "pread", fails)
    with pytest.raises(BoxError, match="cannot be read: Input/output error"):
        read_box(path)


def read_all(path: Path) -> Box | None:
    """Return the box, and make of it all that is made of boxes. None: it is an error of ours in one line."""
    problem = ""
    try:
        box = read_box(path)
    except BoxError as error:
        problem = str(error)
    if problem:
        assert "\n" not in problem
        assert str(path) in problem
        return None
    snapshot_now(box, 2e9)
    blocks_now(box, 2e9)
    return box


@pytest.fixture
def good(make_box: MakeBox, record: Record) -> bytes:
    """Return the bytes of a box of which each part is in use."""
    box = make_box()
    for number in range(3):
        box.write_worker(record("job-1", "job-2", rows_left_out=number, blocks=[Block(seq=1)]))
        box.write_loop(0, LoopState(at=1e9, state="held", since=1e9 - 3, session_id="job-1", agent_name="a"))
        box.write_loop(3, LoopState(at=1e9, state="free"))
    return box.path.read_bytes()


_places = st.one_of(
    st.integers(0, 1200),
    *(st.integers(offset, offset + 1500) for section in (-1, 0, 1, 3) for offset in slots(section)),
    st.integers(0, FILE_BYTES),
)
_changes = st.lists(st.tuples(_places, st.binary(min_size=1, max_size=16)), min_size=1, max_size=6)


@_quietly
@given(changes=_changes, size=st.one_of(st.none(), st.integers(0, FILE_BYTES + 100_000)))
def test_any_change_of_a_box_is_read_or_an_error(
    runtime_dir: Path, good: bytes, changes: list[tuple[int, bytes]], size: int | None
) -> None:
    """Nothing else is raised, and nothing hangs."""
    path = runtime_dir / "changed-1.box"
    path.touch(0o600)
    path.write_bytes(good)
    for offset, data in changes:
        put(path, offset, data)
    if size is not None:
        os.truncate(path, size)
    read_all(path)


@_quietly
@given(data=st.binary(max_size=400), behind=st.booleans())
def test_any_file_is_a_box_or_an_error(runtime_dir: Path, good: bytes, data: bytes, behind: bool) -> None:
    """Bytes alone, or behind the header of a box."""
    path = runtime_dir / "any-1.box"
    path.touch(0o600)
    path.write_bytes(good[:8192] + data + good[8192 + len(data) :] if behind else data)
    box = read_all(path)
    assert (box is not None) or not behind or data


def test_random_pages_are_an_error(runtime_dir: Path) -> None:
    """As a file of someone else's would be."""
    path = runtime_dir / "random-1.box"
    path.touch(0o600)
    path.write_bytes(random.Random(14).randbytes(FILE_BYTES))
    with pytest.raises(BoxError, match="is no black box: it begins with "):
        read_box(path)
