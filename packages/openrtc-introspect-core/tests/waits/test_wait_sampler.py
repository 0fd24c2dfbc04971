"""What sessions wait for is sampled, on asyncio and on Trio, in virtual time: the tests call the ticks."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import pytest
from ticking import Ticking

from openrtc_introspect_core import Snapshot
from openrtc_introspect_core._introspector import parts_of
from openrtc_introspect_core._service.worker_source import WorkerSource
from openrtc_introspect_core._waits import wait_sampler
from openrtc_introspect_core._waits.wait_sampler import MAX_BUSY
from openrtc_introspect_core.wire import TasksRequest, WallTime
from openrtc_introspect_testing._loops.backends import Backend

Call = Callable[[], Awaitable[None]]


class Worker(Ticking):
    """A worker whose sessions run calls."""

    async def run(self, calls: dict[str, Call], seconds: int, *, each: Callable[[], None] = lambda: None) -> None:
        """Run the calls, each in its session, tick once a second, and end them."""

        async def session(name: str, call: Call) -> None:
            with self.introspector.session(name, agent_name="a"):
                await call()

        async with anyio.create_task_group() as group:
            for name, call in calls.items():
                group.start_soon(session, name, call)
            for _ in range(seconds):
                await anyio.sleep(1)
                self.tick()
                each()
            group.cancel_scope.cancel()

    def waits(self) -> dict[str, str | None]:
        return {row.session_id: row.waits for row in self.snapshot().sessions}

    def wall_time(self, name: str) -> WallTime | None:
        tasks = WorkerSource(parts_of(self.introspector).check_started()).tasks(TasksRequest(id=1, session_id=name))
        assert tasks is not None
        return tasks.wall_time


async def for_ever() -> None:
    await anyio.sleep_forever()


async def busy() -> None:
    """Wait for a part of a second at a time, for a timer and for an event in turn."""
    while True:
        await anyio.sleep(0.31)
        with anyio.move_on_after(0.23):
            await on_an_event()


def read(
    run: Backend, calls: dict[str, Call], seconds: int, read: Callable[[Worker], Any], **arguments: Any
) -> list[Any]:
    """Return what is read after each second."""

    async def main() -> list[Any]:
        found: list[Any] = []
        async with Worker(run, **arguments) as worker:
            await worker.run(calls, seconds, each=lambda: found.append(read(worker)))
        return found

    result: list[Any] = run(main())
    return result


async def on_an_event() -> None:
    await anyio.Event().wait()


async def on_a_timer() -> None:
    await anyio.sleep(1000)


@pytest.mark.gil
def test_a_row_shows_what_a_calm_session_waits_for(virtually: Backend) -> None:
    """Once it has waited for a second."""
    waits = read(virtually, {"event": on_an_event, "timer": on_a_timer}, 3, Worker.waits)
    assert waits[-1] == {"event": "event", "timer": "timer"}


def test_a_busy_session_shows_no_wait(virtually: Backend) -> None:
    """It waits for something else each time, and nobody needs to know; its row does not come anew."""
    noted: set[int] = set()

    def look(worker: Worker) -> str | None:
        (session,) = parts_of(worker.introspector).shared.sessions.live.values()
        noted.add(session.noted)
        return session.waits

    assert read(virtually, {"busy": busy}, 20, look) == 20 * [None]
    assert noted == {0}


@pytest.mark.gil
def test_a_session_that_has_become_busy_shows_its_wait_no_longer(virtually: Backend) -> None:
    """After some samples: one that is calm again and again keeps its wait meanwhile."""

    async def calm_then_busy() -> None:
        await anyio.sleep(4.5)
        await busy()

    waits = [each["job-1"] for each in read(virtually, {"job-1": calm_then_busy}, 15, Worker.waits)]
    last = max(number for number, wait in enumerate(waits, start=1) if wait)
    assert waits[2:last] == (last - 2) * ["timer"]
    assert 4 + MAX_BUSY - 1 <= last <= 4 + MAX_BUSY + 1


@pytest.mark.gil
def test_a_session_that_waits_on_is_not_looked_at_again(virtually: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its earlier answer holds."""
    looks: list[int] = []

    def counted(suspended: Any, wait_of: Callable[[Any], Any] = wait_sampler.wait_of) -> Any:
        looks.append(1)
        return wait_of(suspended)

    monkeypatch.setattr(wait_sampler, "wait_of", counted)
    seen = read(virtually, {"event": on_an_event, "timer": on_a_timer}, 30, lambda _: len(looks))
    assert seen[-1] == seen[1] == 2


@pytest.mark.gil
def test_a_session_that_stepped_during_the_look_is_looked_at_again(virtually: Backend) -> None:
    """It waits for something else by now."""

    async def first_a_timer() -> None:
        await anyio.sleep(2)
        await on_an_event()

    waits = read(virtually, {"job-1": first_a_timer}, 5, Worker.waits)
    assert waits[-1] == {"job-1": "event"}


@pytest.mark.gil
def test_long_waits_are_charged_as_long_as_they_last(virtually: Backend) -> None:
    """A wait that begins and ends in mid-second is known from the steps around it."""

    async def call() -> None:
        virtually.block(0.01)
        await anyio.sleep(3.25)
        with anyio.move_on_after(4.5):
            await on_an_event()
        virtually.block(0.02)
        await anyio.sleep(1000)

    division = read(virtually, {"job-1": call}, 12, lambda worker: worker.wall_time("job-1"))[-1]
    assert isinstance(division, WallTime)
    waited = {each.kind: each.seconds for each in division.waited}
    assert division.total_s == pytest.approx(12.0, abs=0.1)
    assert division.running_s == pytest.approx(0.03, abs=1e-6)
    assert waited["event"] == pytest.approx(4.5, abs=0.01)
    assert waited["timer"] == pytest.approx(division.total_s - 4.53, abs=0.02)
    assert division.unknown_s == pytest.approx(0.0, abs=0.02)


@pytest.mark.gil
def test_the_division_of_a_busy_session_is_an_estimate(virtually: Backend) -> None:
    """Its parts add up to the whole."""
    division = read(virtually, {"busy": busy}, 30, lambda worker: worker.wall_time("busy"))[-1]
    assert isinstance(division, WallTime)
    parts = [division.running_s, division.delayed_s or 0.0, division.unknown_s, *(w.seconds for w in division.waited)]
    assert sum(parts) == pytest.approx(division.total_s, abs=1e-6)
    assert {each.kind for each in division.waited} <= {"timer", "event"}
    assert division.unknown_s < 2.0


@pytest.mark.parametrize("cpu", ["off", "sampled"])
def test_without_timed_steps_nobody_looks(virtually: Backend, cpu: str) -> None:
    """What a session waits for is null, and so is the division of its time."""

    def look(worker: Worker) -> tuple[str | None, WallTime | None]:
        return worker.waits()["timer"], worker.wall_time("timer")

    assert read(virtually, {"timer": on_a_timer}, 3, look, cpu=cpu) == 3 * [(None, None)]


@pytest.mark.gil
def test_a_large_round_is_made_in_portions(virtually: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    """A portion a second, until all are seen; where it pauses, it keeps no task alive."""
    monkeypatch.setattr(wait_sampler, "PORTION_S", 0.0)
    monkeypatch.setattr(wait_sampler, "_WORK_PER_PAUSE", 1)
    calls: dict[str, Call] = {f"job-{number}": on_an_event for number in range(5)}

    def seen(worker: Worker) -> int:
        sessions = parts_of(worker.introspector).shared.sessions.live.values()
        return sum(session.waited is not None for session in sessions)

    found = read(virtually, calls, 40, seen)
    assert found[0] == 0
    assert found[-1] == 5


@pytest.mark.gil
def test_a_fault_ends_the_samples(virtually: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is noted once, and what was seen is shown no longer."""
    faults = iter([ValueError("odd"), ValueError("again")])

    def fail(suspended: Any, wait_of: Callable[[Any], Any] = wait_sampler.wait_of) -> Any:
        if len(found) > 5:
            raise next(faults)
        return wait_of(suspended)

    def look(worker: Worker) -> None:
        found.append(worker.snapshot())

    async def later() -> None:
        await anyio.sleep(6.5)
        await on_an_event()

    monkeypatch.setattr(wait_sampler, "wait_of", fail)
    found: list[Snapshot] = []
    read(virtually, {"later": later, "timer": on_a_timer}, 12, look)
    assert found[3].sessions[1].waits == "timer"
    assert [row.waits for row in found[-1].sessions] == [None, None]
    (note,) = found[-1].worker.notes
    assert "what sessions wait for is not sampled any more" in note
    assert "odd" in note
