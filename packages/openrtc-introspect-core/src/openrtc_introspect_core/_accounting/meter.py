"""The step meter: a task's coroutine driven between two clock reads.

A task calls `send` and `throw` of the object that it was given as its coroutine. This object is a
`MeteredCoroutine`, whose `send` and `throw` are those of a generator that hands each call on to the
user's coroutine and charges the time in between. Everything else (name, frame, state, await chain) is
the user's coroutine's own, so `repr(task)`, `task.print_stack()`, anyio's check whether a task has
begun and asyncio's call graph see what they would see without us.

Three things keep a task's semantics exact:
- The generator is started when it is made, and waits at its first `yield`. So a task cancelled before
  its first step throws into the user's coroutine, which is then closed like any other.
- `StopIteration` and exceptions pass through with our own frame removed from the traceback: a bare
  `raise` adds no entry for the frame it is in, so removing the entry made on catching is enough.
- `throw` is called outside of any `except`, so the user's code sees no exception being handled.

An object with `send` as an instance attribute costs a task about 30 ns a step more than an `async def`
shell around the generator would. For this price, tools see the user's coroutine through it.

If the meter in C is installed (see fields.py), it does the same without the generator. `Metered` is the
one of the two that is in use.
"""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Callable, Coroutine, Generator
from functools import partial
from types import CoroutineType, GeneratorType
from typing import Any
from weakref import WeakKeyDictionary

from .._base.interrupts import is_interrupt
from .account import Account
from .fields import COMPILED
from .ledger import Ledger
from .spans import NOTABLE_S

Steps = Generator[Any, Any, Any]


def drive(coro: Coroutine[Any, Any, Any], ledger: Ledger, tag: Account) -> Steps:
    """Run `coro`, and charge each step to the session that is bound at its start.

    tag: the account of the session that the task was created for. It counts one live task until this
    generator ends, however it ends. A step looks its account up only if its session is not that of the
    step before.

    The body is one function, with the ledger's begin() and end() written out, because every step of
    every task takes this path: a call costs more than all the rest of it.

    Only `send` and `throw` run unguarded. Any other exception is a fault of ours, which the ledger takes,
    or an interrupt of the user's that came while our code ran: the coroutine gets it where it waits.
    """
    send = coro.send
    clock = ledger.clock
    session, holder = tag.session, tag
    get = ledger.get
    notable = NOTABLE_S
    unsampled = ledger.unsampled
    thrown: BaseException | None = None
    value: Any = None
    tag.tasks += 1  # here: an interrupt, or a stack that is full, may keep this generator from beginning
    outside: Account | None = None
    try:
        try:
            value = yield
        except GeneratorExit:
            # The task was dropped before its first step: the coroutine's own finalizer warns, as without us.
            raise
        except BaseException as error:
            thrown = error.with_traceback(error.__traceback__.tb_next)  # type: ignore[union-attr]
        while True:
            try:
                outside = ledger.holder
                if ledger.slow_path and (outside is unsampled or (ledger.steps_until_sample and outside is None)):
                    start = None
                    if outside is None:
                        ledger.steps_until_sample -= 1
                        ledger.holder = unsampled
                else:
                    if ledger.slow_path:
                        ledger.begin_slow_path(outside)
                    start = clock()
                    if outside is not None:
                        outside = ledger.interrupt(outside, start)
                    bound = get(None)
                    if bound is not session:
                        session, holder = bound, ledger.account_of(bound)
                    ledger.holder_since = start  # first: nothing else may be charged to the new holder
                    ledger.holder = holder
            except BaseException as error:
                if is_interrupt(error):  # for the host: it came while our code ran
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
                        del raising  # the error may come out again, with this frame in its traceback: a cycle
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
                    holder.last_step = end = since = ledger.holder_since  # nearly now: other steps are timed
                    ledger.holder = outside
                    if ledger.switched:
                        ledger.end_unsampled()
                else:
                    current: Any = ledger.holder  # the step's holder, or the one that took over from it
                    end = clock()
                    since = ledger.holder_since
                    current.busy += end - since
                    current.last_step = end
                    current.steps += 1
                    if ledger.slow_path:
                        ledger.end_slow_path(current, end - since)
                    ledger.holder_since = end
                    ledger.holder = outside
                    if end - start > notable or outside is not None:
                        ledger.note(current, outside, start, since, end)
            except BaseException as error:
                if is_interrupt(error):  # the coroutine gets it where it waits now
                    ledger.holder = outside
                    thrown, value = error.with_traceback(error.__traceback__.tb_next), None  # type: ignore[union-attr]
                    continue
                ledger.end_failed(error, holder if start is None else current, outside, holder)
            try:
                value = yield item
            except BaseException as error:
                if type(error) is GeneratorExit and is_out_of_reach(coro):
                    raise
                thrown = error.with_traceback(error.__traceback__.tb_next)  # type: ignore[union-attr]
            item = None  # the future awaited lives no longer than it would without us
    finally:
        tag.tasks -= 1


_MIN_READINGS = 3
"""The numbers of seconds among the variables of `drive` after a step, at least."""


def is_out_of_reach(coro: Any) -> bool:
    """Return whether the collector has closed the user's coroutine, or is closing it.

    Then it takes no exception.
    """
    return getattr(coro, "cr_frame", coro) is None or getattr(coro, "cr_running", False)


def _call(name: str, coro: Any, *arguments: Any) -> Any:
    """Call a method of a coroutine as it is by now. This frame is in no traceback."""
    try:
        return getattr(coro, name)(*arguments)
    except BaseException as error:
        error.__traceback__ = error.__traceback__.tb_next  # type: ignore[union-attr]
        raise


class MeteredCoroutine:
    """A stand-in for the user's coroutine, which a task drives and tools see through."""

    __slots__ = ("__weakref__", "coro", "send", "tag", "throw", "unset_1", "unset_2", "unset_3", "unset_4")
    # Python 3.14's `python -m asyncio ps` reads this from outside the process as if it was a coroutine of Python's own.
    # Where that has its state and the code of its frame, the last two words are never set: so the tool shows the task
    # without a stack. The other two keep them at that distance.

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
        self.coro.close()  # if the coroutine has not begun, the generator leaves it as it is

    def unmeter(self) -> None:
        """Hand each call on from now on, and count no task: another one around this is metered in its place.

        Only before the first step.
        """
        self.__await__().close()  # the generator, which leaves a coroutine that has not begun as it is
        self.send = partial(_call, "send", self.coro)  # `coro` may be metered, too, and be told the same
        self.throw = partial(_call, "throw", self.coro)

    @property
    def stepped_at(self) -> float | None:
        """Return the clock reading at the end of its last step. None: not known, or none has ended.

        From any thread, while it is suspended.
        """
        # Read among the generator's variables, so that a step stores nothing more: the bound that every generator has,
        # the readings at the step's end and at the last switch before it, and that at its beginning if it was timed.
        # The generator's frame would live as long as the task.
        held = gc.get_referents(self.send.__self__)  # type: ignore[attr-defined]
        readings = [each for each in held if type(each) is float]
        return max(readings) if len(readings) >= _MIN_READINGS else None

    # `isinstance` and `inspect.iscoroutine` ask for it.
    @property  # type: ignore[misc]
    def __class__(self) -> type:
        return type(self.coro)

    def __await__(self) -> Steps:
        steps = getattr(self.send, "__self__", None)
        return steps if type(steps) is GeneratorType else self.coro.__await__()

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
# The type has the name of what it stands for: leak checks of test suites compare names.
Metered.__name__ = Metered.__qualname__ = CoroutineType.__name__
Metered.__module__ = CoroutineType.__module__

_of_other_kinds: WeakKeyDictionary[type, type] = WeakKeyDictionary()


def metered(coro: Any, ledger: Ledger, tag: Account) -> Any:
    """Return the object that a task drives in place of `coro`.

    coro: of any type that asyncio takes for a coroutine.
    """
    kind = type(coro)
    return (Metered if kind is CoroutineType else _metered_of(kind))(coro, ledger, tag)


def _metered_of(kind: type) -> Any:
    """Return `Metered` under the name of this kind of coroutine."""
    found = _of_other_kinds.get(kind)
    if found is None:
        names = {"__slots__": (), "__module__": kind.__module__, "__qualname__": kind.__qualname__}
        found = _of_other_kinds[kind] = type(kind.__name__, (Metered,), names)
    return found


def is_metered(coro: object) -> bool:
    """Return whether a task's coroutine is one of ours. Its `__class__` hides it."""
    return issubclass(type(coro), Metered)


def drives_metered(coro: Any) -> bool:
    """Return whether a task's coroutine is one of ours, or awaits one.

    A task factory may have put another coroutine around ours.
    """
    while coro is not None and not is_metered(coro) and getattr(coro, "gi_code", None) is not drive.__code__:
        coro = getattr(coro, "cr_await", None)
    return coro is not None


def step_cost(ledger: Ledger, steps: int = 200, rounds: int = 7) -> float:
    """Return the seconds that metering adds to one step here.

    The least of a few short runs, of about 1 ms in all.
    """

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
