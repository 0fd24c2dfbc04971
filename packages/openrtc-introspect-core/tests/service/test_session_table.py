"""What a client makes of frames is held to the snapshots of the same moments."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager, suppress
from typing import Any

import anyio
import msgspec
import pytest
from ticking import Ticking

from openrtc_introspect_core import Introspector, Snapshot
from openrtc_introspect_core._introspector import parts_of
from openrtc_introspect_core._service import session_table
from openrtc_introspect_core._service.session_table import SessionTable
from openrtc_introspect_core._service.worker_source import WorkerSource
from openrtc_introspect_core.wire import Frame, decode_server_message
from openrtc_introspect_core.wire._frame_reader import FrameReader
from openrtc_introspect_core.wire._source import SharedSnapshot
from openrtc_introspect_testing._loops.backends import Backend, in_task


class Reading:
    """A client that reads a worker's frames, without a socket."""

    def __init__(self, introspector: Introspector) -> None:
        builder = parts_of(introspector).check_started()
        self.introspector = introspector
        self.source = WorkerSource(builder)
        self.shared = SharedSnapshot(self.source, lambda: 0.0, lambda: 0.0)
        self.reader = FrameReader()
        self.frame: Frame | None = None

    def read(self) -> Snapshot:
        """Return the snapshot of the next frame."""
        _, message = self.shared.frame("w", self.reader.seq)
        frame = decode_server_message(b"".join(message))
        assert isinstance(frame, Frame)
        self.frame = frame
        return self.reader.read(frame)

    def check(self) -> Frame:
        """Hold the next frame's snapshot to the builder's own, and to the rows that other clients get."""
        expected = self.introspector.snapshot()
        got = self.read()
        assert _rows(got) == _close_to(expected)
        whole = decode_server_message(b"".join(self.shared.message(1, within_s=1.0)))
        assert isinstance(whole, Snapshot)
        assert whole.seq == got.seq
        assert _rows(whole) == _close_to(expected)
        assert self.frame is not None
        return self.frame


def _rows(snapshot: Snapshot) -> dict[str, Any]:
    return {row.session_id: msgspec.structs.asdict(row) for row in snapshot.sessions}


def _close_to(snapshot: Snapshot) -> dict[str, Any]:
    def close(name: str, value: Any) -> Any:
        rel = 0.0 if name.endswith("_at") else 1e-6  # of a time, 1e-6 would be half an hour
        return pytest.approx(value, abs=1e-6, rel=rel) if isinstance(value, float) else value

    return {
        row: {name: close(name, value) for name, value in values.items()} for row, values in _rows(snapshot).items()
    }


@asynccontextmanager
async def reading(backend: Backend, **arguments: Any) -> AsyncIterator[tuple[Ticking, Reading]]:
    async with Ticking(backend, **arguments) as ticking:
        yield ticking, Reading(ticking.introspector)


def test_a_total_does_not_fall_if_a_step_was_shown_too_long(virtually: Backend) -> None:
    """Its thread lost the processor right after the clock reading that ends it, and a snapshot took that for the step.

    What the session does from then on shows once it is more than that.
    """

    async def main() -> list[tuple[float | None, float | None]]:
        async with reading(virtually) as (ticking, client):
            ledger = parts_of(ticking.introspector).loops[0].ledger
            shown = []
            with ticking.introspector.session("job-1", agent_name="a"):
                for seconds in (0.03, 0.0, 0.03):
                    virtually.block(seconds)
                    rows = [each.sessions[0] for each in (client.read(), ticking.snapshot())]
                    shown.append((rows[0].cpu_s, rows[1].cpu_s))
                    if len(shown) == 1:
                        ledger.holder_since += 0.02
            return shown

    assert virtually(main()) == [pytest.approx((each, each), abs=1e-6) for each in (0.03, 0.03, 0.04)]


def test_a_quiet_session_is_in_no_later_frame(virtually: Backend) -> None:
    """Its duration and its share of the memory go on, and its row is not sent."""

    async def wait(introspector: Introspector) -> None:
        with introspector.session("job-1", agent_name="a"):
            await anyio.sleep(100)

    async def main() -> tuple[Frame, Snapshot]:
        async with reading(virtually) as (ticking, client), anyio.create_task_group() as group:
            group.start_soon(wait, ticking.introspector)
            await anyio.sleep(1)
            client.check()
            await anyio.sleep(5)
            frame = client.check()
            group.cancel_scope.cancel()
            return frame, client.read()

    frame, snapshot = virtually(main())
    assert (frame.rows, frame.counts, frame.gone) == ([], [], [])
    assert frame.base is not None
    assert snapshot.sessions[0].duration_s == pytest.approx(6.0)


def test_a_step_is_sent_as_counts_only(virtually: Backend) -> None:
    """Loop time and steps change without the row, also when the step has left the window."""

    async def main() -> list[Frame]:
        async with reading(virtually) as (ticking, client):

            async def work() -> None:
                for _ in range(20):
                    virtually.block(0.01)
                    await anyio.sleep(0.5)

            frames = []
            with ticking.introspector.session("job-1", agent_name="a"):
                async with anyio.create_task_group() as group:
                    group.start_soon(work)
                    await anyio.sleep(0.1)
                    client.check()
                    for _ in range(6):
                        await anyio.sleep(1)
                        ticking.tick()
                        frames.append(client.check())
                    group.cancel_scope.cancel()
            return frames

    frames = virtually(main())
    assert [[each.session_id for each in frame.counts] for frame in frames] == 6 * [["job-1"]]
    assert [frame.rows for frame in frames] == 6 * [[]]


def test_a_step_in_progress_is_sent_as_counts_only(virtually: Backend) -> None:
    """While it runs, the end of the last step is not known; afterwards it is. The row does not come anew."""

    async def main() -> list[tuple[float | None, int, int]]:
        async with reading(virtually) as (_, client):
            found: list[tuple[float | None, int, int]] = []

            def check() -> None:
                frame = client.check()
                last = frame.counts[0].last_step_ns if frame.counts else 0
                found.append((1e-9 * last - frame.taken_at if last else last, len(frame.counts), len(frame.rows)))

            async def work() -> None:
                with client.introspector.session("job-1", agent_name="a"):
                    await anyio.sleep(1)
                    check()
                    await anyio.sleep(1)

            async with anyio.create_task_group() as group:
                group.start_soon(work)
                await anyio.sleep(0.5)
                check()
                await anyio.sleep(1)
                check()
            return found

    waiting, running, again = virtually(main())
    assert waiting[2] == 1
    assert running == (None, 1, 0)
    assert again == (pytest.approx(-0.5, abs=1e-5), 1, 0)


def test_a_session_that_has_become_quiet_shows_no_share(virtually: Backend) -> None:
    """Its share falls to 0 once its work has left the window, and stays there unsent."""

    async def main() -> list[float | None]:
        async with reading(virtually) as (ticking, client):
            shares = []
            with ticking.introspector.session("job-1", agent_name="a"):
                await in_task(lambda: _busy(virtually), name="work")
                for _ in range(5):
                    await anyio.sleep(1)
                    ticking.tick()
                    client.check()
                    shares.append(client.read().sessions[0].cpu_pct)
            return shares

    shares = virtually(main())
    assert shares[0] is not None
    assert shares[0] > 5
    assert shares[-1] == 0


async def _busy(backend: Backend) -> None:
    backend.block(0.1)


def test_sessions_that_end_are_gone(virtually: Backend) -> None:
    """Also when another session has begun under the same id in between: its row is new."""

    async def main() -> list[Frame]:
        async with reading(virtually) as (ticking, client):
            introspector = ticking.introspector
            with introspector.session("stays", agent_name="a"):
                with introspector.session("again", agent_name="a"), introspector.session("ends", agent_name="a"):
                    client.check()
                await anyio.sleep(1)
                with introspector.session("again", agent_name="b"):
                    frames = [client.check()]
                frames.append(client.check())
            return frames

    first, second = virtually(main())
    assert first.gone == ["ends"]
    assert [(row.session_id, row.agent_name) for row in first.rows] == [("again", "b")]
    assert (second.gone, second.rows) == (["again"], [])


def test_a_failed_session_is_sent_once(virtually: Backend) -> None:
    """Its row stays as it is until it is shown no longer."""

    async def main() -> list[Frame]:
        async with reading(virtually) as (ticking, client):
            frames = []
            with suppress(KeyError), ticking.introspector.session("fails", agent_name="a"):
                client.check()
                raise KeyError("menu")
            for seconds in (1, 1, 40):
                await anyio.sleep(seconds)
                frames.append(client.check())
            return frames

    first, second, third = virtually(main())
    assert [(row.session_id, row.status) for row in first.rows] == [("fails", "errored")]
    assert (second.rows, second.gone) == ([], [])
    assert third.gone == ["fails"]


def test_a_block_changes_the_row_and_its_status_falls_back(virtually: Backend) -> None:
    """A slow session's row is sent when it becomes slow and when it is no longer."""

    async def main() -> list[list[str]]:
        async with reading(virtually) as (ticking, client):
            found = []
            with ticking.introspector.session("job-1", agent_name="a"):
                client.check()
                await in_task(lambda: _busy(virtually), name="work")
                for _ in range(8):
                    await anyio.sleep(1)
                    ticking.tick()
                    found.append([row.status for row in client.check().rows])
            return found

    assert virtually(main()) == [["slow"], [], [], [], ["active"], [], [], []]


@pytest.mark.parametrize("rises", [True, False])
def test_the_share_of_the_memory_is_sent_once_for_all(
    virtually: Backend, monkeypatch: pytest.MonkeyPatch, rises: bool
) -> None:
    """Peaks too, also of a sample between two frames."""

    async def main() -> list[Frame]:
        async with reading(virtually) as (ticking, client):
            memory = parts_of(ticking.introspector).check_started().memory
            rss_mb = iter([100.0, 300.0 if rises else 60.0, 90.0, 90.0])

            def read() -> bool:
                memory._rss_mb = next(rss_mb, 90.0)
                return True

            monkeypatch.setattr(memory, "_read", read)
            with ExitStack() as scopes:
                for number in range(3):
                    scopes.enter_context(ticking.introspector.session(f"job-{number}", agent_name="a"))
                frames = [client.check()]
                for seconds in (1, 2, 1):
                    for _ in range(seconds):
                        await anyio.sleep(1)
                        ticking.tick()
                    frames.append(client.check())
                return frames

    frames = virtually(main())
    assert [len(frame.rows) for frame in frames[1:]] == [0, 0, 0]
    assert frames[-1].share_mb == pytest.approx(30.0)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("memory", ["share", "traced"])
def test_frames_say_what_snapshots_say(virtually: Backend, seed: int, memory: str) -> None:
    """Through a random life of a worker: sessions begin, work, block, fail and end, and readers fall behind."""
    source = random.Random(seed)

    async def live(introspector: Introspector, number: int) -> None:
        with suppress(KeyError), introspector.session(f"job-{number}", agent_name=f"agent-{number % 3}"):
            for _ in range(source.randrange(1, 30)):
                if source.random() < 0.6:
                    virtually.block(source.choice([0.0, 0.001, 0.01, 0.07]))
                await anyio.sleep(source.choice([0.05, 0.5, 2.5]))
            if source.random() < 0.3:
                raise KeyError("menu")

    async def main() -> None:
        async with reading(virtually, memory=memory) as (ticking, client):
            late = Reading(ticking.introspector)
            late.shared = client.shared
            async with anyio.create_task_group() as group:
                for number in range(80):
                    if source.random() < 0.3:
                        group.start_soon(live, ticking.introspector, number)
                    await anyio.sleep(source.choice([0.1, 0.5, 1.1]))
                    if source.random() < 0.6:
                        ticking.tick()
                    if source.random() < 0.7:
                        client.check()
                    if source.random() < 0.1:
                        late.check()
                group.cancel_scope.cancel()

    virtually(main())


def test_a_slow_readers_next_frame_has_all_that_has_changed(virtually: Backend) -> None:
    """Whatever others have read meanwhile."""

    async def main() -> Frame:
        async with reading(virtually) as (ticking, client):
            slow = Reading(ticking.introspector)
            slow.shared = client.shared
            introspector = ticking.introspector
            with introspector.session("stays", agent_name="a"):
                with introspector.session("ends", agent_name="a"):
                    slow.check()
                for number in range(5):
                    with introspector.session(f"short-{number}", agent_name="a"):
                        client.check()
                    await anyio.sleep(1)
                    client.check()
                with introspector.session("new", agent_name="a"):
                    client.check()
                    return slow.check()

    frame = virtually(main())
    assert "ends" in frame.gone
    assert [row.session_id for row in frame.rows] == ["new"]


def test_a_frame_older_than_the_last_64_is_built_on_no_more(virtually: Backend) -> None:
    """The reader gets everything."""

    async def main() -> tuple[int | None, int | None]:
        async with reading(virtually) as (ticking, client):
            slow = Reading(ticking.introspector)
            slow.shared = client.shared
            bases = []
            with ticking.introspector.session("stays", agent_name="a"):
                for frames in (60, 70):
                    slow.check()
                    for _ in range(frames):
                        client.read()
                    bases.append(slow.check().base)
            return bases[0], bases[1]

    near, far = virtually(main())
    assert near is not None
    assert far is None


def test_what_is_kept_is_of_live_sessions_only(virtually: Backend) -> None:
    """A worker that has ended ten thousand sessions keeps none of them."""

    async def main() -> tuple[int, int, int]:
        async with reading(virtually) as (ticking, client):
            for number in range(300):
                with ticking.introspector.session(f"job-{number}", agent_name="a"):
                    client.read()
            client.read()
            client.read()
            table = client.shared._table
            assert isinstance(table, SessionTable)
            return len(table.rows), len(table._live), len(table._steps)

    rows, live, steps = virtually(main())
    assert (rows, live) == (0, 0)
    assert steps <= 64


@pytest.mark.parametrize(("sessions", "pauses"), [(0, 0), (128, 0), (300, 2), (600, 4)])
def test_the_gil_is_released_between_portions(
    virtually: Backend, monkeypatch: pytest.MonkeyPatch, sessions: int, pauses: int
) -> None:
    """After each 128 rows that are made. A small worker's table makes no pause."""
    made: list[None] = []
    monkeypatch.setattr(session_table, "yield_gil", lambda: made.append(None))

    async def main() -> int:
        async with Introspector(socket_path=False) as introspector:
            with ExitStack() as scopes:
                for number in range(sessions):
                    scopes.enter_context(introspector.session(f"job-{number}", agent_name="a"))
                table = SessionTable(parts_of(introspector).check_started())
                table.take()
                first = len(made)
                table.take()
                assert len(made) == first
                return first

    assert virtually(main()) == pauses


def test_rows_without_metering_have_no_counts(virtually: Backend) -> None:
    """A worker that measures no loop time sends none."""

    async def main() -> Frame:
        async with reading(virtually, cpu="off") as (ticking, client):
            with ticking.introspector.session("job-1", agent_name="a"):
                client.check()
                await in_task(lambda: _busy(virtually), name="work")
                await anyio.sleep(1)
                return client.check()

    frame = virtually(main())
    assert (frame.counts, frame.window_s) == ([], None)


def test_a_worker_that_drains_sends_its_rows_anew(virtually: Backend) -> None:
    """Their status has changed."""

    async def main() -> list[str]:
        async with reading(virtually) as (ticking, client):
            with ticking.introspector.session("job-1", agent_name="a"):
                client.check()
                parts_of(ticking.introspector).check_started().draining = True
                return [row.status for row in client.check().rows]

    assert virtually(main()) == ["draining"]
