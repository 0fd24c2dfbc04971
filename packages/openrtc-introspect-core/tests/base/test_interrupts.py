"""What a signal's handler raises while our code runs is the host's, and no fault of ours."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import signal
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from openrtc_introspect_core import Introspector
from openrtc_introspect_core._base.interrupts import is_interrupt
from openrtc_introspect_core._introspector import parts_of
from openrtc_introspect_core._loops import executor_calls
from openrtc_introspect_testing import FakeLoop

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGUSR1")


class TimeLimit(Exception):
    """What a host's handler raises."""


def handler(number: int, frame: object) -> None:
    raise TimeLimit(number)


class Raises:
    def __call__(self, number: int, frame: object) -> None:
        raise TimeLimit(number)

    def method(self, number: int, frame: object) -> None:
        raise TimeLimit(number)


HANDLERS: dict[str, Any] = {
    "a function": handler,
    "a method": Raises().method,
    "an object": Raises(),
    "a partial": functools.partial(handler),
}


@pytest.fixture
def set_handler() -> Iterator[Callable[[Any], None]]:
    """Sets the handler of SIGUSR1, until the test is over."""
    before = signal.getsignal(signal.SIGUSR1)
    yield lambda handler: signal.signal(signal.SIGUSR1, handler) and None
    signal.signal(signal.SIGUSR1, before)


def raised_by(function: Callable[[], Any]) -> BaseException:
    try:
        function()
    except BaseException as error:
        return error
    raise AssertionError("nothing was raised")


@pytest.mark.parametrize("kind", HANDLERS)
def test_what_a_handler_raises_is_told_from_a_fault(kind: str, set_handler: Callable[[Any], None]) -> None:
    """Of whatever kind the handler is; once it is set no more, it is a function like any other."""
    set_handler(HANDLERS[kind])
    error = raised_by(lambda: signal.raise_signal(signal.SIGUSR1))
    assert isinstance(error, TimeLimit)
    assert is_interrupt(error)
    set_handler(signal.SIG_IGN)
    assert not is_interrupt(error)


def test_what_is_no_exception_is_no_fault() -> None:
    """As KeyboardInterrupt."""
    assert is_interrupt(raised_by(lambda: (_ for _ in ()).throw(KeyboardInterrupt())))
    assert not is_interrupt(raised_by(lambda: 1 / 0))


@pytest.mark.parametrize("part", ["account_of", "note", "suspend", "see_ready"])
def test_the_host_gets_it_and_metering_goes_on(
    part: str, set_handler: Callable[[Any], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a step begins or ends, or the loop waits: in the task, out of the loop, or in its handler; once."""
    set_handler(handler)
    seen: list[BaseException] = []
    armed = True

    def interrupted(original: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            nonlocal armed
            if armed:
                armed = False
                signal.raise_signal(signal.SIGUSR1)
            return original(*args, **kwargs)

        return call

    async def work(loop: Any) -> str:
        for _ in range(3):
            try:
                loop.block(0.001)
                await asyncio.sleep(0.01)
            except TimeLimit as error:
                seen.append(error)
        return "done"

    async def main() -> Any:
        loop: Any = asyncio.get_running_loop()
        introspector = Introspector(socket_path=False, clock=loop.clock)
        introspector.attach()
        with introspector.session("job-1", agent_name="test"):
            (attached,) = parts_of(introspector).loops
            hook: Any = attached.hook
            owners = {
                "account_of": hook.ledger,
                "note": type(hook.ledger),
                "suspend": type(hook.iterations._steps),
                "see_ready": type(hook._adopted),
            }
            owner = owners[part]
            with monkeypatch.context() as patch:
                patch.setattr(owner, part, interrupted(getattr(owner, part)))
                task = loop.create_task(work(loop))
                while not task.done():
                    try:
                        await asyncio.sleep(0.05)
                    except TimeLimit as error:
                        seen.append(error)
        introspector.close()
        return task.result(), introspector.snapshot().worker.notes

    loop = FakeLoop()
    loop.set_exception_handler(lambda _, context: seen.append(context["exception"]))
    running = loop.create_task(main())
    while not running.done():
        try:
            loop.run_until_complete(running)
        except TimeLimit as error:  # it came while the loop's own code ran
            seen.append(error)
    loop.close()
    assert running.result() == ("done", [])
    assert armed or len(seen) == 1


@pytest.mark.parametrize("part", ["starts", "stopped"])
def test_whoever_runs_the_loop_gets_it_where_the_loop_starts_or_stops(
    part: str, set_handler: Callable[[Any], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It can be run again, and its iterations are timed as before."""
    set_handler(handler)
    loop: Any = FakeLoop()
    introspector = Introspector(socket_path=False, clock=loop.clock)

    async def attach() -> None:
        introspector.attach()

    loop.run_until_complete(attach())
    (attached,) = parts_of(introspector).loops
    hook: Any = attached.hook
    with monkeypatch.context() as patch:
        patch.setattr(hook.iterations, part, lambda now: signal.raise_signal(signal.SIGUSR1))
        with pytest.raises(TimeLimit):
            loop.run_until_complete(asyncio.sleep(0.01))
    assert loop.run_until_complete(asyncio.sleep(0.01, "done")) == "done"
    assert hook.iterations.timed
    introspector.close()
    loop.close()
    assert introspector.snapshot().worker.notes == []


def interrupted_once(monkeypatch: pytest.MonkeyPatch, owner: Any, part: str) -> list[bool]:
    """Have the signal arrive at the next call of `part`. Returns a list that has an item once it did."""
    original, arrived = getattr(owner, part), list[bool]()

    def call(*args: Any, **kwargs: Any) -> Any:
        if not arrived:
            arrived.append(True)
            signal.raise_signal(signal.SIGUSR1)
        return original(*args, **kwargs)

    monkeypatch.setattr(owner, part, call)
    return arrived


def test_the_host_gets_it_where_a_call_in_a_thread_begins(
    set_handler: Callable[[Any], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once, out of `run_in_executor`; later calls are seen."""
    set_handler(handler)

    async def main() -> Any:
        loop: Any = asyncio.get_running_loop()
        async with Introspector(socket_path=False) as introspector:
            with introspector.session("job-1", agent_name="test"):
                arrived = interrupted_once(monkeypatch, executor_calls, "_can_wrap")
                with pytest.raises(TimeLimit):
                    await loop.run_in_executor(None, sum, range(9))
                assert arrived
                await loop.run_in_executor(None, sum, range(200_000))
                return introspector.snapshot()

    snapshot = asyncio.run(main())
    assert snapshot.sessions[0].thread_cpu_s > 0.0
    assert not any("calls in threads" in note for note in snapshot.worker.notes)


def test_the_host_gets_it_where_a_task_is_tagged(
    set_handler: Callable[[Any], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once, out of `create_task`; later tasks are counted."""
    set_handler(handler)

    async def main() -> Any:
        async with Introspector(socket_path=False, cpu="sampled") as introspector:
            with introspector.session("job-1", agent_name="test") as session:
                (attached,) = parts_of(introspector).loops
                arrived = interrupted_once(monkeypatch, attached.hook.ledger, "account_of")
                work = asyncio.sleep(0)
                with pytest.raises(TimeLimit):
                    asyncio.get_running_loop().create_task(work)
                assert arrived
                task = asyncio.get_running_loop().create_task(asyncio.sleep(0))
                tasks = session.tasks
                await task
                return tasks, introspector.snapshot().worker.notes

    tasks, notes = asyncio.run(main())
    assert tasks == 2
    assert not any("tagged" in note for note in notes)


def test_the_host_gets_it_where_a_task_is_adopted(
    set_handler: Callable[[Any], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once, out of `bind_to`; the session goes on."""
    set_handler(handler)

    async def main() -> Any:
        async with Introspector(socket_path=False) as introspector:
            (attached,) = parts_of(introspector).loops
            other = asyncio.create_task(asyncio.sleep(0.01), context=(context := contextvars.Context()))
            await asyncio.sleep(0)
            scope = introspector.session("job-1", agent_name="test")
            scope.begin()
            arrived = interrupted_once(monkeypatch, attached.hook, "adopt_task")
            with pytest.raises(TimeLimit):
                scope.bind_to(context, other)
            assert arrived
            scope.bind_to(context, other)
            await other
            scope.__exit__(None, None, None)
            return introspector.snapshot().worker.notes

    assert not any("scope" in note for note in asyncio.run(main()))
