"""Tests of Trio alone. Accounting, blocks, delays, scopes and the pool are tested with the other kinds of loops."""

from __future__ import annotations

import asyncio
import gc
import queue
import subprocess
import sys
import textwrap
import threading
import weakref
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from openrtc_introspect_core import Introspector, StateError
from openrtc_introspect_core._base.log import flush
from openrtc_introspect_core._introspector import parts_of
from openrtc_introspect_core._native import native
from openrtc_introspect_core.wire import TaskInfo
from openrtc_introspect_testing._loops.introspection_threads import ours_end

DEADLINE_S = 30.0


def run_virtually(main: Callable[[MockClock], Coroutine[Any, Any, Any]]) -> Any:
    """Run `main` on a clock that jumps while all tasks wait."""
    clock = MockClock(autojump_threshold=0.0)
    return trio.run(main, clock, clock=clock)


def instruments() -> list[Any]:
    """Return the instruments of the run that this is called in."""
    from trio._core._run import GLOBAL_RUN_CONTEXT

    return list(GLOBAL_RUN_CONTEXT.runner.instruments["_all"])


def test_every_step_of_every_task_of_a_session_is_charged() -> None:
    """That holds through nested nurseries; tasks are counted while they live."""

    async def main(clock: MockClock) -> Any:
        async with Introspector(socket_path=False, clock=clock.current_time) as introspector:

            async def leaf() -> None:
                clock.jump(0.01)
                await trio.sleep(1)
                clock.jump(0.01)

            async def branch() -> None:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(leaf)
                    nursery.start_soon(leaf)

            with introspector.session("a", agent_name="test") as session:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(branch)
                    await trio.sleep(0.5)
                    during = session.tasks
                after = session.tasks
            return session.busy, during, after, session.tasks

    busy, during, after, ended = run_virtually(main)
    assert busy == pytest.approx(0.04)
    assert (during, after, ended) == (4, 1, 0)


def test_a_clock_that_jumps_jumps_over_waiting_time() -> None:
    """A jump is neither work nor a block."""

    async def main(clock: MockClock) -> Any:
        async with Introspector(socket_path=False, clock=clock.current_time) as introspector:
            began = parts_of(introspector).loops[0].hook.iterations.idle(clock.current_time())
            for _ in range(10):
                await trio.sleep(10)
            ended = parts_of(introspector).loops[0].hook.iterations.idle(clock.current_time())
            assert began is not None
            assert ended is not None
            return ended - began, introspector.blocks()

    idle, blocks = run_virtually(main)
    assert (idle, blocks) == (pytest.approx(100), [])


def test_the_run_is_restored() -> None:
    """Neither an instrument nor a thread of ours is left."""

    async def main() -> Any:
        before = instruments()
        async with Introspector(socket_path=False):
            during = instruments()
        return len(during) - len(before), instruments() == before

    assert trio.run(main) == (1, True)
    assert ours_end()


def test_a_fault_of_ours_ends_the_metering_and_is_noted(caplog: pytest.LogCaptureFixture) -> None:
    """The fault is noted once and never reaches Trio, and the tasks go on."""

    def broken(session: Any) -> Any:
        raise OSError("no accounts")

    async def main() -> Any:
        async with Introspector(socket_path=False, slow_session_threshold_ms=60_000) as introspector:
            with introspector.session("a", agent_name="test"):
                loop = parts_of(introspector).loops[0]
                loop.ledger.accounts.by_owner.clear()  # so the session's account is looked for
                opens, loop.ledger.account_of = loop.ledger.account_of, broken
                await trio.sleep(0)
                await trio.sleep(0)
                loop.ledger.account_of = opens
            return introspector.snapshot().worker.notes, instruments()

    notes, left = trio.run(main)
    assert notes == ["a Trio run is not measured any more: OSError('no accounts')"]
    assert left == []
    assert flush(60.0)
    assert [record.name for record in caplog.records] == ["openrtc.introspect"]


def broken_clock() -> float:
    raise OSError("no clock")


@pytest.mark.parametrize("calls", [0, 1, 2, 3])
def test_a_clock_that_fails_ends_the_metering_wherever_it_is_read(
    calls: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It is read at both ends of a step and of a wait. The fault is noted once, and the tasks go on."""
    left = calls
    now = 0.0

    def clock() -> float:
        nonlocal left, now
        now += 1e-6
        if not armed or threading.get_ident() != here:
            return now
        left -= 1
        return broken_clock() if left < 0 else now

    armed, here = False, threading.get_ident()

    async def main() -> Any:
        nonlocal armed
        introspector = Introspector(socket_path=False, stacks=False, clock=clock)
        introspector.attach()
        armed = True
        for _ in range(5):
            await trio.sleep(0)
        armed = False
        notes = introspector.snapshot().worker.notes
        introspector.close()
        return notes, instruments()

    gc.disable()  # collections read the clock, too
    try:
        notes, after = trio.run(main)
    finally:
        gc.enable()
    assert (notes, after) == (["a Trio run is not measured any more: OSError('no clock')"], [])
    assert flush(60.0)
    assert [record.name for record in caplog.records] == ["openrtc.introspect"]


def test_a_step_is_charged_to_the_session_that_is_bound_at_its_start() -> None:
    """That holds if another one is bound in the task's context than at the step before, by whatever code."""

    async def main(clock: MockClock) -> Any:
        async with Introspector(socket_path=False, clock=clock.current_time) as introspector:
            contexts = []

            async def work() -> None:
                contexts.append(trio.lowlevel.current_task().context)
                for _ in range(4):
                    clock.jump(0.01)
                    await trio.sleep(1)

            with introspector.session("a", agent_name="test") as first:
                pass
            with introspector.session("b", agent_name="test") as second:
                pass
            binding = parts_of(introspector).shared.sessions.binding
            first.ended = second.ended = False
            async with trio.open_nursery() as nursery:
                nursery.start_soon(work)
                await trio.sleep(0.5)
                contexts[0].run(binding.set, first)
                await trio.sleep(1)
                contexts[0].run(binding.set, second)
                await trio.sleep(1)
                contexts[0].run(binding.set, first)
            return first.busy, second.busy

    assert run_virtually(main) == (pytest.approx(0.02), pytest.approx(0.01))


def test_the_usual_step_calls_no_function_in_python_with_the_meter_in_c() -> None:
    """Neither does the usual iteration."""
    if native is None:
        pytest.skip("the meter in C is not installed")
    called: list[str] = []

    def see(frame: Any, event: str, argument: Any) -> None:
        if event == "call" and "openrtc_introspect_core" in frame.f_code.co_filename:
            called.append(frame.f_code.co_qualname)

    async def main(clock: MockClock) -> None:
        async with Introspector(socket_path=False, stacks=False) as introspector:
            with introspector.session("a", agent_name="test"):
                for _ in range(3):
                    await trio.lowlevel.cancel_shielded_checkpoint()
                sys.setprofile(see)
                for _ in range(100):
                    await trio.lowlevel.cancel_shielded_checkpoint()
                sys.setprofile(None)

    run_virtually(main)
    assert len(called) < 20  # steps and iterations that the machine has made long


def test_a_run_that_ends_is_detached_and_an_asyncio_loop_goes_on() -> None:
    """Loops of both kinds run under one introspector, each in its thread."""
    introspector = Introspector(socket_path=False)
    snapshots: list[Any] = []

    async def short() -> None:
        introspector.attach()
        with introspector.session("on trio", agent_name="test"):
            await trio.sleep(0)
            snapshots.append(introspector.snapshot())

    async def main() -> Any:
        async with introspector:
            thread = threading.Thread(target=trio.run, args=(short,), name="calls")
            thread.start()
            await asyncio.to_thread(thread.join)
            with introspector.session("on asyncio", agent_name="test"):
                for _ in range(3000):
                    if len(parts_of(introspector).loops) == 1:
                        break
                    await asyncio.sleep(0.01)
            return introspector.snapshot()

    after = asyncio.run(main())
    (during,) = snapshots
    assert [(loop.name, loop.loop, loop.thread) for loop in during.worker.loops] == [
        ("asyncio-1", "asyncio", "MainThread"),
        ("trio-2", "trio", "calls"),
    ]
    assert [(row.session_id, row.loop) for row in during.sessions] == [("on trio", "trio-2")]
    assert (after.worker.loops, after.worker.started, after.worker.notes) == ([], 2, [])


def test_a_run_is_detached_from_by_its_token_and_from_another_thread() -> None:
    """The run is detached as soon as it gets to the order."""

    async def main() -> Any:
        async with Introspector(socket_path=False) as introspector:
            token = trio.lowlevel.current_trio_token()
            await trio.to_thread.run_sync(introspector.detach, token)
            with trio.fail_after(DEADLINE_S):
                while instruments():
                    await trio.sleep(0.001)
            with introspector.session("a", agent_name="test") as session:
                await trio.sleep(0)
            return session.busy, session.loop

    assert trio.run(main) == (0.0, None)


# --- how a run ends ----------------------------------------------------------------------------------


class Guest:
    """A Trio run whose host is a queue of calls, and can abandon the run."""

    def __init__(self, main: Callable[[], Coroutine[Any, Any, Any]]) -> None:
        self.outcome: Any = None
        self._todo: queue.Queue[Callable[[], object]] = queue.Queue()
        trio.lowlevel.start_guest_run(main, run_sync_soon_threadsafe=self._todo.put, done_callback=self._done)

    def _done(self, outcome: Any) -> None:
        self.outcome = outcome

    def run(self, until: Callable[[], bool]) -> None:
        while not until():
            self._todo.get(timeout=DEADLINE_S)()


wrecks = pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning", "ignore:Trio guest run got abandoned"
)


async def turn_for_ever() -> None:
    """Yield for ever, so that the host always has the run's next turn and no thread waits for events."""
    while True:
        await trio.sleep(0)


@pytest.fixture
def wreck() -> Iterator[None]:
    """Free what a run left that crashed or was abandoned: its tasks warn, as they do without us."""
    yield
    collect()


def collect() -> None:
    """Collect several times: a run freed in its middle frees its generator, then its tasks, then what they held."""
    for _ in range(5):
        gc.collect()


@wrecks
def test_closing_after_a_guest_run_that_crashed_ends_everything(wreck: None, caplog: pytest.LogCaptureFixture) -> None:
    """Trio has closed the run's wake-up socket by then, and its token does not know. No fault of ours is noted."""
    introspector = Introspector(socket_path=False, slow_session_threshold_ms=60_000)
    sessions: list[Any] = []

    async def main() -> None:
        introspector.attach()
        with introspector.session("a", agent_name="test") as session:
            sessions.append(session)
            trio._core._run.GLOBAL_RUN_CONTEXT.runner.runq = "no queue"  # type: ignore[assignment]
            await trio.sleep(1)

    guest = Guest(main)
    guest.run(until=lambda: guest.outcome is not None)
    with pytest.raises(trio.TrioInternalError):
        guest.outcome.unwrap()
    introspector.close()
    assert ours_end()
    introspector.close()
    assert sessions[0].steps >= 1
    assert (introspector.snapshot().worker.notes, caplog.records) == ([], [])


@wrecks
def test_closing_after_a_guest_run_that_was_dropped_ends_everything(wreck: None) -> None:
    """Its host drops it in the middle: the run ends once nothing refers to it."""
    introspector = Introspector(socket_path=False)
    attached: list[bool] = []

    async def main() -> None:
        introspector.attach()
        attached.append(True)
        with introspector.session("a", agent_name="test"):
            await turn_for_ever()

    guest = Guest(main)
    guest.run(until=lambda: bool(attached))
    hook = parts_of(introspector).loops[0].hook
    del guest
    collect()
    ended = hook.ended()
    introspector.close()
    introspector.close()
    assert (ended, ours_end()) == (True, True)


@wrecks
def test_closing_while_a_guest_run_is_stuck_ends_everything(wreck: None) -> None:
    """Its host still has it, and does not continue it."""
    introspector = Introspector(socket_path=False)
    attached: list[bool] = []

    async def main() -> None:
        introspector.attach()
        attached.append(True)
        await turn_for_ever()

    guest = Guest(main)
    guest.run(until=lambda: bool(attached))
    closing = threading.Thread(target=introspector.close)
    closing.start()
    closing.join(DEADLINE_S)
    assert (closing.is_alive(), ours_end()) == (False, True)


def test_what_a_token_raises_does_not_prevent_closing(monkeypatch: pytest.MonkeyPatch) -> None:
    """For every error, and on any thread: the threads end, the scope is left, nothing is raised."""

    def broken(*arguments: Any, **options: Any) -> None:
        raise OSError(9, "Bad file descriptor")

    async def main() -> Any:
        introspector = Introspector(socket_path=False)
        introspector.attach()
        scope = introspector.session("a", agent_name="test")
        session = scope.__enter__()
        monkeypatch.setattr(trio.lowlevel.TrioToken, "run_sync_soon", broken)

        def elsewhere() -> None:
            scope.__exit__(None, None, None)
            introspector.close()
            introspector.close()

        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join(DEADLINE_S)
        monkeypatch.undo()
        return thread.is_alive(), session.tasks, session.ended

    assert trio.run(main) == (False, 0, True)
    assert ours_end()


def test_what_cannot_be_detached_from_elsewhere_never_reaches_the_run(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Trio would cancel all tasks for an error of a callback. The error is noted, with its traceback."""

    def broken(self: Any) -> None:
        raise LookupError("no accounts")

    async def main() -> Any:
        introspector = Introspector(socket_path=False, slow_session_threshold_ms=60_000)
        introspector.attach()
        monkeypatch.setattr(type(parts_of(introspector).loops[0].hook), "_forget_tasks", broken)
        await trio.to_thread.run_sync(introspector.close)
        with trio.fail_after(DEADLINE_S):
            while not caplog.records:
                await trio.sleep(0.001)
        monkeypatch.undo()  # after the run it is called as well
        return instruments(), introspector.snapshot().worker.notes

    left, notes = trio.run(main)
    assert left == []
    assert [note for note in notes if "LookupError('no accounts')" in note] == notes != []
    assert [record.exc_info is not None for record in caplog.records] == [True] * len(caplog.records)


def test_a_finished_run_and_its_tasks_are_freed_while_the_introspector_lives() -> None:
    """They are freed as without us, and the totals of the run's sessions stay readable."""

    class Thing:
        pass

    introspector = Introspector(socket_path=False)
    left: list[weakref.ref[Any]] = []
    loops: list[Any] = []

    async def main() -> None:
        introspector.attach()
        loops.extend(parts_of(introspector).loops)
        thing = Thing()

        async def system() -> None:
            held = thing
            await trio.sleep(0)
            del held

        trio.lowlevel.spawn_system_task(system)
        with introspector.session("a", agent_name="test"):
            await trio.sleep(0.01)
        runner = trio._core._run.GLOBAL_RUN_CONTEXT.runner
        left.extend(map(weakref.ref, (thing, runner, trio.lowlevel.current_root_task(), trio.lowlevel.current_task())))
        trio.lowlevel.current_task().custom_sleep_data = thing

    trio.run(main)
    gc.collect()
    alive = [each() for each in left]
    ledger = loops[0].ledger
    steps = ledger.accounts.totals(ledger.read())[1]
    parts_of(introspector).tick(parts_of(introspector).shared.clock())
    worker = introspector.snapshot().worker
    introspector.close()
    assert alive == [None] * 4
    assert (steps >= 1, worker.started, worker.notes) == (True, 1, [])


@wrecks
def test_tasks_that_never_end_since_their_run_crashed_are_no_longer_counted(wreck: None) -> None:
    """A session that lives on elsewhere does not count them."""
    introspector = Introspector(socket_path=False)
    sessions: list[Any] = []

    async def main() -> None:
        introspector.attach()
        sessions.append(introspector.session("a", agent_name="test").__enter__())
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            await trio.sleep(0)
            sessions.append(sessions[0].tasks)
            trio._core._run.GLOBAL_RUN_CONTEXT.runner.runq = "no queue"  # type: ignore[assignment]
            await trio.sleep(1)

    with pytest.raises(trio.TrioInternalError):
        trio.run(main)
    gc.collect()
    introspector.close()
    assert (sessions[1], sessions[0].tasks) == (2, 1)  # the scope's own is counted until it is left


def test_what_is_no_loop_of_this_thread_is_refused() -> None:
    """The token of another run is refused, and so is an object that is no loop."""

    async def token() -> Any:
        return trio.lowlevel.current_trio_token()

    over = trio.run(token)

    async def main() -> None:
        introspector = Introspector(socket_path=False)
        with pytest.raises(StateError, match="this token is of a Trio run in another thread, or of one that is over"):
            introspector.attach(over)
        with pytest.raises(StateError, match="cannot attach to 7: it is no asyncio event loop and no Trio token"):
            introspector.attach(7)  # type: ignore[arg-type]

    trio.run(main)
    assert ours_end()


def test_a_timeout_that_is_over_delays_the_tasks_it_is_for() -> None:
    """The tasks in its scope wait since its deadline; those behind a shield do not."""

    async def main(clock: MockClock) -> Any:
        async with Introspector(socket_path=False, clock=clock.current_time) as introspector:

            async def patient(name: str, *, shield: bool) -> None:
                scope = introspector.session(name, agent_name="test")
                with scope, trio.move_on_after(1), trio.CancelScope(shield=shield):
                    await trio.sleep(3)

            async def culprit() -> None:
                with introspector.session("culprit", agent_name="test"):
                    await trio.sleep(0.9)
                    clock.jump(0.3)
                    await trio.sleep(0)

            async with trio.open_nursery() as nursery:
                nursery.start_soon(lambda: patient("waits", shield=False))
                nursery.start_soon(lambda: patient("shielded", shield=True))
                nursery.start_soon(culprit)
            return introspector.blocks()

    (block,) = run_virtually(main)
    assert [(each.session_id, round(each.delayed_ms), each.exact) for each in block.delayed] == [("waits", 200, True)]


@pytest.mark.gil
def test_tasks_are_listed_as_the_tree_they_are() -> None:
    """Each task shows where it waits; a task at the end of its nursery waits for the children."""

    async def main() -> Any:
        async with Introspector(socket_path=False) as introspector:

            async def leaf() -> None:
                await trio.sleep_forever()

            async def branch() -> None:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(leaf, name="leaf-1")
                    nursery.start_soon(leaf, name="leaf-2")

            with introspector.session("a", agent_name="test"):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(branch, name="branch")
                    await trio.testing.wait_all_tasks_blocked()
                    waiting = await trio.to_thread.run_sync(introspector.tasks, "a")
                    here = introspector.tasks("a")
                    nursery.cancel_scope.cancel()
            return waiting, here, leaf.__code__.co_firstlineno + 1

    waiting, here, line = trio.run(main)
    tasks: dict[str, TaskInfo] = {task.name: task for task in waiting}
    branch, leaf = tasks["branch"], tasks["leaf-1"]
    assert [name for name in tasks if name.startswith("leaf")] == ["leaf-1", "leaf-2"]
    assert (branch.state, branch.waiting_on, leaf.state) == ("waiting", "2 child tasks", "waiting")
    assert leaf.awaited_by == [branch.id]
    assert (leaf.awaits[0].function.rpartition(".")[2], leaf.awaits[0].line) == ("leaf", line)
    assert [task.state for task in here if task.coroutine.endswith("main")] == ["running"]


def test_as_a_guest_of_asyncio_it_is_metered_too() -> None:
    """With a Trio run on asyncio's loop, the loop that is attached is the calling task's own."""
    introspector = Introspector(socket_path=False)

    async def guest() -> Any:
        introspector.attach()
        with introspector.session("guest", agent_name="test") as session:
            for _ in range(3):
                await trio.sleep(0.001)
            return introspector.snapshot().worker.loop, session.steps

    async def main() -> Any:
        loop = asyncio.get_running_loop()
        done: asyncio.Future[Any] = loop.create_future()
        trio.lowlevel.start_guest_run(
            guest, run_sync_soon_threadsafe=loop.call_soon_threadsafe, done_callback=done.set_result
        )
        return (await done).unwrap()

    kind, steps = asyncio.run(main())
    introspector.close()
    assert (kind, steps >= 3) == ("trio", True)


def test_if_the_host_does_not_run_on_trio_it_is_not_loaded() -> None:
    """Attaching, metering and closing on asyncio load no Trio."""
    code = """
        import asyncio, sys
        from openrtc_introspect_core import AgentPool, Introspector

        async def main():
            async with Introspector(socket_path=False) as introspector:
                with introspector.session("a", agent_name="test"):
                    await asyncio.sleep(0)
                    introspector.tasks("a"), introspector.snapshot()

        asyncio.run(main())
        sys.exit("trio" in sys.modules)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], timeout=60, check=False)
    assert done.returncode == 0


def test_what_a_step_costs_is_measured_as_trio_calls_it() -> None:
    """The cost is used for introspection's own share, and the measurement charges nothing to the run's ledger."""

    async def main() -> Any:
        async with Introspector(socket_path=False) as introspector:
            loop = parts_of(introspector).loops[0]
            with introspector.session("a", agent_name="test") as session:
                steps = session.steps
                return loop.measure_step_cost(), session.steps - steps

    cost, steps = trio.run(main)
    assert min(cost) > 0
    assert steps == 0
