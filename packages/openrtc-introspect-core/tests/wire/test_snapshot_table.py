from __future__ import annotations

from typing import Any

import pytest

from openrtc_introspect_core.wire import Frame, SessionRow, Snapshot, WorkerInfo, decode_server_message
from openrtc_introspect_core.wire._frame_reader import FrameReader
from openrtc_introspect_core.wire._row_table import TableRow
from openrtc_introspect_core.wire._source import MAX_BASES, SharedSnapshot


def row(session_id: str, **fields: Any) -> SessionRow:
    return SessionRow(session_id=session_id, **({"agent_name": "a", "started_at": 100.0, "duration_s": 1.0} | fields))


def snapshot(seq: int, *rows: SessionRow, taken_at: float = 101.0) -> Snapshot:
    return Snapshot(seq=seq, taken_at=taken_at, worker=WorkerInfo(name="w", pid=1), sessions=list(rows))


class Script:
    """A source of these snapshots, one for each that is asked for."""

    def __init__(self, *snapshots: Snapshot) -> None:
        self.snapshots = list(snapshots)
        # No time passes and building takes none, so no snapshot is fresh.
        self.shared = SharedSnapshot(self, lambda: 0.0, lambda: 0.0)  # type: ignore[arg-type]

    def snapshot(self) -> Snapshot:
        return self.snapshots.pop(0)

    def frame(self, base: int, within_s: float = 0.0) -> Frame:
        seq, message = self.shared.frame("id", base, within_s)
        frame = decode_server_message(b"".join(message))
        assert isinstance(frame, Frame)
        assert (frame.seq, frame.id) == (seq, "id")
        return frame


def test_the_first_frame_has_everything() -> None:
    """Whatever frame the client says that it has."""
    for base in (0, 1, 8, 99):
        frame = Script(snapshot(7, row("one"))).frame(base)
        assert (frame.base, frame.rows) == (None, [row("one")])


def test_only_rows_that_have_changed_are_sent() -> None:
    """A row that is only older has not, whatever the rounding of its duration."""
    older = row("one", duration_s=2.0004)
    script = Script(snapshot(7, row("one"), row("two")), snapshot(8, older, row("two", blocks=1), taken_at=102.0))
    script.frame(0)
    frame = script.frame(7)
    assert (frame.base, frame.rows, frame.gone) == (7, [row("two", blocks=1)], [])


def test_a_duration_that_does_not_follow_from_the_moment_is_sent() -> None:
    """The client would take the row for another."""
    script = Script(snapshot(7, row("one")), snapshot(8, row("one", duration_s=9.0), taken_at=102.0))
    script.frame(0)
    assert script.frame(7).rows == [row("one", duration_s=9.0)]


def test_rows_that_are_no_longer_there_are_gone() -> None:
    """By their ids."""
    script = Script(snapshot(7, row("one"), row("two")), snapshot(8, row("two")))
    script.frame(0)
    frame = script.frame(7)
    assert (frame.gone, frame.rows) == (["one"], [])


@pytest.mark.parametrize("later", [7, 6, 0])
def test_a_snapshot_that_is_no_later_one_is_sent_whole(later: int) -> None:
    """Nothing builds on a number that does not rise."""
    script = Script(snapshot(7, row("one")), snapshot(later, row("one", blocks=1)), snapshot(8, row("one", blocks=1)))
    script.frame(0)
    assert script.frame(7).base is None
    assert script.frame(7).base is None


def test_rows_that_share_an_id_are_sent_whole() -> None:
    """A client could not tell which of them has changed."""
    both = [row("one"), row("one", agent_name="b")]
    script = Script(snapshot(7, row("one")), snapshot(8, *both), snapshot(9, row("one")))
    script.frame(0)
    frame = script.frame(7)
    assert (frame.base, frame.rows) == (None, both)
    assert script.frame(8).base is None


def test_a_frame_is_encoded_once_for_all_who_have_the_same() -> None:
    """Watchers in phase share the bytes of what has changed."""
    script = Script(snapshot(7, row("one")), snapshot(8, row("one", blocks=1)))
    script.frame(0)
    first, second = (list(script.shared.frame(number, 7, within_s=1.0)[1]) for number in (1, 2))
    assert [id(piece) for piece in first[1:]] == [id(piece) for piece in second[1:]]


def test_the_rows_of_whole_frames_and_snapshots_are_the_same_bytes() -> None:
    """They are encoded once."""
    script = Script(snapshot(7, *(row(f"job-{number}") for number in range(1000))))
    whole = list(script.shared.message(1))
    frame = list(script.shared.frame(2, 0, within_s=1.0)[1])
    assert [id(piece) for piece in whole[2:-1]] == [id(piece) for piece in frame[2:-1]]


def test_a_slow_reader_of_rows_reads_those_of_one_snapshot() -> None:
    """The rest of them is encoded before the next snapshot is taken."""
    rows = [row(f"job-{number}") for number in range(1200)]
    script = Script(snapshot(7, *rows), snapshot(8, *(row(f"job-{number}", blocks=1) for number in range(1200))))
    message = iter(script.shared.message("slow"))
    pieces = [next(message) for _ in range(3)]
    script.frame(7)
    slow = decode_server_message(b"".join([*pieces, *message]))
    assert isinstance(slow, Snapshot)
    assert (slow.seq, slow.sessions) == (7, rows)


def test_changes_are_encoded_against_a_few_frames_only() -> None:
    """Many readers that have all read different frames get everything, which is encoded already."""
    script = Script(*(snapshot(seq, row("one")) for seq in range(1, 40)))
    for _ in range(30):
        script.frame(0)
    script.frame(30)
    bases = [script.frame(base, within_s=1.0).base for base in range(5, 30)]
    assert [base is not None for base in bases] == (MAX_BASES - 1) * [True] + (26 - MAX_BASES) * [False]


def test_a_source_that_fails_begins_anew() -> None:
    """A table that was left half done is used by nobody."""
    script = Script(snapshot(7, row("one")))
    script.frame(0)
    with pytest.raises(IndexError):
        script.frame(7)
    script.snapshots = [snapshot(8, row("one"))]
    assert script.frame(7).base is None


def test_what_is_forgotten_is_built_on_no_more() -> None:
    """A worker that nobody reads keeps nothing."""
    script = Script(snapshot(7, row("one")), snapshot(8, row("one")), snapshot(9, row("one")))
    script.frame(0)
    script.shared.forget()
    assert script.frame(7).base is None
    assert script.frame(8).base == 8


def test_a_reader_has_what_the_source_has() -> None:
    """From frame to frame, whichever of them it reads."""
    rows = [row("one"), row("two", status="errored", error="E")]
    script = Script(
        snapshot(1, *rows),
        snapshot(2, row("one", duration_s=3.0), rows[1], row("three", duration_s=3.0), taken_at=103.0),
        snapshot(3, row("three", duration_s=4.0, blocks=2), taken_at=104.0),
    )
    expected = list(script.snapshots)
    reader = FrameReader()
    for each in expected:
        assert reader.read(script.frame(reader.seq)).sessions == each.sessions


def test_rows_of_the_table_set_off_no_collection() -> None:
    """They are as SessionRow is."""
    assert not TableRow.__struct_config__.gc
