"""The step meter: a task's coroutine driven between two clock reads.

A task calls `send` and `throw` of what it was given as its coroutine. It is given a
`MeteredCoroutine`, whose `send` and `throw` are those of a generator that hands each call on to
the user's coroutine and books the time in between. Everything else is the user's coroutine's
own: its name, frame, state, await chain, so that `repr(task)`, `task.print_stack()`, anyio's look
at whether a task has begun and asyncio's call graph see what they would see without us.

Three things keep a task's semantics exact:
- The generator is started when it is made and waits at its first `yield`, so a task cancelled
  before its first step throws into the user's coroutine, which is then closed like any other.
- `StopIteration` and exceptions pass through with our own frame taken off the traceback: a bare
  `raise` adds none for the frame it is in, so removing the entry made on catching is enough.
- `throw` is called outside of any `except`, so that the user's code sees no exception being handled.

An object with `send` as an instance attribute costs a task about 30 ns a step more than an `async
def` shell around the generator would, and pays for it by being see-through.

Where the one in C is installed (see _fields.py), it does the same without the generator: `Metered`
is whichever of the two is in use.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Coroutine, Generator
from types import CoroutineType
from typing import Any
from weakref import WeakKeyDictionary

from ._fields import COMPILED
from ._interrupts import is_interrupt
from ._ledger import NOTABLE_S, Ledger
from ._sessions import Account

Steps = Generator[Any, Any, Any]


def drive(coro: Coroutine[Any, Any, Any], ledger: Ledger, tag: Account) -> Steps:
    """Runs `coro`, charging each step to the session bound at its start. `tag` is the account of the
    one that the task was created for: it counts one live task until this generator ends, however it
    ends. A step looks its account up only where the session is not the one of the step before.

    The body is one function, and writes the ledger's begin() and end() out, because it is the one
    path that every step of every task takes: a call costs more than all the rest of it.

    Only `send` and `throw` run unguarded. What else raises is a fault of ours, which the ledger takes,
    or an interrupt of the user's that came while our code ran: the coroutine gets it where it waits.
    """
    send = coro.send
    clock = ledger.clock
    session, holder = tag.session, tag
    get = ledger.get
    notable = NOTABLE_S
    left_out = ledger.left_out
    thrown: BaseException | None = None
    value: Any = None
    tag.tasks += 1  # here: an interrupt, or a stack that is full, may keep this generator from beginning
    outside: Account | None = None
    try:
        try:
            value = yield
        except GeneratorExit:
            # Dropped before its first step: the coroutine's own finalizer warns, as without us.
            raise
        except BaseException as error:
            thrown = error.with_traceback(error.__traceback__.tb_next)  # type: ignore[union-attr]
        while True:
            try:
                outside = ledger.running
                if ledger.special and (outside is left_out or (ledger.gap and outside is None)):
                    start = None
                    if outside is None:
                        ledger.gap -= 1
                        ledger.running = left_out
                else:
                    if ledger.special:
                        ledger.begin_special(outside)
                    start = clock()
                    if outside is not None:
                        outside = ledger.interrupt(outside, start)
                    bound = get(None)
                    if bound is not session:
                        session, holder = bound, ledger.account_of(bound)
                    ledger.running = holder
                    ledger.since = start
            except BaseException as error:
                if is_interrupt(error):  # of the host's, which came while our code ran
                    start, thrown = None, error.with_traceback(error.__traceback__.tb_next)  # type: ignore[union-attr]
                else:
                    outside, start = ledger.begin_failed(error)
            try:
                if thrown is None:
                    item = send(value)
                else:
                    raising, thrown = thrown, None
                    try:
                        item = coro.throw(raising)
                    finally:
                        del raising  # it may come out again, with this frame in its traceback: a cycle
            except StopIteration as stop:
                try:
                    ledger.end(outside, start, holder)
                except Exception as error:
                    if is_interrupt(error):
                        raise
                    ledger.end_failed(error, holder, outside, holder)
                return stop.value
            except BaseException as error:
                try:
                    ledger.end(outside, start, holder)
                except Exception as fault:
                    ledger.end_failed(fault, holder, outside, holder)
                error.__traceback__ = error.__traceback__.tb_next  # type: ignore[union-attr]  # as everywhere here
                raise
            try:
                if start is None:
                    ledger.running = outside
                else:
                    running: Any = ledger.running  # its holder, or who took over from it
                    end = clock()
                    since = ledger.since
                    running.busy += end - since
                    running.steps += 1
                    if ledger.special:
                        ledger.end_special(running, end - since)
                    ledger.running = outside
                    ledger.since = end
                    if end - start > notable:
                        ledger.note(running, outside, start, since, end)
            except BaseException as error:
                if is_interrupt(error):  # the coroutine gets it where it waits now
                    ledger.running = outside
                    thrown, value = error.with_traceback(error.__traceback__.tb_next), None  # type: ignore[union-attr]
                    continue
                ledger.end_failed(error, running, outside, holder)
            try:
                value = yield item
            except BaseException as error:
                if type(error) is GeneratorExit and is_out_of_reach(coro):
                    raise
                thrown = error.with_traceback(error.__traceback__.tb_next)  # type: ignore[union-attr]
            item = None  # the future awaited lives no longer than it would without us
    finally:
        tag.tasks -= 1


def is_out_of_reach(coro: Any) -> bool:
    """Whether the collector has closed the user's coroutine before us, or is at it: then it takes no exception."""
    return getattr(coro, "cr_frame", coro) is None or getattr(coro, "cr_running", False)


class MeteredCoroutine:
    """What a task drives in place of the user's coroutine, and otherwise looks like it."""

    __slots__ = ("__weakref__", "coro", "send", "tag", "throw")

    send: Callable[[Any], Any]
    throw: Callable[..., Any]

    def __init__(self, coro: Coroutine[Any, Any, Any], ledger: Ledger, tag: Account) -> None:
        steps = drive(coro, ledger, tag)
        steps.send(None)
        self.coro = coro
        self.tag = tag
        self.send = steps.send
        self.throw = steps.throw

    def close(self) -> None:
        self.__await__().close()
        self.coro.close()  # where it has not begun, the generator leaves it as it is

    # What `isinstance` and `inspect.iscoroutine` ask.
    @property  # type: ignore[misc]
    def __class__(self) -> type:
        return type(self.coro)

    def __await__(self) -> Steps:
        steps: Steps = self.send.__self__  # type: ignore[attr-defined]
        return steps

    def __getattr__(self, name: str) -> Any:
        return getattr(self.coro, name)

    def __repr__(self) -> str:
        return repr(self.coro)

    def __eq__(self, other: object) -> bool:
        return other is self or other is self.coro

    def __hash__(self) -> int:
        return hash(self.coro)


Metered = COMPILED or MeteredCoroutine
Coroutine.register(Metered)
# By its type's name, too, it is what it stands for: leak checks of test suites ask for that.
Metered.__name__ = Metered.__qualname__ = CoroutineType.__name__
Metered.__module__ = CoroutineType.__module__

_of_other_kinds: WeakKeyDictionary[type, type] = WeakKeyDictionary()


def metered(coro: Any, ledger: Ledger, tag: Account) -> Any:
    """What a task drives in place of `coro`, which may be of any type that asyncio takes for a coroutine."""
    kind = type(coro)
    return (Metered if kind is CoroutineType else _metered_of(kind))(coro, ledger, tag)


def _metered_of(kind: type) -> Any:
    """Metered, under the name of this kind of coroutine."""
    found = _of_other_kinds.get(kind)
    if found is None:
        names = {"__slots__": (), "__module__": kind.__module__, "__qualname__": kind.__qualname__}
        found = _of_other_kinds[kind] = type(kind.__name__, (Metered,), names)
    return found


def is_metered(coro: object) -> bool:
    """Whether a task's coroutine is one of ours. Its `__class__` does not tell."""
    return issubclass(type(coro), Metered)


def drives_metered(coro: Any) -> bool:
    """Whether a task's coroutine is one of ours, or awaits one: a task factory may have put it around ours."""
    while coro is not None and not is_metered(coro) and getattr(coro, "gi_code", None) is not drive.__code__:
        coro = getattr(coro, "cr_await", None)
    return coro is not None


def step_cost(ledger: Ledger, steps: int = 200, rounds: int = 7) -> float:
    """Seconds that metering adds to one step here, the least of a few short runs (~1 ms in all)."""

    class Pause:
        def __await__(self) -> Steps:
            yield

    async def work() -> None:
        for _ in range(steps):
            await Pause()

    clock = ledger.clock

    def timed(coro: Any) -> float:
        began = clock()
        with contextlib.suppress(StopIteration):
            while True:
                coro.send(None)
        return clock() - began

    plain = min(timed(work()) for _ in range(rounds))
    metered = min(timed(Metered(work(), ledger, ledger.untagged)) for _ in range(rounds))
    return max(0.0, metered - plain) / steps
