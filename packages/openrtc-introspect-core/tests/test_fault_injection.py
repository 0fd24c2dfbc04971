"""Every function of ours that a host's thread gets into is made to raise, one at a time: no session notices.

The functions are those that a short program is seen to get into, on each kind of loop and with each way of measuring.
It is then run once for each of them: it ends as it does without us, nobody but our own log hears of the fault, and
that has its traceback. See faults.py for what raises where.
"""

from __future__ import annotations

import asyncio
import gc
import importlib.util
import logging
import sys
import time
import traceback
import warnings
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from functools import partial
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any, NamedTuple

import pytest
import trio
import trio.testing

from openrtc_introspect_core import Introspector
from openrtc_introspect_testing._loop import FakeLoop


def _helper(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


faults = _helper("faults")

BOUND_S = 5.0
"""A program that waits for longer waits for ever."""

Program = Callable[[Any, bool], Any]
"""Takes the faults to arm, and whether it is metered. Returns its result, and what went wrong where nobody sees it."""

CANNOT_BE_PATCHED = {
    "<lambda>": "made where it is used: what it calls is made to raise",
    "<locals>": "a closure, made anew for each loop: what it calls is made to raise",
}
"""By a part of its name: functions that are found nowhere but in what holds them, and why that does no harm."""

CANNOT_BE_TOLD = {
    "_notes.": "what would tell of the fault is what fails",
    "_log.": "what would tell of the fault is what fails",
}
"""By the beginning of its name: functions whose faults need not be logged, but that nobody must notice either."""


class Host:
    """What a program gets: its sessions' scopes, and a way to hold the loop."""

    def __init__(self, introspector: Introspector | None, armed: Any, block: Callable[[float], None]) -> None:
        self._introspector = introspector
        self._faults = armed
        self.block = block

    def session(self, session_id: str) -> AbstractContextManager[Any]:
        """A session's scope. `session()` itself checks what it is given, and raises by contract."""
        if self._introspector is None:
            return nullcontext()
        with self._faults.arm(False):
            return self._introspector.session(session_id, agent_name="a", metadata={"tenant": "acme"})

    def collect(self) -> None:
        """A collection that is long enough to be booked."""

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
    """One session: its tasks, a block, a collection, a call in a thread, a scope inside of its own."""
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
    """A session in a task that was there before the introspector."""
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
        await asyncio.sleep(0.02)  # a heartbeat, where there is one
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
        _thin(introspector)
        try:
            with armed.arm():
                task = asyncio.create_task(program())
                await asyncio.wait([task], timeout=BOUND_S)
                if not task.done():  # nor can it be cancelled, as it seems
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
    """Ends what a fault has left waiting, the introspector with it."""
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
        _thin(introspector)
        try:
            with armed.arm():
                return await program()
        finally:
            _end(introspector)

    return trio.run(main, clock=clock), []


def _thin(introspector: Introspector) -> None:
    """Where `thinned` is asked for, one step in three is timed."""
    if introspector.name == "thinned":
        for loop in introspector._loops:
            loop.ledger.thin(3)


def _end(introspector: Introspector) -> None:
    notes.extend(introspector.snapshot().worker.notes)
    introspector.close()


notes: list[str] = []
"""What the last introspector had to note."""


def _uvloop() -> Any:
    import uvloop

    return uvloop.new_event_loop()


def _block_for_real(seconds: float) -> None:
    """What takes no time in virtual time is kept short in real time."""
    time.sleep(seconds / 20)


REAL = {"slow_session_threshold_ms": 2.0}
PROGRAMS: dict[str, Program] = {
    "virtual asyncio": partial(_on_asyncio, FakeLoop, {}),
    "virtual asyncio, one step in three": partial(_on_asyncio, FakeLoop, {"name": "thinned"}),
    "virtual asyncio, traced memory": partial(_on_asyncio, FakeLoop, {"memory": "traced"}),
    "virtual asyncio, not metered": partial(_on_asyncio, FakeLoop, {"cpu": "off"}),
    "asyncio": partial(_on_asyncio, asyncio.SelectorEventLoop, REAL),
    "uvloop": partial(_on_asyncio, _uvloop, REAL),
    "trio": partial(_on_trio, {}),
    "trio, one step in three": partial(_on_trio, {"name": "thinned"}),
}


CASES = [
    *((name, RuntimeError) for name in PROGRAMS),
    *((name, error) for name in ("virtual asyncio", "trio") for error in (MemoryError, RecursionError)),
]

# --- running them --------------------------------------------------------------------------------


class Ended(NamedTuple):
    """How a program has ended."""

    result: Any
    odd: list[str]
    """What someone else than our own log has heard."""
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
    gc.collect()  # what a program before this one has left behind is not this one's
    log = _Log()
    logging.getLogger().addHandler(log)
    hook, sys.unraisablehook = sys.unraisablehook, lambda raised: odd.append(f"unraisable: {raised.exc_value!r}")
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            yield log
            gc.collect()
        odd += [str(each.message) for each in caught]
    finally:
        sys.unraisablehook = hook
        logging.getLogger().removeHandler(log)


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
    """The functions of core that core calls on the program's thread."""
    armed = faults.Faults()
    codes: set[CodeType] = set()
    with armed.trace(codes):
        ended = run(program, armed)
    assert ended.odd == []
    reached: list[Any] = faults.located(codes)
    return reached


def is_told(fault: BaseException, records: list[logging.LogRecord]) -> bool:
    """Whether a record has its traceback, or that of what came of it."""
    for record in records:
        error = record.exc_info[1] if record.exc_info else None
        while error is not None:
            if error is fault:
                return True
            error = error.__cause__ or error.__context__
    return False


def noticed(ended: Ended, plain: Ended, fired: list[BaseException], *, told: bool) -> str | None:
    """What was noticed of the fault, or was not told of it. None: all is well."""
    if ended.result != plain.result:
        return f"it ended otherwise: {_shortened(ended.result)}"
    if ended.odd:
        return f"heard elsewhere: {ended.odd[0]}"
    if told and not any(is_told(fault, ended.records) for fault in fired):
        return f"not logged with its traceback; notes: {notes}"
    return None


def _shortened(result: Any) -> str:
    """The last line of a traceback that says anything; else what was returned."""
    if isinstance(result, list) and result and isinstance(result[-1], str):
        lines = [line.strip(" |+-\n") for part in result for line in part.splitlines()]
        return [line for line in lines if "Error: " in line][-1]
    return repr(result)


# --- the facts -----------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def cheap_collections() -> Iterator[None]:
    """The collections of a program look at what it has made, and not at all of the tests."""
    with _all_is_heard([]):  # what programs that failed have left behind is heard of by then
        gc.freeze()
        yield
        gc.unfreeze()


def _named(name: str) -> Program:
    if name == "uvloop":
        pytest.importorskip("uvloop")
    return PROGRAMS[name]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "error"), CASES, ids=lambda each: each if isinstance(each, str) else each.__name__)
def test_no_session_notices_a_fault_of_ours(name: str, error: type[Exception]) -> None:
    """Whatever function raises, for the rest of the program: results, errors and scopes are the same as without us."""
    program = _named(name)
    plain = run(program, faults.Faults(), metered=False)
    assert plain.odd == []
    wrong: dict[str, str] = {}
    fired = 0
    for reached in reached_by(program):
        if not reached.places:
            continue
        armed = faults.Faults()
        with pytest.MonkeyPatch.context() as patch:
            armed.inject(reached, error, patch)
            ended = run(program, armed)
        fired += bool(armed.fired)
        # A stack that is full and memory that is used up are the host's: for them alone nothing is switched off.
        told = bool(armed.fired) and error is RuntimeError and not reached.name.startswith(tuple(CANNOT_BE_TOLD))
        if (what := noticed(ended, plain, armed.fired, told=told)) is not None:
            wrong[reached.name] = what
    assert fired > 10
    assert not wrong, "\n".join([f"{len(wrong)} of {fired}", *(f"{each}: {what}" for each, what in wrong.items())])


@pytest.mark.slow
@pytest.mark.parametrize("name", PROGRAMS)
def test_what_cannot_be_patched_is_known(name: str) -> None:
    """Functions that are no module's and no class's are closures: each kind has its reason here."""
    out_of_reach = [reached.name for reached in reached_by(_named(name)) if not reached.places]
    assert [each for each in out_of_reach if not any(part in each for part in CANNOT_BE_PATCHED)] == []
