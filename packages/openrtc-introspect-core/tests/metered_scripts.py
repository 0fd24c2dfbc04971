"""Scripts of tasks, played on virtual time with an introspector and without.

A script is JSON: `programs` are lists of operations. The first few programs (`roots`) begin as tasks; the others are
begun by operations of programs before them, so that no script runs for ever. Run as a program, this module reads a
script a line, and answers each with its outcome: the test plays scripts so with the step meter that its own process
does not have.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import gc
import heapq
import json
import logging
import sys
import traceback
import types
import warnings
from collections.abc import AsyncIterator, Callable, Coroutine, Generator, Iterator
from typing import Any

from openrtc_introspect_core import Introspector
from openrtc_introspect_core._accounting.fields import COMPILED
from openrtc_introspect_core._base.errors import StateError
from openrtc_introspect_core._introspector import parts_of
from openrtc_introspect_testing._loops.fake_loop import FakeLoop

try:
    import greenlet
except ImportError:
    greenlet = None  # type: ignore[assignment]

METER = "Python" if COMPILED is None else "C"
MS = 0.001
MAX_TASKS = 16
BOUND_S = 0.05
"""Seconds. Operations that wait for a task wait no longer, so scripts end, whoever waits for whom."""


class Stop(BaseException):
    """An error of the host's own that is no Exception."""


ERRORS: dict[str, Callable[[], BaseException]] = {
    "error": lambda: ValueError("wrong"),
    "group": lambda: ExceptionGroup("several", [ValueError("a"), KeyError("b")]),
    "base": lambda: Stop("now"),
    "base group": lambda: BaseExceptionGroup("several", [Stop("a")]),
    "exit": lambda: GeneratorExit("early"),
    "stop": lambda: StopIteration(7),
    "async stop": lambda: StopAsyncIteration(),
    "cancelled": lambda: asyncio.CancelledError("by itself"),
    "interrupt": lambda: KeyboardInterrupt("^C"),
    "system exit": lambda: SystemExit(3),
}

_bound: contextvars.ContextVar[str] = contextvars.ContextVar("bound", default="untagged")
"""The session that is bound here, by the script's own account."""


class ReentrantLoop(FakeLoop):
    """A FakeLoop whose iterations may run inside of a step, as with nest_asyncio."""

    def _run_once(self) -> None:
        loop: Any = self
        timers = loop._scheduled
        while timers and timers[0]._cancelled:
            loop._timer_cancelled_count -= 1
            heapq.heappop(timers)._scheduled = False
        wait = 0.0 if loop._ready or loop._stopping else max(0.0, timers[0]._when - self.time()) if timers else None
        self._process_events(loop._selector.select(wait))
        until = self.time() + self._clock_resolution
        while timers and timers[0]._when < until:
            timer = heapq.heappop(timers)
            timer._scheduled = False
            loop._ready.append(timer)
        for _ in range(len(loop._ready)):
            if not loop._ready:
                break  # an iteration inside of this one has run the rest
            handle = loop._ready.popleft()
            if not handle._cancelled:
                handle._run()

    def run_nested(self, task: asyncio.Task[Any]) -> None:
        """Run iterations in the step under way until `task` is done."""
        outer = asyncio.current_task(self)
        if outer is not None:
            asyncio.tasks._leave_task(self, outer)
        try:
            while not task.done():
                self._run_once()
        finally:
            if outer is not None:
                asyncio.tasks._enter_task(self, outer)


class Portal(Coroutine[Any, Any, Any]):
    """A coroutine driven in a greenlet, which may be left in mid-step (greenback)."""

    def __init__(self, coro: Coroutine[Any, Any, Any]) -> None:
        self._coro = coro
        self._left: Any = None
        """The greenlet that was left in mid-step. None: the coroutine is between its steps."""

    def send(self, value: Any) -> Any:
        inside = self._left or greenlet.greenlet(self._coro.send)
        return self._run(inside, inside.switch, value)

    def throw(self, *error: Any) -> Any:
        if self._left is not None:
            return self._run(self._left, self._left.throw, *error)
        inside = greenlet.greenlet(self._coro.throw)
        return self._run(inside, inside.switch, *error)

    def _run(self, inside: Any, resume: Callable[..., Any], *given: Any) -> Any:
        inside.parent = greenlet.getcurrent()
        inside.gr_context = inside.parent.gr_context
        try:
            return resume(*given)
        finally:
            self._left = None if inside.dead else inside

    def close(self) -> None:
        self._coro.close()

    def __await__(self) -> Generator[Any, Any, Any]:
        return (yield from self._coro.__await__())


@types.coroutine
def _yield_to_loop() -> Generator[None, None, None]:
    yield


class Scope:
    """A session's scope, which binds its id for the script as well.

    Without an introspector, it does no more.
    """

    def __init__(self, play: Play) -> None:
        self._play = play
        self._id = f"s{play.count('sessions')}"
        self._inner: Any = None

    def __enter__(self) -> None:
        play = self._play
        if play.introspector is not None:
            with contextlib.suppress(StateError):  # it may be closed
                self._inner = play.introspector.session(self._id, agent_name="a")
                play.sessions[self._id] = self._inner.__enter__()
        self._token = _bound.set(self._id)
        play.contexts.append(contextvars.copy_context())

    def __exit__(self, *error: Any) -> None:
        with contextlib.suppress(ValueError):
            _bound.reset(self._token)
        if self._inner is not None:
            self._inner.__exit__(*error)


class Play:
    """One script under way."""

    def __init__(self, script: dict[str, Any], loop: ReentrantLoop, introspector: Introspector | None) -> None:
        self.script = script
        self.loop = loop
        self.introspector = introspector
        self.log: list[Any] = []
        """The events, each with its time in microseconds."""
        self.truth: dict[str, float] = {}
        """Milliseconds for which the loop was held, by bound session."""
        self.sessions: dict[str, Any] = {}
        self.contexts: list[contextvars.Context] = []
        self.tasks: list[asyncio.Task[Any]] = []
        self.slots: dict[int, Any] = {}
        self.events = [asyncio.Event() for _ in range(2)]
        self._counts: dict[str, int] = {}

    def count(self, what: str) -> int:
        self._counts[what] = self._counts.get(what, 0) + 1
        return self._counts[what]

    def record(self, *event: Any) -> None:
        self.log.append([round(self.loop.time() * 1e6), *event])

    # --- the operations --------------------------------------------------------------------------

    async def follow(self, number: int, name: str) -> str:
        """Follow one program."""
        await self._run(self.script["programs"][number], number, name)
        return name

    async def _run(self, ops: list[list[Any]], number: int, me: str) -> None:
        for op, *given in ops:
            self.record(me, op, _name_of_error(sys.exc_info()[1]))
            match op:
                case "hold":
                    self.hold(given[0])
                case "yield":
                    await asyncio.sleep(0)
                case "bare yield":
                    await _yield_to_loop()
                case "sleep":
                    await asyncio.sleep(given[0] * MS)
                case "wait":
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(BOUND_S):
                            await self.events[given[0] % 2].wait()
                case "set":
                    self.events[given[0] % 2].set()
                case "begin":
                    self.begin(number, me, *given)
                case "nest":
                    if (task := self.begin(number, me, given[0], "plain", False)) is not None:
                        self.loop.run_nested(task)
                        self.record(me, "nested", self.outcome(task))
                case "by hand":
                    self.drive_by_hand(number, me, *given)
                case "join":
                    if (other := self.other(given[0])) is not None:
                        await asyncio.wait([other], timeout=BOUND_S)
                case "await":
                    if (other := self.other(given[0])) is not None:
                        await asyncio.wait([other], timeout=BOUND_S)
                        if other.done():
                            self.record(me, "got", await other)
                case "cancel":
                    if self.tasks:
                        self.record(self.tasks[given[0] % len(self.tasks)].cancel(f"by {me}"))
                case "raise":
                    error = ERRORS[given[0]]()
                    raise error
                case "catch":
                    try:
                        await self._run(given[0], number, me)
                    except BaseException as error:
                        self.record(me, "caught", described(error))
                case "finally":
                    try:
                        await self._run(given[0], number, me)
                    finally:
                        await self._run(given[1], number, me)
                case "scope":
                    with Scope(self):
                        await self._run(given[0], number, me)
                case "enter":
                    if given[0] not in self.slots:
                        self.slots[given[0]] = scope = Scope(self)
                        scope.__enter__()
                case "leave":
                    if (scope := self.slots.pop(given[0], None)) is not None:
                        scope.__exit__(None, None, None)
                case "generator":
                    generator = self.in_generator(given[0])
                    next(generator)
                    if given[1] == "keep":
                        self.slots.setdefault(10 + given[0], contextlib.closing(generator))
                    elif given[1] == "close":
                        generator.close()
                    del generator
                case "drop":
                    if (closing := self.slots.pop(10 + given[0], None)) is not None:
                        closing.__exit__(None, None, None)
                case "async generator":
                    stream = self.in_async_generator(given[0])
                    async for _ in stream:
                        break
                    if given[1] == "close":
                        await stream.aclose()  # type: ignore[attr-defined]
                    del stream
                case "collect":
                    self.collect(given[0])
                case "call soon":
                    context = contextvars.copy_context() if given[1] else contextvars.Context()
                    self.loop.call_soon(self.hold_in_callback, given[0], context=context)
                case "switch":
                    await self.switch(given[0])
                case "sample":
                    for loop in parts_of(self.introspector).loops if self.introspector is not None else ():
                        loop.ledger.set_sampling_period(given[0])
                case "detach":
                    if self.introspector is not None:
                        with contextlib.suppress(StateError):
                            self.introspector.detach()
                case "close":
                    if self.introspector is not None:
                        self.introspector.close()
                case _:
                    raise LookupError(op)

    def hold(self, ms: int) -> None:
        self.charge(_bound.get(), ms)
        self.loop.block(ms * MS)

    def hold_in_callback(self, ms: int) -> None:
        self.charge("no step", ms)
        self.loop.block(ms * MS)

    def charge(self, holder: str, ms: int) -> None:
        self.truth[holder] = self.truth.get(holder, 0.0) + ms

    def begin(self, number: int, me: str, program: int, how: str, cancel: bool) -> asyncio.Task[Any] | None:
        """Begin a new task, of a program after `number`, and return it.

        None: there is no such program, or there are too many tasks.
        """
        programs = range(number + 1, len(self.script["programs"]))
        if not programs or len(self.tasks) >= MAX_TASKS:
            return None
        chosen = programs[program % len(programs)]
        name = f"{me}/{self.count('tasks')}"
        given: dict[str, Any] = {}
        if how == "unbound":
            given["context"] = contextvars.Context()
        elif how == "other's" and self.contexts:
            given["context"] = self.contexts[program % len(self.contexts)].copy()
        coro = self.follow(chosen, name)
        # An eager task that leaves its portal's greenlet would leave its maker's step as well, plain or metered.
        eager = how == "eager" and self.script["factory"] != "portal" and sys.version_info >= (3, 12)
        if eager:
            task = asyncio.Task(coro, loop=self.loop, name=name, eager_start=True)
        else:
            task = self.loop.create_task(coro, name=name, **given)
        self.tasks.append(task)
        if cancel:
            task.cancel("at once")
        return task

    def other(self, number: int) -> asyncio.Task[Any] | None:
        """Return a task other than the one that runs."""
        task = self.tasks[number % len(self.tasks)] if self.tasks else None
        return task if task is not asyncio.current_task() else None

    def drive_by_hand(self, number: int, me: str, program: int, steps: int, then: str) -> None:
        """Drive a program's coroutine for so many steps outside of tasks, and end it."""
        programs = range(number + 1, len(self.script["programs"]))
        if not programs:
            return
        coro = self.follow(programs[program % len(programs)], f"{me}/by hand")
        try:
            for _ in range(steps):
                coro.send(None)
            if then == "throw":
                coro.throw(ValueError("by hand"))
        except (StopIteration, ValueError, RuntimeError) as ended:
            self.record(me, "ended by hand", described(ended))
        finally:
            try:
                coro.close()
            except RuntimeError as ignored:  # the coroutine has gone on waiting
                self.record(me, described(ignored))
                with contextlib.suppress(BaseException):
                    while True:
                        coro.throw(Stop("again"))

    def in_generator(self, ms: int) -> Iterator[None]:
        with Scope(self):
            try:
                self.hold(ms)
                yield
                yield
            finally:
                self.hold(ms)

    async def in_async_generator(self, ms: int) -> AsyncIterator[None]:
        with Scope(self):
            try:
                self.hold(ms)
                yield
                yield
            finally:
                self.hold(ms)
                await asyncio.sleep(0)
                self.hold(ms)

    def collect(self, ms: int) -> None:
        """Collect garbage, for so many milliseconds."""

        def take(phase: str, info: dict[str, Any]) -> None:
            if phase == "start":
                self.charge("gc", ms)
                self.loop.block(ms * MS)

        gc.callbacks.append(take)
        try:
            gc.collect()
        finally:
            gc.callbacks.remove(take)

    async def switch(self, ms: int) -> None:
        """Wait: in a portal's greenlet by leaving it, else like any coroutine."""
        here = greenlet.getcurrent() if greenlet is not None else None
        if here is None or here.parent is None:
            await asyncio.sleep(ms * MS)
            return
        future = self.loop.create_future()
        timer = self.loop.call_later(ms * MS, lambda: future.done() or future.set_result(None))
        future._asyncio_future_blocking = True
        try:
            here.parent.switch(future)
        finally:
            timer.cancel()

    # --- from its beginning to its end -----------------------------------------------------------

    async def main(self) -> None:
        older = []
        if self.script["older"]:
            older.append(asyncio.create_task(self._older(), name="older"))
            await asyncio.sleep(0)
        if self.introspector is not None:
            self.introspector.attach()
            (attached,) = parts_of(self.introspector).loops
            self.ledger: Any = attached.ledger
        self.tasks += older
        for number in range(self.script["roots"]):
            name = f"root {number}"
            try:
                self.tasks.append(asyncio.create_task(self.follow(number, name), name=name))
            except (KeyboardInterrupt, SystemExit) as error:  # of an eager task, in its first step
                self.record("out of the task", described(error))
        seen = 0
        while seen < len(self.tasks):
            await asyncio.wait([self.tasks[seen]])
            seen += 1
        await asyncio.create_task(self._leave_what_is_kept())
        await asyncio.sleep(BOUND_S)  # an async generator that was dropped ends in its own task

    async def _older(self) -> str:
        await asyncio.sleep(5 * MS)
        return await self.follow(len(self.script["programs"]) // 2, "older")

    async def _leave_what_is_kept(self) -> None:
        for kept in self.slots.values():
            kept.__exit__(None, None, None)

    def outcome(self, task: asyncio.Task[Any]) -> Any:
        """Return how a task has ended."""
        if task.cancelled():
            try:
                task.result()
            except asyncio.CancelledError as error:
                return ["was cancelled", list(error.args)]
        error = task.exception()
        return ["raised", described(error)] if error is not None else ["returned", task.result()]

    def run(self) -> dict[str, Any]:
        """Run the script, however often an interrupt comes out of the loop."""
        main = self.loop.create_task(self.main(), name="main")
        while not main.done():
            try:
                self.loop.run_until_complete(main)
            except (KeyboardInterrupt, SystemExit) as error:
                self.record("out of the loop", type(error).__name__, list(error.args))
        main.result()
        self.loop.run_until_complete(self.loop.shutdown_asyncgens())
        return {
            "log": self.log,
            "ends": [[task.get_name(), self.outcome(task)] for task in self.tasks],
            "truth": self.truth,
        }

    def accounts(self) -> dict[str, list[Any]]:
        """Return [milliseconds, steps, live tasks, milliseconds at the end of the last step] by holder."""
        holders = {name: session.accounts for name, session in self.sessions.items()}
        holders |= {"untagged": [self.ledger.untagged], "gc": [self.ledger.gc]}
        return {
            name: [
                round(sum(account.busy for account in accounts) / MS, 6),
                sum(account.steps for account in accounts),
                sum(account.tasks for account in accounts),
                round(max((account.last_step for account in accounts), default=0.0) / MS, 6),
            ]
            for name, accounts in holders.items()
        }


def described(error: BaseException | None, depth: int = 2) -> Any:
    """Return an error's type, arguments, traceback, cause and context. None for None."""
    if error is None or depth == 0:
        return None
    return [
        type(error).__name__,
        repr(error.args),
        frames(error),
        described(error.__cause__, depth - 1),
        described(error.__context__, depth - 1),
    ]


def frames(error: BaseException) -> list[str]:
    """Return the traceback as "last part of the file, function", from the step on.

    The entries before the step are the loop's.
    """
    entries = traceback.extract_tb(error.__traceback__)
    found = [f"{entry.filename.rpartition('/')[2]} {entry.name}" for entry in entries]
    begins = [index for index, frame in enumerate(found) if frame in ("events.py _run", "tasks.py factory")]
    return found[begins[-1] + 1 :] if begins else found


def _name_of_error(error: BaseException | None) -> str | None:
    return type(error).__name__ if error is not None else None


def _unnumbered(task_name: str | None) -> str | None:
    """Return a task's name without the number that asyncio gives.

    An eager task has its own name only after its first step, and until then a number, counted through the process.
    """
    return task_name.rstrip("0123456789") if task_name is not None and task_name.startswith("Task-") else task_name


def play(script: dict[str, Any], *, metered: bool) -> dict[str, Any]:
    """Return the outcome of a script: its log, ends of tasks, truth, and accounts.

    The accounts are there if the script was metered.
    """
    loop = ReentrantLoop()
    introspector = (
        Introspector(socket_path=False, stacks=False, budget_pct=0, memory_interval_s=3600.0, clock=loop.clock)
        if metered
        else None
    )
    odd: list[str] = []
    loop.set_exception_handler(lambda _, context: odd.append(context["message"]))
    if script["factory"] == "eager" and sys.version_info >= (3, 12):
        loop.set_task_factory(asyncio.eager_task_factory)
    elif script["factory"] == "portal" and greenlet is not None:
        loop.set_task_factory(lambda loop, coro, **given: asyncio.Task(Portal(coro), loop=loop, **given))
    under_way = Play(script, loop, introspector)
    with _nothing_unseen(odd):
        try:
            began = loop.time()
            outcome = under_way.run()
            if introspector is not None:
                outcome |= {
                    "accounts": under_way.accounts(),
                    "idle": round(under_way.ledger.idle / MS, 6),
                    "elapsed": round((loop.time() - began) / MS, 6),
                    "blocks": [
                        [each.session_id, _unnumbered(each.task_name), each.duration_ms]
                        for each in introspector.blocks()
                    ],
                    "notes": introspector.snapshot().worker.notes,
                }
        finally:
            if introspector is not None:
                introspector.close()
            loop.close()
        del under_way
    return outcome | {"odd": odd}


@contextlib.contextmanager
def _nothing_unseen(odd: list[str]) -> Iterator[None]:
    """Add warnings, and errors that nothing catches, to `odd`.

    Inside, collections run only where the script has them.
    """
    hook, sys.unraisablehook = sys.unraisablehook, lambda raised: odd.append(repr(raised.exc_value))
    gc.disable()
    gc.freeze()  # a collection visits what the script has made, and takes next to no time
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            yield
            gc.collect()
        odd += [str(each.message) for each in caught]
    finally:
        gc.enable()
        sys.unraisablehook = hook


def main() -> None:
    logging.getLogger("openrtc.introspect").setLevel(logging.CRITICAL)
    print(METER, flush=True)
    for line in sys.stdin:
        print(json.dumps(play(json.loads(line), metered=True)), flush=True)


if __name__ == "__main__":
    main()
