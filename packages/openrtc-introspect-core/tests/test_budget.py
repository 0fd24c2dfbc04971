from __future__ import annotations

import contextlib
from contextvars import ContextVar
from typing import Any

import anyio
import pytest

from openrtc_introspect_core import ArgumentError, Introspector
from openrtc_introspect_core._budget import CALM_TICKS, Budget, StepCost, spent, taken
from openrtc_introspect_core._heap import Heap
from openrtc_introspect_core._ledger import Ledger
from openrtc_introspect_core._meter import Metered
from openrtc_introspect_core._sessions import Session
from openrtc_introspect_testing._backends import Backend, in_task
from openrtc_introspect_testing._clock import FakeClock

COST = StepCost(timed=1e-6, drawn=2e-6, left_out=0.25e-6)
STEPS = 40_000


@pytest.mark.parametrize(
    ("rate", "one_in"),
    [(0, 1), (10_000, 1), (10_001, 4), (14_000, 4), (16_000, 8), (24_000, 16), (31_000, 32), (1e9, 32)],
)
def test_as_many_steps_are_timed_as_fit_into_the_budget(rate: float, one_in: int) -> None:
    """One percent of a core is 10 ms a second; beyond what is to be had, as little as possible is spent."""
    assert Budget(1.0).decide([(rate, COST)]) == one_in


def test_all_loops_share_one_budget() -> None:
    """It is the process's."""
    assert Budget(1.0).decide([(6_000, COST), (6_000, COST)]) == 4


def test_without_a_budget_every_step_is_timed() -> None:
    """Whatever that costs."""
    assert Budget(0.0).decide([(1e9, COST)]) == 1


def test_more_steps_are_timed_once_that_has_been_possible_for_a_while() -> None:
    """A rate around the limit does not make it change each second."""
    budget = Budget(1.0)
    assert budget.decide([(16_000, COST)]) == 8
    told = [budget.decide([(100, COST)]) for _ in range(CALM_TICKS)]
    assert told == [8] * (CALM_TICKS - 1) + [1]


def test_a_budget_below_zero_is_an_error() -> None:
    with pytest.raises(ArgumentError, match="budget_pct must be"):
        Introspector(budget_pct=-1)


class Thinned:
    """A ledger on a fake clock of which one step in `one_in` is timed, and what its sessions really did."""

    def __init__(self, one_in: int) -> None:
        self.clock = FakeClock(0.0)
        self.binding: ContextVar[Session] = ContextVar("binding")
        self.ledger = Ledger(self.binding, self.clock, limit=0.05)
        self.ledger.thin(one_in)

    def run(self, coro: Any, session: Session) -> None:
        token = self.binding.set(session)
        metered = Metered(coro, self.ledger, self.ledger.account_of(session))
        with contextlib.suppress(StopIteration):
            while True:
                metered.send(None)
        self.binding.reset(token)


class Pause:
    def __await__(self) -> Any:
        yield


@pytest.mark.parametrize("one_in", [4, 32])
def test_sums_are_estimated_without_bias(one_in: int) -> None:
    """Also in a rhythm that a count up to n would fall into step with; bounds of six standard deviations."""
    books = Thinned(one_in)
    sessions = [Session(f"job-{n}", "test", {}, started=0.0) for n in range(one_in)]
    rounds = STEPS // one_in

    async def work() -> None:
        for step in range(STEPS):
            if step:
                await Pause()
            books.binding.set(sessions[(step + 1) % one_in])  # whom the next step is for
            books.clock.advance(0.001 * (1 + step % one_in))

    books.run(work(), sessions[0])
    for number, session in enumerate(sessions):
        true = rounds * 0.001 * (1 + number)
        six_sigma = 6 * ((one_in - 1) / rounds) ** 0.5
        assert session.busy == pytest.approx(true, rel=six_sigma)
        assert session.steps == pytest.approx(rounds, rel=six_sigma)


def test_what_begins_inside_a_step_shares_its_lot() -> None:
    """A step inside one that is left out is left out; inside one that is timed it is charged once, and to its own."""
    books = Thinned(4)
    outer, inner = (Session(name, "test", {}, started=0.0) for name in ("outer", "inner"))

    async def nested() -> None:
        books.clock.advance(0.001)

    async def work() -> None:
        for _ in range(STEPS):
            books.clock.advance(0.001)
            books.run(nested(), inner)
            books.clock.advance(0.001)
            await Pause()

    books.run(work(), outer)
    assert inner.steps == outer.steps or inner.steps == outer.steps - 4
    assert outer.busy == pytest.approx(2 * inner.busy, rel=0.001)
    assert inner.busy == pytest.approx(STEPS * 0.001, rel=6 * (3 / STEPS) ** 0.5)


def test_steps_are_counted_as_they_were_taken_and_paid_for_as_they_were_metered() -> None:
    """What counts for others is not counted itself; the gap drawn last may be yet to come."""
    books = Thinned(4)
    session = Session("job-1", "test", {}, started=0.0)

    async def work() -> None:
        for _ in range(STEPS):
            await Pause()

    books.run(work(), session)
    ledger = books.ledger
    assert taken(ledger, session.steps) - ledger.gap == STEPS + 1
    assert spent(ledger, session.steps, COST) == pytest.approx(
        ledger.drawn * COST.drawn + ledger.skipped * COST.left_out
    )


def test_once_every_step_is_timed_again_it_counts_for_itself() -> None:
    """Nothing is left of the fraction but the gap that was drawn last."""
    books = Thinned(4)
    session = Session("job-1", "test", {}, started=0.0)

    async def work() -> None:
        for _ in range(1000):
            await Pause()

    books.run(work(), session)
    books.ledger.thin(1)
    books.run(work(), session)
    before = session.steps
    books.run(work(), session)
    assert session.steps - before == 1001
    assert not books.ledger.special


class Dear:
    """An introspector to which every step seems to cost a second, and which only the test has tick."""

    def __init__(self, backend: Backend, **arguments: Any) -> None:
        self.backend = backend
        self.introspector = Introspector(socket_path=False, stacks=True, clock=backend.clock, **arguments)
        self._tick = self.introspector._tick
        self.introspector._tick = lambda now: None  # type: ignore[method-assign]

    def tick(self) -> None:
        for loop in self.introspector._loops:
            loop.step_cost = StepCost(1.0, 2.0, 0.5)
        self._tick(self.backend.clock())


async def _work_for(dear: Dear, seconds: float) -> None:
    for _ in range(round(10 * seconds)):
        dear.backend.block(0.001)
        await anyio.sleep(0.099)
    dear.tick()


def test_above_the_budget_one_step_in_some_is_timed_and_that_is_told(virtually: Backend) -> None:
    """In the snapshot's own field, and in a note for whoever reads the numbers."""

    async def main() -> Any:
        dear = Dear(virtually)
        async with dear.introspector as introspector:
            with introspector.session("job-1", agent_name="test"):
                for _ in range(3):
                    await in_task(_work_for, dear, 1)
            return introspector.snapshot().worker

    worker = virtually(main())
    assert worker.timed_one_in == 32
    assert any("one step in 32, drawn at random, is timed" in note for note in worker.notes)


def test_within_the_budget_nothing_is_told(virtually: Backend) -> None:
    """Every step is timed, and that is what is expected."""

    async def main() -> Any:
        dear = Dear(virtually, budget_pct=0)
        async with dear.introspector as introspector:
            with introspector.session("job-1", agent_name="test"):
                await in_task(_work_for, dear, 2)
            return introspector.snapshot()

    snapshot = virtually(main())
    assert snapshot.worker.timed_one_in == 1
    assert snapshot.worker.notes == []


def test_where_memory_is_booked_with_each_step_each_is_timed(
    virtually: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fraction of what is allocated would say nothing about what is held."""
    monkeypatch.setattr(Heap, "keep_to_budget", lambda self, now: None)

    async def main() -> Any:
        dear = Dear(virtually, memory="traced")
        async with dear.introspector as introspector:
            with introspector.session("job-1", agent_name="test"):
                await in_task(_work_for, dear, 2)
            return introspector.snapshot().worker.timed_one_in

    assert virtually(main()) == 1


def test_the_block_of_a_step_that_was_left_out_is_found_and_charged_once(virtually: Backend) -> None:
    """By the loop's iteration; each block counts for itself, whether its step was timed or not."""

    async def main() -> Any:
        dear = Dear(virtually, budget_pct=0)
        async with dear.introspector as introspector:
            introspector._loops[0].ledger.thin(32)
            watch = introspector._loops[0].watch
            assert watch is not None

            async def block() -> None:
                for _ in range(100):
                    for _ in range(4):  # the watchdog, which no virtual time wakes
                        virtually.block(0.1)
                        watch.look()
                    await anyio.sleep(0.1)

            with introspector.session("job-1", agent_name="test") as session:
                await in_task(block)
            return introspector.blocks(), session.busy

    blocks, busy = virtually(main())
    assert {(block.session_id, round(block.duration_ms)) for block in blocks} == {("job-1", 400)}
    assert len(blocks) == 100
    assert busy == pytest.approx(40, rel=0.01)
