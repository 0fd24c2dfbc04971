"""What a task waits for in asyncio's own functions, on asyncio's loop and on uvloop."""

from __future__ import annotations

import asyncio
import socket
import sys
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Generator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from seen_tasks import cancel, forever
from seen_waits import Wait, all_waits, wait_seen

from openrtc_introspect_core import Introspector

pytestmark = pytest.mark.gil

Run = Callable[[Coroutine[Any, Any, Any]], Any]
Start = Callable[[], Coroutine[Any, Any, Any]]


async def awaiting(awaitable: Any) -> Any:
    return await awaitable


async def seen(make: Callable[[], Any], kind: str = "") -> Wait:
    """Return what a task waits for that runs the coroutine function which `make` returns.

    kind: what it waits for in the end, if it waits for other things before.
    """
    async with Introspector(socket_path=False, black_box=False) as introspector:
        with introspector.session("job-1", agent_name="test"):
            coro = make()
            if asyncio.iscoroutine(coro) and coro.__name__ == "prepared":
                coro = await coro
            task = asyncio.create_task(coro, name="subject")
        try:
            return await wait_seen(introspector, "subject", kind)
        finally:
            await cancel(task)


async def held_lock() -> asyncio.Lock:
    lock = asyncio.Lock()
    await lock.acquire()
    return lock


async def in_condition(condition: asyncio.Condition, *, predicate: bool) -> None:
    async with condition:
        if predicate:
            await condition.wait_for(lambda: False)
        else:
            await condition.wait()


def full_queue() -> asyncio.Queue[int]:
    queue: asyncio.Queue[int] = asyncio.Queue(1)
    queue.put_nowait(1)
    return queue


async def grouped() -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(forever())
        group.create_task(forever())


async def completed_one_by_one() -> None:
    for each in asyncio.as_completed([forever(), forever()]):
        await each


async def iterated(event: asyncio.Event) -> None:
    async def events() -> AsyncIterator[int]:
        while True:
            await event.wait()
            yield 1

    async for _ in events():
        pass


def futures(number: int) -> list[asyncio.Future[None]]:
    loop = asyncio.get_running_loop()
    return [loop.create_future() for _ in range(number)]


async def calls_gathered(number: int, ahead: int = 0) -> None:
    """Wait for so many calls in an executor of four threads, behind so many others."""
    loop, done = asyncio.get_running_loop(), threading.Event()
    with ThreadPoolExecutor(4) as executor:
        try:
            before = [loop.run_in_executor(executor, done.wait) for _ in range(ahead)]
            await asyncio.gather(*(loop.run_in_executor(executor, done.wait) for _ in range(number)))
            del before
        finally:
            done.set()


class Own:
    """An awaitable of the user's own."""

    def __init__(self, lock: asyncio.Lock) -> None:
        self._lock = lock

    def __await__(self) -> Generator[Any, Any, Any]:
        return (yield from self._lock.acquire().__await__())


WAITS: dict[str, tuple[Callable[[], Any], str, str]] = {
    "sleep": (lambda: asyncio.sleep(1000), "timer", "sleep"),
    "semaphore": (lambda: asyncio.Semaphore(0).acquire(), "semaphore", "asyncio.Semaphore"),
    "bounded semaphore": (lambda: asyncio.BoundedSemaphore(0).acquire(), "semaphore", "asyncio.BoundedSemaphore"),
    "condition": (lambda: in_condition(asyncio.Condition(), predicate=False), "condition", "asyncio.Condition"),
    "condition, wait_for": (
        lambda: in_condition(asyncio.Condition(), predicate=True),
        "condition",
        "asyncio.Condition",
    ),
    "event": (lambda: asyncio.Event().wait(), "event", "asyncio.Event"),
    "queue, get": (lambda: asyncio.Queue[int]().get(), "queue", "asyncio.Queue, empty"),
    "priority queue": (lambda: asyncio.PriorityQueue[int]().get(), "queue", "asyncio.PriorityQueue, empty"),
    "queue, put": (lambda: full_queue().put(2), "queue", "asyncio.Queue, full"),
    "queue, join": (lambda: full_queue().join(), "queue", "asyncio.Queue, with entries to be done"),
    "barrier": (lambda: asyncio.Barrier(2).wait(), "barrier", "asyncio.Barrier"),
    "bare future": (forever, "unknown", "future"),
    "gather of calls": (lambda: calls_gathered(6), "thread", "gather of calls in threads"),
    "gather of queued calls": (
        lambda: calls_gathered(2, ahead=6),
        "executor",
        "gather of calls that are queued for threads",
    ),
    "gather of futures": (lambda: awaiting(asyncio.gather(*futures(2))), "unknown", "gather"),
    "task group": (grouped, "own-task", "task group"),
    "as_completed": (completed_one_by_one, "own-task", "as_completed"),
    "async generator": (lambda: iterated(asyncio.Event()), "event", "asyncio.Event"),
    "wait_for": (lambda: asyncio.wait_for(asyncio.Event().wait(), 1000), "event", "asyncio.Event"),
}


@pytest.mark.parametrize(("make", "kind", "what"), WAITS.values(), ids=WAITS)
def test_what_a_task_waits_for(make: Callable[[], Any], kind: str, what: str, run: Run) -> None:
    """The kind, and a description of the object."""
    found = run(seen(make))
    assert (found.kind, found.what, found.state) == (kind, what, "waiting")


@pytest.mark.skipif(sys.version_info < (3, 15), reason="TaskGroup.cancel is new in Python 3.15")
def test_a_cancelled_group_waits_for_what_its_tasks_have_to_clean_up(run: Run) -> None:
    """It is left without an error, and no task of the session is left over."""

    async def main() -> Any:
        cleaned_up = asyncio.Event()

        async def member() -> None:
            try:
                await forever()
            finally:
                await cleaned_up.wait()

        async def cancelled() -> None:
            async with asyncio.TaskGroup() as group:
                group.create_task(member(), name="member")
                await asyncio.sleep(0)
                group.cancel()  # type: ignore[attr-defined]

        async with Introspector(socket_path=False, black_box=False) as introspector:
            with introspector.session("job-1", agent_name="test"):
                task = asyncio.create_task(cancelled(), name="subject")
            found = [
                await wait_seen(introspector, "subject", "own-task"),
                await wait_seen(introspector, "member", "event"),
            ]
            cleaned_up.set()
            await task
            return [each.what for each in found], [row.tasks for row in introspector.snapshot().sessions]

    assert run(main()) == (["task group", "asyncio.Event"], [])


def test_the_object_is_known(run: Run) -> None:
    """A lock is known by identity."""

    async def main() -> Any:
        lock = await held_lock()
        found = await seen(lambda: lock.acquire())
        return found.kind, found.what, found.target is lock

    assert run(main()) == ("lock", "asyncio.Lock", True)


WRAPPERS: dict[str, Callable[[Coroutine[Any, Any, Any]], Any]] = {
    "shield": lambda coro: awaiting(asyncio.shield(coro)),
    "wait_for": lambda coro: asyncio.wait_for(coro, 1000),
    "wait_for, shield": lambda coro: asyncio.wait_for(asyncio.shield(coro), 1000),
    "gather of one": lambda coro: awaiting(asyncio.gather(coro)),
    "wait of one": lambda coro: asyncio.wait([asyncio.ensure_future(coro)]),
    "own awaitable": lambda coro: awaiting(coro),
}


@pytest.mark.parametrize("wrap", WRAPPERS.values(), ids=WRAPPERS)
def test_what_only_wraps_a_wait_is_looked_through(wrap: Callable[[Any], Any], run: Run) -> None:
    """The task waits for what is wrapped."""

    async def prepared(lock: asyncio.Lock) -> Any:
        return wrap(lock.acquire())

    async def main() -> Any:
        lock = await held_lock()
        found = await seen(lambda: prepared(lock))
        return found.kind, found.target is lock

    assert run(main()) == ("lock", True)


def test_an_own_awaitable_is_looked_through(run: Run) -> None:
    """So is `__await__` of the user's."""

    async def main() -> str:
        lock = await held_lock()
        return (await seen(lambda: awaiting(Own(lock)))).kind

    assert run(main()) == "lock"


def test_a_condition_that_takes_its_lock_again_waits_for_the_lock(run: Run) -> None:
    """It has been notified, and another has the lock."""

    async def main() -> str:
        condition = asyncio.Condition()
        async with Introspector(socket_path=False, black_box=False) as introspector:
            task = asyncio.create_task(in_condition(condition, predicate=False), name="subject")
            await wait_seen(introspector, "subject", "condition")
            async with condition:
                condition.notify()
                found = await wait_seen(introspector, "subject", "lock")
            await cancel(task)
            return found.kind

    assert run(main()) == "lock"


@pytest.mark.parametrize("wrapped", [False, True])
def test_a_task_is_known_by_whose_it_is(wrapped: bool, run: Run) -> None:
    """It is its own session's, another session's, or no session's; `shield` does not hide it."""

    async def main() -> list[str]:
        shared = asyncio.create_task(forever())
        async with Introspector(socket_path=False, black_box=False) as introspector:
            with introspector.session("job-2", agent_name="test"):
                others = asyncio.create_task(forever())
            with introspector.session("job-1", agent_name="test"):
                own = asyncio.create_task(forever())
                tasks = [
                    asyncio.create_task(awaiting(asyncio.shield(each) if wrapped else each), name=name)
                    for name, each in (("own", own), ("other", others), ("shared", shared))
                ]
                tasks.append(asyncio.create_task(awaiting(own)))  # another one waits for it, too
            kinds = [(await wait_seen(introspector, name)).kind for name in ("own", "other", "shared")]
            await cancel(*tasks, shared, others, own)
            return kinds

    assert run(main()) == ["own-task", "other-task", "shared-task"]


def test_calls_in_threads_and_those_that_wait_for_a_thread(run: Run) -> None:
    """A call has a thread, or is queued."""

    async def main() -> list[tuple[str, str]]:
        pool, go_on = ThreadPoolExecutor(1), threading.Event()
        loop = asyncio.get_running_loop()
        try:
            async with Introspector(socket_path=False, black_box=False) as introspector:
                with introspector.session("job-1", agent_name="test"):
                    first = asyncio.create_task(awaiting(loop.run_in_executor(pool, go_on.wait)), name="first")
                    second = asyncio.create_task(awaiting(loop.run_in_executor(pool, go_on.wait)), name="second")
                    third = asyncio.create_task(asyncio.to_thread(go_on.wait), name="third")
                found = [
                    await wait_seen(introspector, "first", "thread"),
                    await wait_seen(introspector, "second", "executor"),
                    await wait_seen(introspector, "third", "thread"),
                ]
                go_on.set()
                await asyncio.wait([first, second, third])
                return [(each.kind, each.what) for each in found]
        finally:
            go_on.set()
            pool.shutdown()

    assert run(main()) == [
        ("thread", "call in a thread"),
        ("executor", "call that is queued for a thread"),
        ("thread", "call in a thread"),
    ]


def test_a_task_of_another_loop_is_known(run: Run) -> None:
    """`run_coroutine_threadsafe` leads to it."""

    async def main() -> str:
        other, task = asyncio.new_event_loop(), None
        thread = threading.Thread(target=other.run_forever)
        thread.start()
        try:
            future = asyncio.run_coroutine_threadsafe(forever(), other)
            found = await seen(lambda: awaiting(asyncio.wrap_future(future)), "shared-task")
            return found.kind
        finally:
            other.call_soon_threadsafe(lambda: [each.cancel() for each in asyncio.all_tasks(other)])
            other.call_soon_threadsafe(lambda: other.call_soon(other.stop))
            thread.join()
            other.close()
            del task

    assert run(main()) == "shared-task"


def test_connections(run: Run) -> None:
    """Reading of a stream, of a socket; sending."""

    async def main() -> list[str]:
        kept: list[Any] = []

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            kept.append(writer)

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        host, port = server.sockets[0].getsockname()[:2]
        reader, writer = await asyncio.open_connection(host, port)

        async def send() -> None:
            while True:
                writer.write(bytes(1 << 20))
                await writer.drain()

        found = [(await seen(lambda: reader.readline())).kind, (await seen(send, "socket")).kind]
        writer.transport.abort()
        for each in kept:
            each.transport.abort()
        server.close()
        await server.wait_closed()
        return found

    assert run(main()) == ["socket", "socket"]


def test_a_server_waits_for_connections(run_on_asyncio: Run) -> None:
    """`serve_forever`."""

    async def main() -> str:
        server = await asyncio.start_server(lambda reader, writer: None, "127.0.0.1", 0)
        return (await seen(lambda: server.serve_forever())).kind

    assert run_on_asyncio(main()) == "socket"


def test_a_socket_of_the_loop(run: Run) -> None:
    """`sock_recv`."""

    async def main() -> str:
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        loop = asyncio.get_running_loop()
        try:
            return (await seen(lambda: awaiting(loop.sock_recv(ours, 1)))).kind
        finally:
            ours.close()
            theirs.close()

    assert run(main()) == "socket"


@pytest.mark.slow
@pytest.mark.parametrize("how", ["wait", "communicate", "read"])
def test_subprocesses(how: str, run: Run) -> None:
    """A process's end and its output."""

    async def main() -> str:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", "input()", stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
        )
        starts: dict[str, Start] = {
            "wait": process.wait,
            "communicate": process.communicate,
            "read": lambda: process.stdout.read(),  # type: ignore[union-attr]
        }
        try:
            return (await seen(starts[how], "process")).kind
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()

    assert run(main()) == "process"


def test_a_task_that_could_run_is_ready(run: Run) -> None:
    """It has not begun."""

    async def main() -> tuple[str, str, float | None]:
        async with Introspector(socket_path=False, black_box=False) as introspector:
            task = asyncio.create_task(forever(), name="subject")
            found: list[Wait] = []
            thread = threading.Thread(target=lambda: found.append(all_waits(introspector)["subject"]))
            thread.start()
            thread.join()
            await cancel(task)
            return found[0].kind, found[0].state, found[0].since

    assert run(main()) == ("ready", "ready", None)


def test_the_await_chain_leads_into_what_is_wrapped(run: Run) -> None:
    """The line shown is that of the innermost function of the user's own."""

    async def inner(lock: asyncio.Lock) -> None:
        await lock.acquire()

    async def outer(lock: asyncio.Lock) -> None:
        await asyncio.shield(inner(lock))

    async def main() -> list[str]:
        lock = await held_lock()
        return (await seen(lambda: outer(lock))).functions

    assert run(main()) == ["outer", "inner", "acquire"]
