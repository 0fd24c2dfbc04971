from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from openrtc_introspect_core.wire import Counts, Frame, LoopInfo, SessionRow, WorkerInfo
from openrtc_introspect_core.wire._frame_reader import FrameReader, OutOfStep
from openrtc_introspect_core.wire._row_table import RowTable, TableRow, Taken

WORKER = WorkerInfo(name="w", pid=1)


def frame(seq: int, base: int | None = None, **fields: Any) -> Frame:
    return Frame(id=1, seq=seq, base=base, **({"worker": WORKER, "taken_at": 1000.0 + seq} | fields))


def row(session_id: str, **fields: Any) -> SessionRow:
    started = {"started_at": 1000.0, "duration_s": 1.0, "cpu_pct": 10.0, "cpu_s": 0.5, "steps": 3}
    used = {"agent_name": "a", "mem_mb": 20.0, "peak_mb": 25.0}
    return SessionRow(session_id=session_id, **(started | used | fields))


@pytest.fixture
def reader() -> FrameReader:
    """A reader of a frame 1 of everything: the rows "one" and "two"."""
    reader = FrameReader()
    reader.read(frame(1, rows=[row("one"), row("two")], share_mb=20.0, window_s=2.0))
    return reader


def test_a_frame_of_everything_is_its_snapshot() -> None:
    """The snapshot has the frame's id, number, moment, worker and rows."""
    whole = frame(7, rows=[row("one")])
    snapshot = FrameReader().read(whole)
    assert (snapshot.id, snapshot.seq, snapshot.taken_at, snapshot.worker) == (1, 7, 1007.0, WORKER)
    assert snapshot.sessions == [row("one")]


def test_rows_that_are_left_out_go_on(reader: FrameReader) -> None:
    """Their duration, share of the loop and share of the memory are those of the new moment."""
    snapshot = reader.read(frame(3, base=1, share_mb=30.0, peak_share_mb=40.0, window_s=4.0))
    # 10 % of the first second, which is all that "one" had lived for, is 0.1 s; now it has lived for three.
    expected = row("one", duration_s=3.0, cpu_pct=pytest.approx(100 * 0.1 / 3), mem_mb=30.0, peak_mb=40.0)
    assert snapshot.sessions[0] == expected
    assert [each.session_id for each in snapshot.sessions] == ["one", "two"]


def test_without_a_share_and_a_window_only_durations_go_on(reader: FrameReader) -> None:
    """A worker in process mode sends rows anew if anything else in them changes."""
    snapshot = reader.read(frame(3, base=1))
    assert snapshot.sessions[0] == row("one", duration_s=3.0)


def test_counts_change_what_they_say(reader: FrameReader) -> None:
    """Loop time, steps, and the share of the loop within the window."""
    counts = [Counts("two", 750_000_000, 9, 500_000_000)]
    snapshot = reader.read(frame(2, base=1, counts=counts, share_mb=20.0, window_s=2.0))
    two = snapshot.sessions[1]
    assert (two.cpu_s, two.steps, two.cpu_pct) == (pytest.approx(0.75), 9, pytest.approx(25.0))


def test_counts_say_when_the_last_step_ended(reader: FrameReader) -> None:
    """Without it, as from a server of 1.1, and while a step runs, it is not known."""
    at = 1_700_000_000.123456
    counts = [Counts("one", 0, 1, 0, round(1e9 * at)), Counts("two", 0, 1, 0)]
    one, two = reader.read(frame(2, base=1, counts=counts)).sessions
    assert one.last_step_at == pytest.approx(at, abs=1e-6, rel=0.0)
    assert two.last_step_at is None
    still = reader.read(frame(3, base=2)).sessions[0]
    assert still.last_step_at == one.last_step_at


class Table(RowTable):
    """A table whose rows a test changes."""

    def take(self) -> Taken:
        raise NotImplementedError

    def refresh(self, rows: Sequence[TableRow]) -> None:
        pass


MOMENT = st.none() | st.floats(1e9, 4e9)
STEPS = st.dictionaries(st.sampled_from(["one", "two", "three"]), MOMENT, max_size=3)


@given(snapshots=st.lists(st.tuples(STEPS, st.booleans()), min_size=1, max_size=8))
def test_readers_know_each_last_step_whatever_frames_they_miss(
    snapshots: list[tuple[dict[str, float | None], bool]],
) -> None:
    """It is that of the table's row to the microsecond, also if several frames' changes come at once."""
    table, reader = Table(), FrameReader()
    for name in ("one", "two", "three"):
        table.rows[name] = TableRow(row=row(name), changed=1, counted=1)
    for seq, (stepped, is_read) in enumerate(snapshots, start=2):
        touched = []
        for name, at in stepped.items():
            known = table.rows[name]
            known.row = msgspec.structs.replace(known.row, last_step_at=at)
            known.steps, known.counted = known.steps + 1, seq
            touched.append(known)
        table._stepped(seq, touched, [])
        if not is_read:
            continue
        taken = Taken(seq, 2e9, WORKER, [])
        pieces = table.changes(reader.seq, taken)
        if pieces is None:
            rows = [each.row for each in table.rows.values()]
            snapshot = reader.read(frame(seq, rows=rows))
        else:
            message = b'{"type":"frame","id":1' + b"".join(pieces)
            snapshot = reader.read(msgspec.json.decode(message, type=Frame))
        got = {each.session_id: each.last_step_at for each in snapshot.sessions}
        wanted = {name: known.row.last_step_at for name, known in table.rows.items()}
        assert got == {
            name: pytest.approx(at, abs=1e-6, rel=0.0) if at is not None else None for name, at in wanted.items()
        }


def test_rows_that_are_gone_are_gone_first(reader: FrameReader) -> None:
    """An id that is used again has its new row."""
    new = row("one", agent_name="b")
    snapshot = reader.read(frame(2, base=1, gone=["one", "two", "never heard of"], rows=[new]))
    assert snapshot.sessions == [new]


def test_an_errored_row_stays_as_it_is() -> None:
    """Its session has ended."""
    reader = FrameReader()
    failed = row("one", status="errored", mem_mb=0.0)
    reader.read(frame(1, rows=[failed]))
    snapshot = reader.read(frame(9, base=1, share_mb=30.0, peak_share_mb=90.0, window_s=2.0))
    assert snapshot.sessions == [failed]


def test_earlier_snapshots_do_not_change(reader: FrameReader) -> None:
    """A view may keep them."""
    earlier = reader.read(frame(2, base=1, window_s=2.0))
    before = msgspec.json.encode(earlier)
    reader.read(frame(3, base=2, gone=["one"], counts=[Counts("two", 1, 1, 1)], window_s=2.0))
    assert msgspec.json.encode(earlier) == before


def test_a_share_is_at_most_all_loops(reader: FrameReader) -> None:
    """Loop time and window are read a moment apart."""
    counts = [Counts("one", 10**9, 1, 9 * 10**9), Counts("two", 10**9, 1, 9 * 10**9)]
    assert reader.read(frame(2, base=1, counts=counts, window_s=2.0)).sessions[0].cpu_pct == 100.0
    worker = msgspec.structs.replace(WORKER, loops=[LoopInfo(name="a"), LoopInfo(name="b")])
    assert reader.read(frame(3, base=2, worker=worker, window_s=2.0)).sessions[0].cpu_pct == 200.0


@pytest.mark.parametrize(
    "other",
    [frame(5, base=3), frame(5, base=0), frame(5, base=1, counts=[Counts("never heard of", 1, 1, 1)])],
    ids=["another base", "no base", "counts of no row"],
)
def test_a_frame_that_builds_on_another_is_refused(reader: FrameReader, other: Frame) -> None:
    """The reader has to ask for everything."""
    with pytest.raises(OutOfStep):
        reader.read(other)


def test_a_new_reader_takes_no_changes() -> None:
    """It has nothing that they build on."""
    with pytest.raises(OutOfStep):
        FrameReader().read(frame(5, base=0))
