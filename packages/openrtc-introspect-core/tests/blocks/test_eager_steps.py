"""Blocks of steps in whose middle other steps run: the first steps of eager tasks."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Coroutine, Iterable
from typing import Any

import pytest
from taken_samples import asleep, take_sample

from openrtc_introspect_core import Block, Introspector
from openrtc_introspect_testing._loops.backends import Backend
from openrtc_introspect_testing._loops.fake_clock import FakeClock

Run = Callable[[Coroutine[Any, Any, Any]], Any]

pytestmark = [
    pytest.mark.skipif(sys.version_info < (3, 12), reason="eager tasks came with Python 3.12"),
    pytest.mark.gil,
]


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Run:
    """Run a coroutine on each kind of loop that takes an eager factory."""
    if request.param == "uvloop" and sys.version_info[:2] == (3, 13):
        pytest.skip("uvloop 0.23 gives the factory an argument that CPython 3.13 does not know")
    return Backend(request.param)


class OwnTask(asyncio.Task[Any]):
    """A task of a class of its own, as `create_eager_task_factory` takes it."""


FACTORIES: dict[str, Callable[[], Any]] = {
    "asyncio's": lambda: asyncio.eager_task_factory,
    "of a constructor": lambda: asyncio.create_eager_task_factory(OwnTask),
    "eager_start": lambda: None,
}


class EagerSteps:
    """Steps of a session on a fake clock, each function with a stall sample in its middle."""

    def __init__(self, introspector: Introspector, clock: FakeClock, options: dict[str, bool]) -> None:
        self.introspector = introspector
        self.clock = clock
        self.options = options

    def fetch(self, seconds: float) -> None:
        self.clock.advance(seconds / 2)
        take_sample(self.introspector)
        self.clock.advance(seconds / 2)

    def prepare(self, seconds: float) -> None:
        self.fetch(seconds)

    async def child(self, seconds: float) -> None:
        self.fetch(seconds)

    async def parent(self, seconds: float, children: int) -> None:
        for _ in range(children):
            self.begin(self.child(seconds / children))

    def begin(self, coro: Coroutine[Any, Any, Any]) -> None:
        asyncio.get_running_loop().create_task(coro, **self.options)  # type: ignore[call-arg]


Body = Callable[[EagerSteps], Coroutine[Any, Any, None]]


def blocks_of(run: Run, body: Body, monkeypatch: pytest.MonkeyPatch, factory: str = "asyncio's") -> list[Block]:
    """Return the blocks of a task of session "s1" that runs `body`."""
    if factory == "eager_start" and sys.version_info < (3, 14):
        pytest.skip("tasks have begun eagerly one by one since Python 3.14")
    asleep(monkeypatch)

    async def main() -> list[Block]:
        loop = asyncio.get_running_loop()
        loop.set_task_factory(FACTORIES[factory]())
        clock = FakeClock()
        async with Introspector(socket_path=False, clock=clock) as introspector:
            asked = factory == "eager_start" or (sys.version_info >= (3, 14) and type(loop).__module__ == "uvloop")
            options = {"eager_start": True} if asked else {}  # uvloop tells a factory not to, unless it was asked

            async def outer() -> None:
                await asyncio.sleep(0)
                await body(EagerSteps(introspector, clock, options))

            with introspector.session("s1", agent_name="a"):
                await asyncio.create_task(outer(), name="outer")
        loop.set_task_factory(None)  # uvloop cannot end with an eager one
        return introspector.blocks()

    return run(main())  # type: ignore[no-any-return]


def functions(block: Block) -> Iterable[str]:
    return [location.function.rpartition(".")[2] for location in block.stack]


def test_the_task_of_a_block_is_the_eager_one_that_held_most_of_the_step(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also if it is of the same session as the task around it."""

    async def names_itself(steps: EagerSteps) -> None:
        task: Any = asyncio.current_task()
        task.set_name("eager")
        steps.fetch(0.2)

    async def body(steps: EagerSteps) -> None:
        steps.begin(names_itself(steps))

    (block,) = blocks_of(run, body, monkeypatch)
    assert (block.session_id, block.task_name) == ("s1", "eager")


@pytest.mark.parametrize("factory", FACTORIES)
@pytest.mark.parametrize("tasks", [1, 2, 5, 20, 400])
def test_a_step_and_the_eager_tasks_that_it_starts_are_one_block(
    run: Run, tasks: int, factory: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has the line of theirs, however many share the time."""

    async def body(steps: EagerSteps) -> None:
        await steps.parent(0.2, tasks)

    (block,) = blocks_of(run, body, monkeypatch, factory)
    assert (block.session_id, round(block.duration_ms)) == ("s1", 200)
    assert [name for name in functions(block) if name in ("child", "fetch")] == ["child", "fetch"]


def test_eager_tasks_in_eager_tasks_are_one_block_with_the_step_around_them(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def body(steps: EagerSteps) -> None:
        for _ in range(4):
            steps.begin(steps.parent(0.05, 5))

    (block,) = blocks_of(run, body, monkeypatch)
    assert (block.session_id, block.task_name is None, round(block.duration_ms)) == ("s1", False, 200)
    assert "fetch" in functions(block)


async def _of_another(steps: EagerSteps, seconds: float) -> None:
    with steps.introspector.session("s2", agent_name="b"):
        steps.begin(steps.child(seconds))


def test_an_eager_task_of_another_session_that_held_most_of_a_step_is_the_culprit(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The block has its task and its line, whatever the step around it did for a shorter time."""
    busy: dict[str, float] = {}

    async def body(steps: EagerSteps) -> None:
        steps.prepare(0.06)
        await _of_another(steps, 0.1)
        rows = steps.introspector.snapshot().sessions
        busy.update({row.session_id: round(row.cpu_s, 3) for row in rows})

    (block,) = blocks_of(run, body, monkeypatch)
    assert (block.session_id, block.task_name == "outer", round(block.duration_ms)) == ("s2", False, 160)
    assert "child" in functions(block)
    assert "prepare" not in functions(block)
    assert busy["s1"] == 0.06


def test_the_step_around_an_eager_task_is_the_culprit_of_what_it_held_itself(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its time before the eager task began counts, and its line, which a longer sample elsewhere does not replace."""

    async def body(steps: EagerSteps) -> None:
        steps.prepare(0.04)
        steps.prepare(0.04)
        await _of_another(steps, 0.07)

    (block,) = blocks_of(run, body, monkeypatch)
    assert (block.session_id, block.task_name, round(block.duration_ms)) == ("s1", "outer", 150)
    assert "prepare" in functions(block)


def test_a_block_in_progress_is_its_main_holder_s(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not that of the eager task which has just begun in it."""
    seen: list[Block] = []

    async def body(steps: EagerSteps) -> None:
        async def look() -> None:
            seen.extend(steps.introspector.snapshot().blocks_in_progress)

        steps.prepare(0.2)
        with steps.introspector.session("s2", agent_name="b"):
            steps.begin(look())

    blocks_of(run, body, monkeypatch)
    (block,) = seen
    assert (block.session_id, round(block.duration_ms)) == ("s1", 200)
    assert "prepare" in functions(block)


def test_a_step_after_one_with_eager_tasks_is_its_own(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was kept of the earlier step's parts does not count for it."""

    async def body(steps: EagerSteps) -> None:
        await _of_another(steps, 0.00002)
        await asyncio.sleep(0)
        steps.prepare(0.08)

    (block,) = blocks_of(run, body, monkeypatch)
    assert (block.session_id, round(block.duration_ms)) == ("s1", 80)
    assert "prepare" in functions(block)
