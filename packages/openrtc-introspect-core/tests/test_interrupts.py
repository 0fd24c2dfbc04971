"""What a signal's handler raises while our code runs is the host's, and no fault of ours."""

from __future__ import annotations

import asyncio
import functools
import signal
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from openrtc_introspect_core import Introspector
from openrtc_introspect_core._interrupts import is_interrupt
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


@pytest.mark.parametrize("part", ["account_of", "note", "_between_steps", "see_ready"])
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
            (attached,) = introspector._loops
            hook: Any = attached.hook
            owner = {"account_of": type(hook.ledger), "note": type(hook.ledger)}.get(part, type(hook))
            owner = type(hook._adopted) if part == "see_ready" else owner
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


@pytest.mark.parametrize("part", ["_starts", "_stopped"])
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
    (attached,) = introspector._loops
    hook: Any = attached.hook
    with monkeypatch.context() as patch:
        patch.setattr(hook, part, lambda now: signal.raise_signal(signal.SIGUSR1))
        with pytest.raises(TimeLimit):
            loop.run_until_complete(asyncio.sleep(0.01))
    assert loop.run_until_complete(asyncio.sleep(0.01, "done")) == "done"
    assert hook.times_iterations
    introspector.close()
    loop.close()
    assert introspector.snapshot().worker.notes == []
