"""A recording as frames: the end of each, the workers at it, and files that are not whole."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from openrtc_introspect_core.wire import Block, SessionRow, Snapshot
from openrtc_top._model.events import Blocked, Event, Found, Frame, Gone, Tick
from openrtc_top._model.reducer import reduce
from openrtc_top._model.state import State
from openrtc_top._model.workers import Workers
from openrtc_top._recording import tape as tape_module
from openrtc_top._recording.lines import NotARecording, Scribe
from openrtc_top._recording.tape import Tape

MakeSnapshot = Callable[..., Snapshot]


def written(path: Path, *events: tuple[float, Event], end: bool = True) -> Path:
    """A recording of these events, at these moments."""
    scribe = Scribe()
    lines = [scribe.begin(0.0, 1.0), *(scribe.line(event, at) for at, event in events)]
    path.write_bytes(b"".join([*lines, scribe.end(events[-1][0])] if end else lines))
    return path


@pytest.fixture
def night(tmp_path: Path, make_snapshot: MakeSnapshot, make_session: Callable[..., SessionRow]) -> Path:
    """Two workers for three minutes, once in four seconds; one blocks, dies and is started anew."""
    events: list[tuple[float, Event]] = [(1000.0, Found("a", "a")), (1000.0, Found("b", "b"))]
    for second in range(0, 180, 4):
        at = 1000.0 + second
        epoch = "first" if second < 100 else "second"
        rows = [make_session("one", cpu_pct=float(second)), make_session(f"job-{second}")]
        if not 80 <= second < 100:
            events.append((at, Frame("a", make_snapshot(*rows, name="a", taken_at=at, epoch=epoch))))
        elif second == 80:
            events.append((at, Gone("a", "it closed the connection")))
        if second in (12, 40, 120):
            block = Block(seq={12: 1, 40: 2, 120: 1}[second], session_id="one", duration_ms=80.0)
            events.append((at + 0.5, Blocked("a", [block])))
        events.append((at + 1, Frame("b", make_snapshot(name="b", taken_at=at + 1))))
    return written(tmp_path / "night.ortc", *events)


def as_live(path: Path, until: int) -> Workers:
    """The view's workers after the first so many lines, fed one after the other."""
    from openrtc_top._recording.lines import Reader, read_entry

    state, reader = State(), Reader()
    for line in path.read_bytes().splitlines()[1 : 1 + until]:
        entry = read_entry(line)
        assert entry is not None
        state = reduce(state, Tick(entry.at))
        event = reader.event(entry)
        state = state if event is None else reduce(state, event)
    return state.workers


def test_a_frame_has_each_worker_once_at_the_most(tmp_path: Path, make_snapshot: MakeSnapshot) -> None:
    """It ends before a worker's next snapshot; all other events until then belong to it."""
    frame = {key: Frame(key, make_snapshot(name=key)) for key in "ab"}
    path = written(
        tmp_path / "x",
        (1.0, Found("a", "a")),
        (1.1, frame["a"]),
        (1.2, Found("b", "b")),
        (1.3, frame["b"]),
        (1.4, Gone("b", "it does not answer")),
        (2.1, frame["a"]),
        (3.1, frame["a"]),
        (3.2, frame["b"]),
    )
    with Tape(path) as tape:
        assert list(tape.times) == [1.4, 2.1, 3.2]
        assert [worker.gone for worker in tape.workers(0)] == [None, "it does not answer"]
        assert [worker.gone for worker in tape.workers(2)] == [None, None]
        assert not tape.cut_off


def test_any_frame_is_what_the_live_view_had(night: Path) -> None:
    """Whichever way one came to it: from the start, backwards, by a leap."""
    with Tape(night) as tape:
        count = len(tape.times)
        expected = [as_live(night, tape._index.ends[frame]) for frame in range(count)]
        for frame in range(count):
            assert tape.workers(frame) == expected[frame]
    with Tape(night) as tape:
        for frame in (count - 1, 5, count // 2, count // 2 - 1, 0, count - 2):
            assert tape.workers(frame) == expected[frame]


def test_little_is_kept_of_many_sessions(night: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Frames that were shown are read again if they would take too much memory."""
    monkeypatch.setattr(tape_module, "_MAX_ROWS_KEPT", 1)
    with Tape(night) as tape:
        first = tape.workers(0)
        for frame in range(20):
            tape.workers(frame)
        assert len(tape._kept) == tape_module._MIN_FRAMES_KEPT
        assert tape.workers(0) == first


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
@given(share=st.floats(0, 1), packed=st.booleans())
def test_cut_anywhere(share: float, packed: bool, night: Path, tmp_path: Path) -> None:
    """It replays up to the cut and says so; cut in its first line, it is no recording."""
    whole = gzip.compress(night.read_bytes(), mtime=0) if packed else night.read_bytes()
    cut = tmp_path / "cut"
    cut.write_bytes(whole[: int(share * len(whole))])
    try:
        with Tape(cut) as tape, Tape(night) as full:
            frames = len(tape.times)
            assert list(tape.times)[: frames - 1] == list(full.times)[: max(0, frames - 1)]
            if frames > 1:
                assert tape.workers(frames - 2) == full.workers(frames - 2)
            if frames:
                tape.workers(frames - 1)
            assert tape.cut_off or frames == len(full.times)
    except NotARecording:
        assert share < 0.3


def test_broken_in_the_middle(night: Path) -> None:
    """Lines after a broken one are not to be trusted."""
    lines = night.read_bytes().splitlines(keepends=True)
    night.write_bytes(b"".join([*lines[:20], b"\0\0\0\n", *lines[21:]]))
    with Tape(night) as tape:
        assert tape.cut_off
        assert 0 < tape._index.ends[-1] <= 19


def test_packed(night: Path, tmp_path: Path) -> None:
    """By its content, whatever its name."""
    packed = tmp_path / "packed.ortc"
    packed.write_bytes(gzip.compress(night.read_bytes()))
    with Tape(packed) as one, Tape(night) as other:
        assert list(one.times) == list(other.times)
        assert one.workers(9) == other.workers(9)


@pytest.mark.parametrize("content", [b"", b"hello", b"\x1f\x8b", b"\x1f\x8bno gzip at all", b"x" * 100_000])
def test_no_recording(content: bytes, tmp_path: Path) -> None:
    """It is shown as such."""
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(NotARecording):
        Tape(tmp_path / "x")
