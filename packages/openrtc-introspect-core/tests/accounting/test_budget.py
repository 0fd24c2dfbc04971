from __future__ import annotations

import contextlib
from contextvars import ContextVar
from typing import Any

import anyio
import pytest

from openrtc_introspect_core import ArgumentError, Introspector
from openrtc_introspect_core._accounting.budget import CALM_TICKS, Budget, StepCost, metering_s, steps_taken
from openrtc_introspect_core._accounting.heap import Heap
from openrtc_introspect_core._accounting.ledger import Ledger
from openrtc_introspect_core._accounting.meter import Metered
from openrtc_introspect_core._introspector import parts_of
from openrtc_introspect_core._sessions.session import Session
from openrtc_introspect_testing._loops.backends import Backend, in_task
from openrtc_introspect_testing._loops.fake_clock import FakeClock

COST = StepCost(timed=1e-6, sampled=2e-6, unsampled=0.25e-6)
STEPS = 40_000


@pytest.mark.parametrize(
    ("rate", "period"),
    [(0, 1), (10_000, 1), (10_001, 4), (14_000, 4), (16_000, 8), (24_000, 16), (31_000, 32), (1e9, 32)],
)
def test_as_many_steps_are_timed_as_fit_into_the_budget(rate: float, period: int) -> None:
    """One percent of a core is 10 ms a second. If none fits, the longest is used."""
    assert Budget(1.0).decide([(rate, COST)]) == period


def test_all_loops_share_one_budget() -> None:
    """The budget is that of the process."""
    assert Budget(1.0).decide([(6_000, COST), (6_000, COST)]) == 4


def test_without_a_budget_every_step_is_timed() -> None:
    """The cost of timing has no limit then."""
    assert Budget(0.0).decide([(1e9, COST)]) == 1


def test_more_steps_are_timed_once_that_has_been_possible_for_a_while() -> None:
    """A rate around the limit does not change the period each second."""
    budget = Budget(1.0)
    assert budget.decide([(16_000, COST)]) == 8
    decided = [budget.decide([(100, COST)]) for _ in range(CALM_TICKS)]
    assert decided == [8] * (CALM_TICKS - 1) + [1]


def test_a_budget_below_zero_is_an_error() -> None:
    with pytest.raises(ArgumentError, match="budget_pct must be"):
        Introspector(budget_pct=-1)


class SampledLedger:
    """A ledger on a fake clock, of which one step in `period` is timed."""

    def __init__(self, period: int) -> None:
        self.clock = FakeClock(0.0)
        self.binding: ContextVar[Session] = ContextVar("binding")
        self.ledger = Ledger(self.binding, self.clock, limit=0.05)
        self.ledger.set_sampling_period(period)

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


@pytest.mark.parametrize("period", [4, 32])
def test_sums_are_estimated_without_bias(period: int) -> None:
    """The host has a rhythm as long as the period. Bounds: six standard deviations."""
    metering = SampledLedger(period)
    sessions = [Session(f"job-{n}", "test", {}, started=0.0) for n in range(period)]
    rounds = STEPS // period

    async def work() -> None:
        for step in range(STEPS):
            if step:
                await Pause()
            metering.binding.set(sessions[(step + 1) % period])  # the session of the next step
            metering.clock.advance(0.001 * (1 + step % period))

    metering.run(work(), sessions[0])
    for number, session in enumerate(sessions):
        true = rounds * 0.001 * (1 + number)
        six_sigma = 6 * ((period - 1) / rounds) ** 0.5
        assert session.busy == pytest.approx(true, rel=six_sigma)
        assert session.steps == pytest.approx(rounds, rel=six_sigma)


def test_what_begins_inside_a_step_shares_its_lot() -> None:
    """A step inside of one that is not sampled is not sampled either.

    Inside of a sampled step, it is charged once, and to its own session.
    """
    metering = SampledLedger(4)
    outer, inner = (Session(name, "test", {}, started=0.0) for name in ("outer", "inner"))

    async def nested() -> None:
        metering.clock.advance(0.001)

    async def work() -> None:
        for _ in range(STEPS):
            metering.clock.advance(0.001)
            metering.run(nested(), inner)
            metering.clock.advance(0.001)
            await Pause()

    metering.run(work(), outer)
    assert inner.steps == outer.steps or inner.steps == outer.steps - 4
    assert outer.busy == pytest.approx(2 * inner.busy, rel=0.001)
    assert inner.busy == pytest.approx(STEPS * 0.001, rel=6 * (3 / STEPS) ** 0.5)


def test_steps_are_counted_as_they_were_taken_and_paid_for_as_they_were_metered() -> None:
    """Steps that others count for are not timed, and cost less.

    The steps that were drawn to be skipped last may not have run when the counts are read.
    """
    metering = SampledLedger(4)
    session = Session("job-1", "test", {}, started=0.0)

    async def work() -> None:
        for _ in range(STEPS):
            await Pause()

    metering.run(work(), session)
    ledger = metering.ledger
    assert steps_taken(ledger, session.steps) - ledger.steps_until_sample == STEPS + 1
    assert metering_s(ledger, session.steps, COST) == pytest.approx(
        ledger.sampling.sampled * COST.sampled + ledger.sampling.unsampled * COST.unsampled
    )


def test_once_every_step_is_timed_again_it_counts_for_itself() -> None:
    """Only the steps that were drawn to be skipped last are still not timed."""
    metering = SampledLedger(4)
    session = Session("job-1", "test", {}, started=0.0)

    async def work() -> None:
        for _ in range(1000):
            await Pause()

    metering.run(work(), session)
    metering.ledger.set_sampling_period(1)
    metering.run(work(), session)
    before = session.steps
    metering.run(work(), session)
    assert session.steps - before == 1001
    assert not metering.ledger.slow_path


class ExpensiveMetering:
    """An introspector on which each step seems to cost a second. The test ticks it."""

    def __init__(self, backend: Backend, **arguments: Any) -> None:
        self.backend = backend
        self.introspector = Introspector(socket_path=False, stacks=True, clock=backend.clock, **arguments)
        self._tick = parts_of(self.introspector).tick
        parts_of(self.introspector).tick = lambda now: None  # type: ignore[method-assign]

    def tick(self) -> None:
        for loop in parts_of(self.introspector).loops:
            loop.step_cost = StepCost(1.0, 2.0, 0.5)
        self._tick(self.backend.clock())


async def _work_for(expensive: ExpensiveMetering, seconds: float) -> None:
    for _ in range(round(10 * seconds)):
        expensive.backend.block(0.001)
        await anyio.sleep(0.099)
    expensive.tick()


def test_above_the_budget_one_step_in_some_is_timed_and_a_note_says_so(virtually: Backend) -> None:
    """The snapshot has the period in a field, and a note describes it."""

    async def main() -> Any:
        expensive = ExpensiveMetering(virtually)
        async with expensive.introspector as introspector:
            with introspector.session("job-1", agent_name="test"):
                for _ in range(3):
                    await in_task(_work_for, expensive, 1)
            return introspector.snapshot().worker

    worker = virtually(main())
    assert worker.timed_one_in == 32
    assert any("one step in 32, drawn at random, is timed" in note for note in worker.notes)


def test_within_the_budget_there_is_no_note(virtually: Backend) -> None:
    """Every step is timed, as a reader expects."""

    async def main() -> Any:
        expensive = ExpensiveMetering(virtually, budget_pct=0)
        async with expensive.introspector as introspector:
            with introspector.session("job-1", agent_name="test"):
                await in_task(_work_for, expensive, 2)
            return introspector.snapshot()

    snapshot = virtually(main())
    assert snapshot.worker.timed_one_in == 1
    assert snapshot.worker.notes == []


def test_if_memory_is_charged_with_each_step_each_is_timed(virtually: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fraction of the allocations would not show what a session holds."""
    monkeypatch.setattr(Heap, "adjust_sampling", lambda self, now: None)

    async def main() -> Any:
        expensive = ExpensiveMetering(virtually, memory="traced")
        async with expensive.introspector as introspector:
            with introspector.session("job-1", agent_name="test"):
                await in_task(_work_for, expensive, 2)
            return introspector.snapshot().worker.timed_one_in

    assert virtually(main()) == 1


def test_the_block_of_a_step_that_was_not_sampled_is_found_and_charged_once(virtually: Backend) -> None:
    """The loop's iteration finds it. Each block counts for itself, sampled or not."""

    async def main() -> Any:
        expensive = ExpensiveMetering(virtually, budget_pct=0)
        async with expensive.introspector as introspector:
            parts_of(introspector).loops[0].ledger.set_sampling_period(32)
            sampler = parts_of(introspector).loops[0].stall_sampler
            assert sampler is not None

            async def block() -> None:
                for _ in range(100):
                    for _ in range(4):  # in place of the watchdog, which virtual time does not wake
                        virtually.block(0.1)
                        sampler.sample()
                    await anyio.sleep(0.1)

            with introspector.session("job-1", agent_name="test") as session:
                await in_task(block)
            return introspector.blocks(), session.busy

    blocks, busy = virtually(main())
    assert {(block.session_id, round(block.duration_ms)) for block in blocks} == {("job-1", 400)}
    assert len(blocks) == 100
    assert busy == pytest.approx(40, rel=0.01)
