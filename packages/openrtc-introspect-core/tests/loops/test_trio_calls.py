"""The calls of a Trio run's instruments. With the meter in Python they are Trio's own, and the same holds."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import Any

import pytest
import trio
from trio._core._instrumentation import Instruments
from trio._core._run import GLOBAL_RUN_CONTEXT

from openrtc_introspect_core import Introspector
from openrtc_introspect_core._accounting.ledger import Ledger
from openrtc_introspect_core._loops.iterations import Iterations
from openrtc_introspect_core._loops.trio_calls import direct
from openrtc_introspect_core._loops.trio_steps import TrioSteps
from openrtc_introspect_testing._loops.fake_clock import FakeClock


class Steps(trio.abc.Instrument):
    """An instrument of the host's, that counts."""

    def __init__(self) -> None:
        self.begun = self.ended = 0

    def before_task_step(self, task: Any) -> None:
        self.begun += 1

    def after_task_step(self, task: Any) -> None:
        self.ended += 1


def attached(work: Callable[[Introspector, Any], Awaitable[Any]]) -> tuple[Any, bool]:
    """Return what `work` returns in a session, and whether the run has its own instruments again after it."""

    async def main() -> tuple[Any, bool]:
        before = GLOBAL_RUN_CONTEXT.runner.instruments
        async with Introspector(socket_path=False) as introspector:
            with introspector.session("a", agent_name="test") as session:
                found = await work(introspector, session)
        return found, GLOBAL_RUN_CONTEXT.runner.instruments is before and type(before) is Instruments

    return trio.run(main)


async def turns(count: int) -> None:
    for _ in range(count):
        await trio.lowlevel.checkpoint()


def test_every_step_is_charged_and_the_run_gets_its_own_instruments_back() -> None:
    """No step is left out."""

    async def work(introspector: Introspector, session: Any) -> int:
        await turns(1)
        before: int = session.steps
        await turns(50)
        return int(session.steps - before)

    assert attached(work) == (50, True)


def test_an_instrument_of_the_host_s_is_called_as_well() -> None:
    """It is added and removed while the introspector is attached."""

    async def work(introspector: Introspector, session: Any) -> tuple[bool, int, int]:
        steps = Steps()
        await turns(1)
        before = session.steps
        trio.lowlevel.add_instrument(steps)
        await turns(20)
        trio.lowlevel.remove_instrument(steps)
        begun = steps.begun
        await turns(20)
        return begun >= 20, steps.begun - begun, session.steps - before

    assert attached(work) == ((True, 0, 40), True)


def test_an_instrument_of_the_host_s_that_stays_is_called_on() -> None:
    """The introspector goes, and the table of instruments is the run's."""
    steps = Steps()

    async def main() -> bool:
        async with Introspector(socket_path=False):
            trio.lowlevel.add_instrument(steps)
        before = steps.begun
        await turns(20)
        return steps.begun - before >= 20

    assert trio.run(main)


def test_two_introspectors_charge_the_same_run() -> None:
    """They end in the order in which they began."""

    async def main() -> tuple[int, int, bool]:
        own = GLOBAL_RUN_CONTEXT.runner.instruments
        first, second = Introspector(name="one", socket_path=False), Introspector(name="two", socket_path=False)
        first.attach()
        second.attach()
        with first.session("a", agent_name="test") as a, second.session("b", agent_name="test") as b:
            await turns(1)
            steps = a.steps, b.steps
            await turns(20)
            found = a.steps - steps[0], b.steps - steps[1]
        first.close()
        await turns(1)
        second.close()
        return *found, GLOBAL_RUN_CONTEXT.runner.instruments is own

    assert trio.run(main) == (20, 20, True)


def test_who_has_replaced_the_instruments_meanwhile_keeps_them() -> None:
    """They are not ours to restore."""

    async def main() -> bool:
        runner = GLOBAL_RUN_CONTEXT.runner
        introspector = Introspector(socket_path=False)
        introspector.attach()
        theirs = runner.instruments = Instruments(list(runner.instruments["_all"]))
        introspector.close()
        return runner.instruments is theirs

    assert trio.run(main)


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_what_raises_all_the_same_is_removed_and_logged(
    error: type[BaseException], caplog: pytest.LogCaptureFixture
) -> None:
    """Trio does so with any instrument."""

    class Broken(TrioSteps):
        def failed(self, fault: BaseException) -> None:
            raise error("it cannot be noted")

    ledger = Ledger(ContextVar("binding"), FakeClock(), 1.0)
    steps = Broken(ledger, Iterations(ledger, lambda: True, lambda *_: None, lambda *_: None), meter=True)
    instruments = direct(Instruments([steps]), steps)  # type: ignore[list-item]
    assert "before_task_step" in instruments
    instruments.call("before_task_step", "no task")
    assert ("before_task_step" in instruments, list(instruments["_all"])) == (False, [])
    (record,) = caplog.records
    assert record.name == "trio.abc.Instrument"
    assert "'before_task_step'" in record.getMessage()
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], error)
