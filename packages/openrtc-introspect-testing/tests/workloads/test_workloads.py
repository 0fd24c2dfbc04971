"""Workloads: what a run records, what a seed repeats, and what a check finds."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable

import pytest
import uvloop

from openrtc_introspect_core import ArgumentError, Introspector
from openrtc_introspect_testing._loops.fake_loop import FakeLoop
from openrtc_introspect_testing._workloads.run import Run
from openrtc_introspect_testing.workloads import Report, Row, Script, Step, Workload

Measured = Callable[[Callable[[], float], Callable[[float], bool]], list[float]]


def written(*scripts: Script) -> Workload:
    return Workload(scripts)


def truth_of(report: Report) -> dict[str, float]:
    return {row.session_id: round(row.true_s, 9) for row in report.rows}


# --- running ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(8))
def test_on_virtual_time_what_is_reported_is_exact(seed: int) -> None:
    """The scripts have children, nested tasks and scopes entered late."""
    Workload.random(seed, sessions=8, steps=8).run().check(worst_pct=1e-6, rank=1.0)


@pytest.mark.slow
@pytest.mark.parametrize("loop_factory", [asyncio.SelectorEventLoop, uvloop.new_event_loop])
def test_on_a_real_loop_it_is_close(loop_factory: Callable[[], asyncio.AbstractEventLoop], measured: Measured) -> None:
    """It is as close as its own clock readings are."""

    def error() -> float:
        report = Workload.random(3, sessions=3, steps=5).run(real=True, loop_factory=loop_factory)
        return report.worst.error_pct

    errors = measured(error, lambda error_pct: error_pct < 15)
    assert errors[-1] < 15, errors


def test_the_truth_is_what_the_script_says() -> None:
    """It is the sum of a step's own time, its children's and its nested steps'."""
    step = Step(0.5, 1.0, children=(Step(0.25),), nested=(Step(0.125, 2.0),))
    report = written(Script("a", (step, step)), Script("b", (Step(0.0625),))).run()
    assert truth_of(report) == {"a": 1.75, "b": 0.0625}


def test_steps_before_a_late_scope_are_no_session_s() -> None:
    """They are not, though the same task takes them."""
    report = written(Script("late", (Step(1.0), Step(1.0), Step(0.5)), late=2)).run()
    assert truth_of(report) == {"late": 0.5}
    report.check(worst_pct=0.0)


@pytest.mark.skipif(sys.version_info < (3, 12), reason="there are eager tasks since Python 3.12")
def test_nested_tasks_begin_inside_of_the_step() -> None:
    """Children do not: the order in which the loop is held shows it."""
    held: list[float] = []

    class Noting(Run):
        def _hold(self, seconds: float) -> None:
            held.append(seconds)
            super()._hold(seconds)

    async def main() -> None:
        asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)
        async with Introspector(socket_path=False, stacks=False) as introspector:
            script = Script("a", (Step(2.0, 1.0, children=(Step(0.5),), nested=(Step(0.25),)),))
            await Noting([script], introspector).result()

    with asyncio.Runner(loop_factory=FakeLoop) as runner:
        runner.run(main())
    assert held == [1.0, 0.125, 0.125, 1.0, 0.25, 0.25]


def test_a_real_loop_is_asked_for() -> None:
    """The run would ignore a factory alone."""
    with pytest.raises(ValueError, match="loop_factory makes a real loop: pass real=True with it"):
        written().run(loop_factory=asyncio.SelectorEventLoop)


# --- seeds -----------------------------------------------------------------------------------------


def test_a_seed_makes_the_same_workload_again() -> None:
    """Another seed makes another workload."""
    assert Workload.random(5) == Workload.random(5)
    assert Workload.random(5).scripts != Workload.random(6).scripts
    first = Workload.random()
    assert Workload.random(first.seed) == first


def test_an_error_on_the_way_carries_the_seed() -> None:
    """Every exception does."""

    async def main() -> None:
        async with Introspector(socket_path=False, stacks=False) as introspector:
            with introspector.session("session-000", agent_name="there already"):
                await Workload.random(99, sessions=1, steps=1).attend(introspector)

    with asyncio.Runner(loop_factory=FakeLoop) as runner, pytest.raises(ExceptionGroup) as caught:
        runner.run(main())
    assert caught.value.__notes__ == ["the workload's seed is 99: Workload.random(99, ...) is the same again"]
    assert caught.group_contains(ArgumentError)


@pytest.mark.parametrize("wrong", [{"sessions": 0}, {"steps": 0}])
def test_there_is_something_to_do(wrong: dict[str, int]) -> None:
    """Any report of an empty workload would be right."""
    with pytest.raises(ValueError, match="sessions and steps must be 1 or more"):
        Workload.random(1, **wrong)


# --- checking --------------------------------------------------------------------------------------

RIGHT = [Row("a", 1.0, 1.0), Row("b", 2.0, 2.0), Row("c", 3.0, 3.0)]


def test_what_is_right_passes() -> None:
    """The check raises nothing."""
    Report(RIGHT).check()


@pytest.mark.parametrize(
    ("report", "sentence"),
    [
        (Report([*RIGHT, Row("d", 4.0, 4.2)]), "session d is off by 5.00 %, more than 2 %"),
        (Report([*RIGHT, Row("d", 4.0, None)]), "session d was not reported"),
        (Report([*RIGHT, Row("d", 0.0, 0.1)]), "session d is off by inf %, more than 2 %"),
        (Report(RIGHT, unexpected=["x"]), "session x was reported, and never existed"),
        (Report([Row("a", 1.0, 1.005), Row("b", 1.001, 1.0)]), "the rank correlation is -1.0000, less than 0.99"),
    ],
)
def test_each_error_is_a_sentence(report: Report, sentence: str) -> None:
    """Each kind of error has its own sentence."""
    with pytest.raises(AssertionError) as caught:
        report.check()
    assert sentence in str(caught.value).splitlines()


def test_a_failure_shows_the_table_and_the_seed() -> None:
    """The largest session comes first, and the last line says how to run the same again."""
    with pytest.raises(AssertionError) as caught:
        Report([Row("small", 0.5, 0.5), Row("large", 2.0, 1.0), Row("silent", 1.0, None)], seed=42).check()
    assert str(caught.value).splitlines()[-7:] == [
        "",
        "session      true s  reported s      error",
        "large      2.000000    1.000000    50.00 %",
        "silent     1.000000           –   100.00 %",
        "small      0.500000    0.500000     0.00 %",
        "worst 100.00 %, rank correlation 0.5000",
        "seed 42: Workload.random(42, ...) is the same again",
    ]


def test_equal_values_share_their_rank() -> None:
    """One value alone, or all the same, are in order if they are right."""
    assert Report([Row("a", 1.0, 1.0), Row("b", 1.0, 1.0), Row("c", 2.0, 2.0)]).rank_correlation == pytest.approx(1.0)
    assert Report([Row("a", 1.0, 1.0)]).rank_correlation == 1.0
    assert Report([Row("a", 1.0, 2.0)]).rank_correlation == 0.0
