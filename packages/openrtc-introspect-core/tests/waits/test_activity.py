from __future__ import annotations

import asyncio
import contextvars
import inspect
import socket
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import anyio
import pytest

from openrtc_introspect_core import Introspector
from openrtc_introspect_core._introspector import parts_of
from openrtc_introspect_core._loops.callbacks import name_of
from openrtc_introspect_core._waits.activity import Activity
from openrtc_introspect_core._waits.loop_sampler import MAX_QUEUED, LoopSampler
from openrtc_introspect_core.wire._messages import CallbackGroup, LoopActivity
from openrtc_introspect_testing._loops.backends import Backend

WITHIN_S = 60.0


def ask(introspector: Introspector) -> LoopActivity:
    """Return what the first loop does; on a thread that is not the loop's."""
    parts = parts_of(introspector)
    loop = parts.loops[0]
    (answer,) = Activity([(loop.name, loop.hook)]).finish(parts.shared.wall, parts.shared.places)
    return answer


def sampled_now(introspector: Introspector) -> LoopActivity:
    """Return what one sample says that is taken on the loop's thread, in the middle of a step."""
    parts = parts_of(introspector)
    sampler = LoopSampler("asyncio", parts.loops[0].hook)
    sampler.sample({}, 0)
    sampler.stop()
    return sampler.activity(parts.shared.wall, parts.shared.places)


async def ask_until(introspector: Introspector, right: Callable[[LoopActivity], bool]) -> LoopActivity:
    """Ask until the answer is right, or it is late: a busy machine keeps loops and threads from running."""
    deadline = time.monotonic() + WITHIN_S
    while True:
        answer = await anyio.to_thread.run_sync(ask, introspector)
        if right(answer) or time.monotonic() > deadline:
            return answer


def named(answer: LoopActivity, function: str) -> list[CallbackGroup]:
    return [group for group in answer.callbacks if group.function.endswith(function)]


@pytest.mark.slow
def test_a_reader_that_spins_is_named_with_its_descriptor_and_session(run: Backend) -> None:
    """Its socket is at its end, and it stays registered: the selector returns at once, and no task steps."""

    async def main() -> Any:
        async with Introspector(socket_path=False) as introspector:
            loop = asyncio.get_running_loop()
            near, far = socket.socketpair()
            near.setblocking(False)

            def on_readable() -> None:
                near.recv(4096)

            with introspector.session("side", agent_name="a", metadata={"tenant": "t"}):
                loop.add_reader(near, on_readable)
            far.close()
            try:
                answer = await ask_until(introspector, lambda answer: bool(named(answer, "on_readable")))
            finally:
                loop.remove_reader(near)
            descriptor = near.fileno()
            near.close()
            return answer, descriptor

    answer, descriptor = run(main())
    (group,) = named(answer, "on_readable")
    assert (group.source, group.fd, group.session_id, group.agent_name, group.tenant) == (
        "reader", descriptor, "side", "a", "t",
    )  # fmt: skip
    assert group.location is not None
    assert group.location.file.endswith("test_activity.py")
    assert group.count > 0
    assert group.count == answer.sampled


@pytest.mark.slow
def test_a_writer_that_spins_is_one(run: Backend) -> None:
    """There is room to send all the time, and nothing to send."""

    async def main() -> Any:
        async with Introspector(socket_path=False) as introspector:
            loop = asyncio.get_running_loop()
            near, far = socket.socketpair()
            near.setblocking(False)

            def on_writable() -> None:
                pass

            loop.add_writer(near, on_writable)
            answer = await ask_until(introspector, lambda answer: bool(named(answer, "on_writable")))
            loop.remove_writer(near)
            near.close()
            far.close()
            return answer

    (group,) = named(run(main()), "on_writable")
    assert (group.source, group.session_id) == ("writer", None)


@pytest.mark.slow
def test_a_timer_that_sets_itself_again_at_once_is_named(run_on_asyncio: Backend) -> None:
    """It keeps the loop from waiting, and is in no queue when it does not run."""

    async def main() -> Any:
        async with Introspector(socket_path=False) as introspector:
            loop = asyncio.get_running_loop()
            over = False

            def polls() -> None:
                if not over:
                    loop.call_later(0, polls)

            with introspector.session("poller", agent_name="a"):
                polls()
            answer = await ask_until(introspector, lambda answer: bool(named(answer, "polls")))
            over = True
            return answer

    (group,) = named(run_on_asyncio(main()), "polls")
    assert (group.source, group.session_id, group.count) == ("ready", "poller", 1)


def test_a_method_in_c_has_its_name() -> None:
    """As another thread gives it to a loop that waits for the future."""
    future: asyncio.Future[int] = asyncio.Future(loop=asyncio.new_event_loop())
    future.get_loop().close()
    assert name_of(future.set_result) == "Future.set_result"
    assert name_of([].append) == "list.append"


@pytest.mark.slow
def test_a_flood_of_callbacks_has_its_function_and_session(run: Backend) -> None:
    """On loops written in Python also the thread that adds them."""

    async def main() -> Any:
        async with Introspector(socket_path=False) as introspector:
            loop = asyncio.get_running_loop()
            over = threading.Event()

            def on_item(number: int) -> None:
                pass

            def feed() -> None:
                while not over.is_set():
                    loop.call_soon_threadsafe(on_item, 1)

            with introspector.session("fed", agent_name="a"):
                context = contextvars.copy_context()
            thread = threading.Thread(target=context.run, args=(feed,), name="feeder")
            thread.start()
            try:
                return await ask_until(
                    introspector,
                    lambda answer: any(
                        group.thread or answer.asleep_since is None for group in named(answer, "on_item")
                    ),
                )
            finally:
                over.set()
                thread.join()

    answer = run(main())
    (group,) = named(answer, "on_item")
    assert (group.source, group.session_id, group.fd) == ("ready", "fed", None)
    assert group.count >= 1
    assert group.thread in ("feeder", None)
    assert answer.ready is not None


@pytest.mark.slow
@pytest.mark.gil
def test_the_thread_that_adds_callbacks_is_named(run_on_asyncio: Backend) -> None:
    """It is seen in `call_soon_threadsafe`."""

    async def main() -> Any:
        async with Introspector(socket_path=False) as introspector:
            loop = asyncio.get_running_loop()
            over = threading.Event()

            def on_item() -> None:
                pass

            def feed() -> None:
                while not over.is_set():
                    loop.call_soon_threadsafe(on_item)

            thread = threading.Thread(target=feed, name="feeder")
            thread.start()
            try:
                return await ask_until(
                    introspector, lambda answer: any(group.thread for group in named(answer, "on_item"))
                )
            finally:
                over.set()
                thread.join()

    (group,) = named(run_on_asyncio(main()), "on_item")
    assert group.thread == "feeder"


@pytest.mark.slow
def test_what_another_thread_adds_without_waking_the_loop_is_lost(run_on_asyncio: Backend) -> None:
    """By `call_soon` and by `call_later`: the loop sleeps, and does not know of them."""

    async def main() -> Any:
        async with Introspector(socket_path=False) as introspector:
            loop = asyncio.get_running_loop()
            ended = loop.create_future()
            answers: list[LoopActivity] = []

            def wake() -> None:
                pass

            def later() -> None:
                pass

            def add() -> None:
                try:
                    deadline = time.monotonic() + WITHIN_S
                    while time.monotonic() < deadline and not (answers and len(answers[-1].callbacks) == 2):
                        while len(loop._ready) or len(loop._scheduled):  # type: ignore[attr-defined]  # it sleeps soon
                            time.sleep(0.01)
                        time.sleep(0.05)
                        loop.call_soon(wake)
                        loop.call_later(0.01, later)
                        time.sleep(0.1)
                        answers.append(ask(introspector))
                        loop.call_soon_threadsafe(lambda: None)
                finally:
                    loop.call_soon_threadsafe(ended.set_result, None)

            with introspector.session("waits", agent_name="a"):
                context = contextvars.copy_context()
            thread = threading.Thread(target=context.run, args=(add,))
            thread.start()
            await ended
            thread.join()
            return answers[-1]

    answer = run_on_asyncio(main())
    assert [(group.source, group.function.rpartition(".")[2], group.session_id) for group in answer.callbacks] == [
        ("lost", "wake", "waits"),
        ("lost", "later", "waits"),
    ]
    assert answer.asleep_since is not None
    assert answer.ready == 1


@pytest.mark.slow
def test_an_idle_loop_sleeps_and_has_no_callbacks(on_any_loop: Backend) -> None:
    """On uvloop it is not known whether it sleeps, nor how many iterations it makes."""

    async def main() -> Any:
        async with Introspector(socket_path=False) as introspector:
            return await ask_until(introspector, lambda answer: not answer.callbacks), parts_of(introspector).loops[
                0
            ].name

    answer, name = on_any_loop(main())
    hidden = on_any_loop.name == "uvloop"
    assert answer.name == name
    assert answer.callbacks == []
    assert (answer.asleep_since is None) == hidden
    assert (answer.iterations_per_s is None) == hidden
    assert answer.steps_per_s is not None


@pytest.mark.slow
def test_steps_a_second_are_those_meanwhile(on_any_loop: Backend) -> None:
    """A task that steps all the time makes some hundreds at least; with `cpu="off"` they are not known."""

    async def main(**arguments: Any) -> Any:
        async with Introspector(socket_path=False, **arguments) as introspector:
            over = False

            async def steps() -> None:
                while not over:
                    await anyio.sleep(0)

            async with anyio.create_task_group() as group:
                group.start_soon(steps)
                answer = await ask_until(introspector, lambda answer: (answer.steps_per_s or 0.0) > 100)
                over = True
            return answer.steps_per_s

    assert on_any_loop(main()) > 100

    async def off() -> Any:
        async with Introspector(socket_path=False, cpu="off") as introspector:
            return (await anyio.to_thread.run_sync(ask, introspector)).steps_per_s

    assert on_any_loop(off()) is None


@pytest.mark.slow
def test_what_a_trio_run_is_given_by_threads_is_in_its_queue() -> None:
    """By `run_sync_soon`."""
    import trio

    async def main() -> Any:
        async with Introspector(socket_path=False) as introspector:
            token = trio.lowlevel.current_trio_token()
            over = threading.Event()

            def on_item() -> None:
                pass

            def feed() -> None:
                while not over.is_set():
                    for _ in range(100):
                        token.run_sync_soon(on_item)
                    time.sleep(0.001)

            thread = threading.Thread(target=feed, name="feeder")
            thread.start()
            try:
                return await ask_until(introspector, lambda answer: bool(named(answer, "on_item")))
            finally:
                over.set()
                thread.join()

    (group,) = named(Backend("trio")(main()), "on_item")
    assert (group.source, group.session_id) == ("ready", None)


def test_a_long_queue_is_estimated_from_its_ends(run_on_asyncio: Backend) -> None:
    """One sample describes some of its callbacks, and counts each for several."""

    async def main() -> Any:
        async with Introspector(socket_path=False) as introspector:
            loop = asyncio.get_running_loop()

            def on_item() -> None:
                pass

            for _ in range(10 * MAX_QUEUED):
                loop.call_soon(on_item)
            return sampled_now(introspector)

    answer = run_on_asyncio(main())
    (group,) = named(answer, "on_item")
    assert (group.source, group.count, answer.ready) == ("ready", 10 * MAX_QUEUED, 10 * MAX_QUEUED)


def test_tasks_that_are_ready_are_no_callbacks(run_on_asyncio: Backend) -> None:
    """They count in the queue's length."""

    async def main() -> Any:
        async with Introspector(socket_path=False) as introspector:
            tasks = [asyncio.ensure_future(asyncio.sleep(0)) for _ in range(3)]
            answer = sampled_now(introspector)
            await asyncio.gather(*tasks)
            return answer

    answer = run_on_asyncio(main())
    assert (answer.ready, answer.callbacks) == (3, [])


@pytest.mark.gil
@pytest.mark.parametrize("direct", [False, True], ids=["by a runner", "by run_until_complete"])
def test_on_uvloop_a_callback_that_runs_at_the_moment_is_named(direct: bool) -> None:
    """One that is in no queue any more: it is inside of the frame that runs the loop."""
    import uvloop

    async def main(waiting: int) -> Any:
        async with Introspector(socket_path=False) as introspector:
            parts, loop = parts_of(introspector), asyncio.get_running_loop()
            sampler = LoopSampler("uvloop", parts.loops[0].hook)
            own = threading.get_ident()
            over = loop.create_future()

            def sample() -> None:
                sampler.sample({own: sys._current_frames()[own]}, 0)

            def in_thread() -> None:
                thread = threading.Thread(target=sample)
                thread.start()
                thread.join()

            def on_event() -> None:
                in_thread()
                over.set_result(None)

            def while_it_waits() -> None:
                deadline = time.monotonic() + WITHIN_S
                while loop_stack() != waiting and time.monotonic() < deadline:
                    time.sleep(0.01)
                sample()

            def loop_stack() -> int:
                frame, depth = sys._current_frames().get(own), 0
                while frame is not None:
                    frame, depth = frame.f_back, depth + 1
                return depth

            await asyncio.to_thread(while_it_waits)
            loop.call_later(0.001, on_event)
            await over
            return sampler.activity(parts.shared.wall, parts.shared.places)

    waiting = len(inspect.stack())
    if direct:
        loop = uvloop.new_event_loop()
        answer = loop.run_until_complete(main(waiting))
        loop.close()
    else:
        answer = Backend("uvloop")(main(waiting + 2))  # in `Backend.__call__`, in `Runner.run`
    (group,) = named(answer, "on_event")
    assert (group.source, group.count, group.session_id) == ("running", 1, None)


def test_no_code_of_the_host_runs_to_describe_a_callback(run_on_asyncio: Backend) -> None:
    """A callable object is described by its class alone."""

    class Hostile:
        def __call__(self) -> None: ...

        def __getattribute__(self, name: str) -> Any:
            raise SystemExit(name)

        def __eq__(self, other: object) -> bool:
            raise SystemExit("eq")

        __hash__ = None  # type: ignore[assignment]

    async def main() -> Any:
        async with Introspector(socket_path=False) as introspector:
            asyncio.get_running_loop().call_soon(Hostile())
            return sampled_now(introspector)

    answer = run_on_asyncio(main())
    assert [group.function.rpartition(".")[2] for group in answer.callbacks] == ["Hostile"]


@pytest.mark.skipif(sys.platform == "win32", reason="serves no socket there")
def test_a_worker_answers_with_it() -> None:
    """The reply to a waits request has each loop, by the kind of the only one."""
    from openrtc_introspect_core._service.worker_source import WorkerSource
    from openrtc_introspect_core.wire._messages import WaitsRequest

    async def main() -> Any:
        async with Introspector(socket_path=False) as introspector:
            source = WorkerSource(parts_of(introspector).builder)
            return await anyio.to_thread.run_sync(source.waits, WaitsRequest(id=1))

    assert [loop.name for loop in Backend("asyncio")(main()).loops] == ["asyncio"]
