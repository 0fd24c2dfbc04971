"""The survey of all tasks: groups, holders, what is stuck, and its budget."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import AsyncIterator, Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import anyio
import pytest
from seen_tasks import cancel, forever, settle
from seen_waits import group_seen, survey_of

from openrtc_introspect_core import Introspector
from openrtc_introspect_core._base.errors import StateError
from openrtc_introspect_core._waits import survey as survey_module
from openrtc_introspect_core._waits.slices import Slices
from openrtc_introspect_core.wire import Waits

pytestmark = pytest.mark.gil

Run = Callable[[Coroutine[Any, Any, Any]], Any]
Body = Callable[[], Coroutine[Any, Any, Any]]


class Worker:
    """An introspector and the sessions that a test starts in it."""

    def __init__(self, introspector: Introspector) -> None:
        self.introspector = introspector
        self.tasks: list[asyncio.Task[Any]] = []

    def start(self, session_id: str | None, body: Body, name: str = "") -> asyncio.Task[Any]:
        """Run `body` in a task of this session's, which lives as long; None: of no session's."""

        async def run() -> None:
            if session_id is None:
                await body()
            else:
                with self.introspector.session(session_id, agent_name="test", metadata={"tenant": "acme"}):
                    await body()

        task = asyncio.create_task(run(), name=name or session_id or "nobody's")
        self.tasks.append(task)
        return task


@asynccontextmanager
async def worker(**options: Any) -> AsyncIterator[Worker]:
    async with Introspector(socket_path=False, black_box=False, **options) as introspector:
        made = Worker(introspector)
        try:
            yield made
        finally:
            await cancel(*made.tasks)


async def holding(lock: AbstractAsyncContextManager[Any], body: Body = forever) -> None:
    async with lock:
        await body()


def taken_at(function: Callable[..., Any], number: int) -> tuple[int, str]:
    """Return (line, function) of a line of a function, counted from its `def` line."""
    return function.__code__.co_firstlineno + number, function.__qualname__


LOCKS: dict[str, tuple[Callable[[], Any], str]] = {
    "asyncio.Lock": (asyncio.Lock, "lock"),
    "asyncio.Semaphore": (lambda: asyncio.Semaphore(1), "semaphore"),
    "anyio.Lock": (anyio.Lock, "lock"),
    "anyio.Semaphore": (lambda: anyio.Semaphore(1), "semaphore"),
    "anyio.CapacityLimiter": (lambda: anyio.CapacityLimiter(1), "semaphore"),
}


@pytest.mark.parametrize(("make", "kind"), LOCKS.values(), ids=LOCKS)
def test_the_holder_of_a_lock(make: Callable[[], Any], kind: str, run: Run) -> None:
    """Who has it, since when, where it was taken, where the holder waits, and for what."""

    async def main() -> Any:
        lock = make()
        async with worker() as made:
            made.start("holder", lambda: holding(lock))
            await settle()
            for number in range(3):
                made.start(f"job-{number}", lambda: holding(lock))
            # A step that ends a little after the wait began is a part of it that passes.
            return await group_seen(made.introspector, lambda group: group.kind == kind and group.stuck == 3)

    group = run(main())
    assert (group.tasks, group.shared, group.sessions) == (3, True, 3)
    assert {waiter.session_id for waiter in group.waiters} == {"job-0", "job-1", "job-2"}
    (holder,) = group.holders
    assert (holder.session_id, holder.agent_name, holder.tenant, holder.task_name) == (
        "holder", "test", "acme", "holder",
    )  # fmt: skip
    assert (holder.waits, holder.certain) == ("unknown", True)
    assert holder.since is not None
    assert (holder.taken_at.line, holder.taken_at.function) == taken_at(holding, 1)
    assert holder.location.function == forever.__qualname__
    assert (group.location.line, group.location.function) == taken_at(holding, 1)


def test_a_semaphore_has_several_holders(run: Run) -> None:
    """Each of them is named."""

    async def main() -> Any:
        semaphore = asyncio.Semaphore(2)
        async with worker() as made:
            for number in range(3):
                made.start(f"job-{number}", lambda: holding(semaphore))
                await settle()
            return await group_seen(made.introspector, lambda group: group.kind == "semaphore")

    group = run(main())
    assert sorted(holder.session_id for holder in group.holders) == ["job-0", "job-1"]
    assert [waiter.session_id for waiter in group.waiters] == ["job-2"]


def test_tasks_that_wait_for_each_other(run: Run) -> None:
    """Each of two groups has one waiter, and the other's waiter as its holder."""

    async def main() -> Any:
        first, second = asyncio.Lock(), asyncio.Lock()

        async def both(one: asyncio.Lock, other: asyncio.Lock) -> None:
            async with one:
                await asyncio.sleep(0)
                async with other:
                    raise AssertionError("both locks were free")

        async with worker() as made:
            made.start("job-1", lambda: both(first, second))
            made.start("job-2", lambda: both(second, first))
            await settle()
            answer = await survey_of(made.introspector)
            return [group for group in answer.groups if group.kind == "lock"]

    groups = run(main())
    pairs = {(group.waiters[0].session_id, group.holders[0].session_id) for group in groups}
    assert pairs == {("job-1", "job-2"), ("job-2", "job-1")}
    assert all(group.holders[0].waits == "lock" and group.holders[0].certain for group in groups)


def test_a_task_that_waits_for_its_own_lock_holds_it(run: Run) -> None:
    """asyncio.Lock is not reentrant."""

    async def main() -> Any:
        lock = asyncio.Lock()
        async with worker() as made:
            made.start("job-1", lambda: holding(lock, lambda: holding(lock)))
            return await group_seen(made.introspector, lambda group: group.kind == "lock")

    group = run(main())
    assert group.holders[0].session_id == group.waiters[0].session_id == "job-1"


def test_a_task_that_called_acquire_is_likely(run: Run) -> None:
    """Nothing shows that it still has the lock."""

    async def by_hand(lock: asyncio.Lock) -> None:
        await lock.acquire()
        try:
            await forever()
        finally:
            lock.release()

    async def main() -> Any:
        lock = asyncio.Lock()
        async with worker() as made:
            made.start("holder", lambda: by_hand(lock))
            await settle()
            made.start("job-1", lambda: holding(lock))
            return await group_seen(made.introspector, lambda group: group.kind == "lock" and bool(group.holders))

    (holder,) = run(main()).holders
    assert (holder.session_id, holder.certain, holder.taken_at.line) == ("holder", False, taken_at(by_hand, 1)[0])


def test_of_two_tasks_that_called_acquire_none_is_named(run: Run) -> None:
    """Someone else has released what the first one took."""

    async def by_hand(lock: asyncio.Lock) -> None:
        await lock.acquire()
        await forever()

    async def main() -> Any:
        lock = asyncio.Lock()
        async with worker() as made:
            made.start("first", lambda: by_hand(lock))
            await settle()
            lock.release()
            made.start("second", lambda: by_hand(lock))
            await settle()
            made.start("job-1", lambda: holding(lock))
            return await group_seen(made.introspector, lambda group: group.kind == "lock")

    assert run(main()).holders == []


def test_a_task_that_all_wait_for_is_its_own_holder(run: Run) -> None:
    """It is no session's, and waits for something else."""

    async def main() -> Any:
        event = asyncio.Event()
        async with worker() as made:
            shared = made.start(None, event.wait, name="shared")
            await settle()
            for number in range(2):
                made.start(f"job-{number}", lambda: _await(asyncio.shield(shared)))
            return await group_seen(made.introspector, lambda group: group.kind == "shared-task")

    group = run(main())
    assert (group.sessions, group.shared, group.what) == (2, True, "task shared")
    assert [(holder.session_id, holder.task_name, holder.waits) for holder in group.holders] == [
        (None, "shared", "event")
    ]


async def _await(awaitable: Any) -> Any:
    return await awaitable


def test_each_task_s_own_object_at_one_line_is_one_group(run: Run) -> None:
    """The queues differ, the line is the same."""

    async def turn() -> None:
        await asyncio.Queue[int]().get()

    async def main() -> Any:
        async with worker() as made:
            for number in range(4):
                made.start(f"job-{number}", turn)
            return await group_seen(made.introspector, lambda group: group.kind == "queue" and group.tasks == 4)

    group = run(main())
    assert (group.sessions, group.shared, group.holders) == (4, False, [])
    assert (group.location.line, group.location.function) == taken_at(turn, 1)


def test_the_place_of_a_group_is_of_the_user_s_code(run: Run) -> None:
    """Although more tasks wait in a coroutine of the library's alone."""

    async def asks(event: asyncio.Event) -> None:
        await event.wait()

    async def gives_to_a_library(event: asyncio.Event) -> None:
        await asyncio.gather(*(event.wait() for _ in range(3)))

    async def main() -> Any:
        event = asyncio.Event()
        async with worker() as made:
            made.start("job-1", lambda: gives_to_a_library(event))
            made.start("job-2", lambda: asks(event))
            return await group_seen(made.introspector, lambda group: group.kind == "event" and group.tasks == 4)

    group = run(main())
    assert (group.location.line, group.location.function) == taken_at(asks, 1)


@pytest.mark.parametrize(
    "wrap", [asyncio.shield, lambda coro: asyncio.wait_for(coro, 1000)], ids=["shield", "wait_for"]
)
def test_a_task_that_only_wraps_a_wait_is_not_counted(wrap: Callable[[Any], Any], run: Run) -> None:
    """The task that waits for it is."""

    async def main() -> Any:
        lock = asyncio.Lock()
        await lock.acquire()
        async with worker() as made:
            for number in range(3):
                made.start(f"job-{number}", lambda: _await(wrap(lock.acquire())))
            return await group_seen(made.introspector, lambda group: group.kind == "lock" and group.sessions == 3)

    group = run(main())
    assert (group.tasks, group.location.function) == (3, _await.__qualname__)


def test_tasks_of_no_session_and_of_ended_ones_are_nobody_s(run: Run) -> None:
    """They count as tasks, not as sessions."""

    async def main() -> Any:
        event = asyncio.Event()
        async with worker() as made:
            made.start(None, event.wait, name="nobody's")
            with made.introspector.session("job-1", agent_name="test"):
                left = asyncio.create_task(event.wait(), name="left")
            group = await group_seen(made.introspector, lambda group: group.kind == "event" and group.tasks == 2)
            await cancel(left)
            return group

    group = run(main())
    assert group.sessions == 0
    assert {(waiter.session_id, waiter.task_name) for waiter in group.waiters} == {
        (None, "nobody's"),
        (None, "left"),
    }


def test_waiters_are_named_by_how_long_they_wait(run: Run) -> None:
    """The longest first; the group began to wait with it."""

    async def main() -> Any:
        event = asyncio.Event()
        async with worker() as made:
            for number in range(3):
                made.start(f"job-{number}", event.wait)
                await asyncio.sleep(0.01)
            return await group_seen(made.introspector, lambda group: group.kind == "event" and group.tasks == 3)

    group = run(main())
    assert [waiter.session_id for waiter in group.waiters] == ["job-0", "job-1", "job-2"]
    times = [waiter.since for waiter in group.waiters]
    assert times == sorted(times)
    assert group.since == times[0]


def test_a_session_that_steps_is_not_stuck(run: Run) -> None:
    """One of its tasks waits, another one goes on."""

    async def ticking() -> None:
        event = asyncio.Event()
        task = asyncio.create_task(event.wait())
        try:
            while True:
                await asyncio.sleep(0.001)
        finally:
            task.cancel()

    async def main() -> Any:
        async with worker() as made:
            made.start("job-1", ticking)
            await asyncio.sleep(0.1)
            return await group_seen(made.introspector, lambda group: group.kind == "event")

    assert run(main()).stuck == 0


def test_steps_that_are_not_timed_have_no_time(run_on_asyncio: Run) -> None:
    """With `cpu="off"`."""

    async def main() -> Any:
        async with worker(cpu="off") as made:
            made.start("job-1", asyncio.Event().wait)
            return await group_seen(made.introspector, lambda group: group.kind == "event")

    group = run_on_asyncio(main())
    assert (group.since, group.waiters[0].since, group.stuck, group.sessions) == (None, None, 0, 1)


def test_what_there_is_no_time_for_is_counted(run_on_asyncio: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tasks that have not stepped for long are looked at first."""

    async def main() -> Waits:
        async with worker() as made:
            for number in range(200):
                made.start(f"job-{number}", forever)
            await settle()
            monkeypatch.setattr(survey_module, "Slices", lambda **_: Slices(deadline_s=0.0))
            return await survey_of(made.introspector)

    answer = run_on_asyncio(main())
    assert answer.not_looked_at > 0
    assert answer.tasks + answer.not_looked_at in (200, 201)  # the test's own task may run just then


def test_many_tasks(run_on_asyncio: Run) -> None:
    """All of them are looked at, and at most 20 of a group are named."""

    async def session(lock: asyncio.Lock) -> None:
        children = [asyncio.create_task(asyncio.Queue[int]().get()) for _ in range(3)]
        children.append(asyncio.create_task(lock.acquire()))
        await asyncio.gather(*children)

    async def main() -> Waits:
        lock = asyncio.Lock()
        await lock.acquire()
        async with worker() as made:
            for number in range(300):
                made.start(f"job-{number}", lambda: session(lock))
            await settle()
            return await survey_of(made.introspector)

    answer = run_on_asyncio(main())
    groups = {group.kind: group for group in answer.groups}
    assert (answer.sessions, answer.not_looked_at) == (300, 0)
    assert answer.tasks in (1500, 1501)  # the test's own task may run just then
    assert (groups["lock"].sessions, groups["lock"].shared, groups["lock"].tasks) == (300, True, 300)
    assert (groups["queue"].sessions, groups["queue"].shared, groups["queue"].tasks) == (300, False, 900)
    assert groups["own-task"].tasks == 300
    assert all(len(group.waiters) <= 20 for group in answer.groups)
    assert answer.groups == sorted(answer.groups, key=lambda group: -group.sessions)


def test_tasks_that_end_meanwhile_are_no_fault(run_on_asyncio: Run) -> None:
    """The survey goes on while tasks come and go."""

    async def brief() -> None:
        await asyncio.sleep(0)
        await asyncio.gather(*(asyncio.sleep(0) for _ in range(3)))

    async def main() -> list[int]:
        found: list[int] = []
        async with worker() as made:

            def ask() -> None:
                found.extend(made.introspector.waits().tasks for _ in range(5))

            thread = threading.Thread(target=ask)
            thread.start()
            while thread.is_alive():
                await asyncio.gather(*(asyncio.create_task(brief()) for _ in range(20)))
        return found

    assert len(run_on_asyncio(main())) == 5


def test_a_library_s_function_that_resolves_the_future_is_named(run_on_asyncio: Run, tmp_path: Any) -> None:
    """With the user's line."""
    library = tmp_path / "site" / "pool.py"
    library.parent.mkdir()
    library.write_text("async def connect(future):\n    await future\n")
    names: dict[str, Any] = {}
    exec(compile(library.read_text(), str(library), "exec"), names)

    async def call() -> None:
        await names["connect"](asyncio.get_running_loop().create_future())

    async def main() -> Any:
        async with worker(project_roots=[__file__.rpartition("/")[0]]) as made:
            made.start("job-1", call)
            return await group_seen(made.introspector, lambda group: group.kind == "unknown" and group.sessions == 1)

    group = run_on_asyncio(main())
    assert (group.what, group.location.function) == ("future of connect", call.__qualname__)


def test_it_takes_an_introspector_that_is_attached() -> None:
    """Before its start, and after its end, there is nothing to ask."""
    introspector = Introspector(socket_path=False)
    with pytest.raises(StateError):
        introspector.waits()


def test_what_a_host_s_classes_override_is_not_called(run_on_asyncio: Run) -> None:
    """On a thread that is not the host's, its code may do anything: that of futures, tasks and executors."""
    called: list[str] = []

    def noted(base: type, *names: str) -> type:
        """Derive a class whose methods note that they were called on a thread that is not the host's."""

        def noting(name: str) -> Any:
            def method(self: Any, *args: Any) -> Any:
                thread = threading.current_thread()
                if thread is not threading.main_thread() and not thread.name.startswith("host"):
                    called.append(f"{base.__name__}.{name}{args}")
                return getattr(super(made, self), name)(*args)

            return method

        made: type = type(f"Noted{base.__name__}", (base,), {name: noting(name) for name in names})
        return made

    future_type = noted(asyncio.Future, "done", "get_loop", "__hash__", "__getattribute__", "__repr__")
    overridden = {"get_coro", "get_name", "__repr__"}
    if sys.version_info < (3, 14):  # since then Python's own all_tasks() asks for them
        overridden |= {"done", "get_loop", "__getattribute__"}
    task_type = noted(asyncio.Task, *overridden)
    executor_type = noted(ThreadPoolExecutor, "__getattribute__")

    async def waits_for_calls(executor: ThreadPoolExecutor, event: threading.Event) -> None:
        loop = asyncio.get_running_loop()
        await asyncio.gather(*(loop.run_in_executor(executor, event.wait) for _ in range(3)))

    async def main() -> Any:
        loop, ends = asyncio.get_running_loop(), threading.Event()
        future = future_type(loop=loop)
        executor = executor_type(1, thread_name_prefix="host")
        async with worker() as made:
            made.start("job-1", lambda: _await(future))
            made.start("job-2", lambda: _await(asyncio.gather(future, future_type(loop=loop))))
            made.start("job-3", lambda: _await(asyncio.shield(task_type(forever(), loop=loop))))
            made.start("job-4", lambda: waits_for_calls(executor, ends))
            await settle()
            called.clear()
            try:
                return await survey_of(made.introspector), await asyncio.to_thread(made.introspector.waits)
            finally:
                ends.set()
                executor.shutdown()

    survey, answer = run_on_asyncio(main())
    assert survey.sessions == answer.sessions == 4
    assert called == []
