"""Every function of core on a host's thread is made to raise: no session notices.

A short program finds these functions, on each kind of loop and with each way of measuring. The program is then run
once for each function, which raises. It ends as it does without us, and only our own log has the fault, with its
traceback. faults.py describes which call raises.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import sys
import time
import traceback
import warnings
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from functools import partial
from types import CodeType
from typing import Any, NamedTuple
from zlib import crc32

import faults
import pytest
import trio
import trio.testing

from openrtc_introspect_core import Introspector
from openrtc_introspect_core._introspector import parts_of
from openrtc_introspect_testing._loops.fake_loop import FakeLoop

BOUND_S = 5.0
"""Seconds. A program that waits for longer waits for ever."""

Program = Callable[[Any, bool], Any]
"""Takes the faults to arm, and whether to meter. Returns its result, and what the loop's handlers saw."""

CANNOT_BE_PATCHED = {
    "<lambda>": "made where it is used: the functions that it calls are made to raise",
    "<locals>": "a closure, made anew for each loop: the functions that it calls are made to raise",
}
"""Functions that only their holders refer to, by a part of their names, and the reason why this does no harm."""

CANNOT_BE_LOGGED = {
    "notes.": "the code that would report the fault is the code that fails",
    "log.": "the code that would report the fault is the code that fails",
}
"""Functions by the beginning of their names. Their faults need not be logged, but nobody may notice them either."""


class Host:
    """The sessions' scopes for a program, and a way to hold the loop."""

    def __init__(self, introspector: Introspector | None, armed: Any, block: Callable[[float], None]) -> None:
        self._introspector = introspector
        self._faults = armed
        self.block = block

    def session(self, session_id: str) -> AbstractContextManager[Any]:
        """Return a session's scope. `session()` itself checks arguments, and may raise."""
        if self._introspector is None:
            return nullcontext()
        with self._faults.arm(False):
            return self._introspector.session(session_id, agent_name="a", metadata={"tenant": "acme"})

    def collect(self) -> None:
        """Collect garbage for long enough to be charged."""

        def take(phase: str, info: dict[str, Any]) -> None:
            if phase == "start":
                self.block(0.06)

        gc.callbacks.append(take)
        try:
            gc.collect()
        finally:
            gc.callbacks.remove(take)


# --- the programs --------------------------------------------------------------------------------


async def _pause() -> str:
    await asyncio.sleep(0)
    return "paused"


async def _fail() -> None:
    await asyncio.sleep(0)
    raise ValueError("the host's own")


async def _for_ever(heard: list[str]) -> None:
    try:
        await asyncio.sleep(1000)
    finally:
        heard.append("cancelled")


async def _numbers(host: Host) -> AsyncIterator[int]:
    with host.session("streaming"):
        yield 1
        yield 2


async def _call(host: Host, name: str) -> list[Any]:
    """Run a session: tasks, a block, a collection, a call in a thread, a scope."""
    loop = asyncio.get_running_loop()
    heard: list[Any] = []
    with host.session(name):
        heard.append("begun")
        heard.append(await asyncio.create_task(_pause(), name=f"{name}'s"))
        try:
            await asyncio.create_task(_fail())
        except ValueError as error:
            heard.append([str(error), [entry.name for entry in traceback.extract_tb(error.__traceback__)]])
        waiting = asyncio.create_task(_for_ever(heard))
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.wait([waiting])
        host.block(0.06)
        await asyncio.sleep(0.001)
        host.collect()
        heard.append(await loop.run_in_executor(None, len, "four"))
        with host.session(f"{name}, inner"):
            host.block(0.001)
            await asyncio.sleep(0)
            host.block(0.06)
        try:
            with host.session(f"{name}, failing"):
                raise KeyError("the host's own")
        except KeyError:
            heard.append("failed")
        heard.append(len([number async for number in _numbers(host)]))
    heard.append("left")
    loop.call_soon(host.block, 0.06)
    host.block(0.001)
    await asyncio.sleep(0.002)
    return heard


async def _older(host: Host, begin: asyncio.Event) -> list[Any]:
    """Run a session in a task that is older than the introspector."""
    await begin.wait()
    heard: list[Any] = []
    with host.session("older"):
        heard.append(await asyncio.create_task(_pause()))
        await asyncio.sleep(0.001)
        host.block(0.06)
    await asyncio.sleep(0)
    return heard


async def _asyncio_program(host: Host, begin: asyncio.Event) -> Any:
    older = asyncio.create_task(_older(host, begin))
    await asyncio.sleep(0)

    async def main() -> Any:
        begin.set()
        first, second = asyncio.create_task(_call(host, "job-1")), asyncio.create_task(_call(host, "job-2"))
        heard = [await first, await second, await older]
        await asyncio.sleep(0.02)  # for a heartbeat, on loops that have one
        return heard

    return main


def _on_asyncio(loop_factory: Callable[[], Any], settings: dict[str, Any], armed: Any, metered: bool) -> Any:
    loop = loop_factory()
    block = getattr(loop, "block", _block_for_real)
    clock = getattr(loop, "clock", time.perf_counter)
    odd: list[str] = []

    async def main() -> Any:
        introspector = Introspector(socket_path=False, budget_pct=0, clock=clock, **settings) if metered else None
        host = Host(introspector, armed, block)
        begin = asyncio.Event()
        program = await _asyncio_program(host, begin)
        if introspector is None:
            return await program()
        introspector.attach()
        _sample(introspector)
        try:
            with armed.arm():
                task = asyncio.create_task(program())
                await asyncio.wait([task], timeout=BOUND_S)
                if not task.done():  # it seems that it cannot be cancelled either
                    raise TimeoutError("some task is never run again")
                return task.result()
        finally:
            _end(introspector)

    loop.set_exception_handler(lambda _, context: odd.append(f"{context['message']}: {context.get('exception')!r}"))
    if sys.version_info >= (3, 12) and loop_factory is FakeLoop and "memory" not in settings:
        loop.set_task_factory(asyncio.eager_task_factory)
    try:
        result = loop.run_until_complete(main())
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.run_until_complete(loop.shutdown_default_executor())
    finally:
        armed.armed = False
        _end_tasks(loop)
        loop.close()
    return result, odd


def _end_tasks(loop: asyncio.AbstractEventLoop) -> None:
    """End the tasks that a fault has left waiting, and so the introspector."""
    waiting = asyncio.all_tasks(loop)
    for task in waiting:
        task.cancel()
    if waiting:
        with suppress(BaseException):
            loop.run_until_complete(asyncio.wait(waiting, timeout=0.2))


async def _trio_call(host: Host, name: str) -> list[Any]:
    heard: list[Any] = []

    async def child() -> None:
        await trio.sleep(0.001)
        heard.append("child")

    with host.session(name):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(child)
            await trio.sleep(0)
            host.block(0.06)
        host.collect()
        with trio.move_on_after(0.001):
            await trio.sleep(1)
        with host.session(f"{name}, inner"):
            await trio.lowlevel.checkpoint()
            host.block(0.001)
        try:
            with host.session(f"{name}, failing"):
                raise KeyError("the host's own")
        except KeyError:
            heard.append("failed")
    await trio.sleep(0.002)
    return heard


def _on_trio(settings: dict[str, Any], armed: Any, metered: bool) -> Any:
    clock = trio.testing.MockClock(autojump_threshold=0.0)

    async def main() -> Any:
        introspector = (
            Introspector(socket_path=False, budget_pct=0, clock=clock.current_time, **settings) if metered else None
        )
        host = Host(introspector, armed, clock.jump)
        heard: list[Any] = []

        async def call(name: str) -> None:
            heard.append(await _trio_call(host, name))

        async def program() -> Any:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(call, "job-1")
                nursery.start_soon(call, "job-2")
            return heard

        if introspector is None:
            return await program()
        introspector.attach()
        _sample(introspector)
        try:
            with armed.arm():
                return await program()
        finally:
            _end(introspector)

    return trio.run(main, clock=clock), []


def _sample(introspector: Introspector) -> None:
    """If the introspector is named `sampled`, time one step in three."""
    if introspector.name == "sampled":
        for loop in parts_of(introspector).loops:
            loop.ledger.set_sampling_period(3)


def _end(introspector: Introspector) -> None:
    notes.extend(introspector.snapshot().worker.notes)
    introspector.close()


notes: list[str] = []
"""The notes of the last introspector."""


def _uvloop() -> Any:
    import uvloop

    return uvloop.new_event_loop()


def _block_for_real(seconds: float) -> None:
    """Hold the loop for a twentieth of the time, because it is real time."""
    time.sleep(seconds / 20)


REAL = {"slow_session_threshold_ms": 2.0}
PROGRAMS: dict[str, Program] = {
    "virtual asyncio": partial(_on_asyncio, FakeLoop, {}),
    "virtual asyncio, one step in three": partial(_on_asyncio, FakeLoop, {"name": "sampled"}),
    "virtual asyncio, traced memory": partial(_on_asyncio, FakeLoop, {"memory": "traced"}),
    "virtual asyncio, not metered": partial(_on_asyncio, FakeLoop, {"cpu": "off"}),
    "asyncio": partial(_on_asyncio, asyncio.SelectorEventLoop, REAL),
    "uvloop": partial(_on_asyncio, _uvloop, REAL),
    "trio": partial(_on_trio, {}),
    "trio, one step in three": partial(_on_trio, {"name": "sampled"}),
}


CASES = [
    *((name, RuntimeError) for name in PROGRAMS),
    *((name, error) for name in ("virtual asyncio", "trio") for error in (MemoryError, RecursionError)),
]

# --- running them --------------------------------------------------------------------------------


class Ended(NamedTuple):
    """The end of a program."""

    result: Any
    odd: list[str]
    """Reports of the fault outside of our own log."""
    records: list[logging.LogRecord]
    """Our own log."""


class _Log(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


@contextmanager
def _all_is_heard(odd: list[str]) -> Iterator[_Log]:
    gc.collect()  # the garbage of programs before this one is not its own
    log, root = _Log(), logging.getLogger()
    # pytest's handlers would format each record, and keep all that its traceback refers to until the test ends.
    handlers, root.handlers = root.handlers, [log]
    hook, sys.unraisablehook = sys.unraisablehook, lambda raised: odd.append(f"unraisable: {raised.exc_value!r}")
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            yield log
            gc.collect()
        odd += [str(each.message) for each in caught]
    finally:
        sys.unraisablehook = hook
        root.handlers = handlers


def run(program: Program, armed: Any, *, metered: bool = True) -> Ended:
    odd: list[str] = []
    notes.clear()
    with _all_is_heard(odd) as log:
        try:
            result, more = program(armed, metered)
            odd += more
        except Exception as error:
            result = traceback.format_exception(error)
    others = [record for record in log.records if not record.name.startswith("openrtc.")]
    odd += [record.getMessage() for record in others if record.levelno >= logging.WARNING]
    return Ended(result, odd, [record for record in log.records if record not in others])


def reached_by(program: Program) -> list[Any]:
    """Return the functions of core that core calls on the program's thread."""
    armed = faults.Faults()
    codes: set[CodeType] = set()
    with armed.trace(codes):
        ended = run(program, armed)
    assert ended.odd == []
    reached: list[Any] = faults.located(codes)
    return reached


def is_logged(fault: BaseException, records: list[logging.LogRecord]) -> bool:
    """Return whether a record has the fault's traceback, or that of a consequence."""
    for record in records:
        error = record.exc_info[1] if record.exc_info else None
        while error is not None:
            if error is fault:
                return True
            error = error.__cause__ or error.__context__
    return False


def noticed(ended: Ended, plain: Ended, fired: list[BaseException], *, logged: bool) -> str | None:
    """Return what was noticed of the fault, or is not logged. None: all is well."""
    if ended.result != plain.result:
        return f"it ended otherwise: {_shortened(ended.result)}"
    if ended.odd:
        return f"heard elsewhere: {ended.odd[0]}"
    if logged and not any(is_logged(fault, ended.records) for fault in fired):
        return f"not logged with its traceback; notes: {notes}"
    return None


def _shortened(result: Any) -> str:
    """Return the last line of a traceback that names an error, else the result."""
    if isinstance(result, list) and result and isinstance(result[-1], str):
        lines = [line.strip(" |+-\n") for part in result for line in part.splitlines()]
        return [line for line in lines if "Error: " in line][-1]
    return repr(result)


# --- the facts -----------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def cheap_collections() -> Iterator[None]:
    """Have collections visit what the program has made, not the objects of all tests."""
    with _all_is_heard([]):  # faults of programs that failed are reported by then
        gc.freeze()
        yield


def _named(name: str) -> Program:
    if name == "uvloop":
        pytest.importorskip("uvloop")
    return PROGRAMS[name]


PARTS = 4
"""Tests of a program, each with some of the functions, so that none comes near pytest's time limit."""


@pytest.mark.slow
@pytest.mark.parametrize("part", range(PARTS))
@pytest.mark.parametrize(("name", "error"), CASES, ids=lambda each: each if isinstance(each, str) else each.__name__)
def test_no_session_notices_a_fault_of_ours(name: str, error: type[Exception], part: int) -> None:
    """Results, errors and scopes are those without us, whatever function raises."""
    program = _named(name)
    plain = run(program, faults.Faults(), metered=False)
    assert plain.odd == []
    wrong: dict[str, str] = {}
    fired = 0
    for reached in reached_by(program):
        if not reached.places or crc32(reached.name.encode()) % PARTS != part:
            continue
        armed = faults.Faults()
        with pytest.MonkeyPatch.context() as patch:
            armed.inject(reached, error, patch)
            ended = run(program, armed)
        fired += bool(armed.fired)
        # A full stack and a lack of memory are the host's: nothing is switched off for them.
        logged = bool(armed.fired) and error is RuntimeError and not reached.name.startswith(tuple(CANNOT_BE_LOGGED))
        if (what := noticed(ended, plain, armed.fired, logged=logged)) is not None:
            wrong[reached.name] = what
    assert fired > 10
    assert not wrong, "\n".join([f"{len(wrong)} of {fired}", *(f"{each}: {what}" for each, what in wrong.items())])


@pytest.mark.slow
@pytest.mark.parametrize("name", PROGRAMS)
def test_what_cannot_be_patched_is_known(name: str) -> None:
    """Functions outside of modules and classes are closures. Each kind has a reason."""
    out_of_reach = [reached.name for reached in reached_by(_named(name)) if not reached.places]
    assert [each for each in out_of_reach if not any(part in each for part in CANNOT_BE_PATCHED)] == []
