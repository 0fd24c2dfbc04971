"""The first version of the step meter, for comparing its cost with today's.

It charges time to sessions in the same way. It lacks what was added later: memory by session, spans of notable steps,
an account for each loop, the watchdog that sleeps, the budget.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Generator
from contextvars import ContextVar
from time import perf_counter
from typing import Any


class Account:
    __slots__ = ("busy", "steps")

    def __init__(self) -> None:
        self.busy = 0.0
        self.steps = 0


class Ledger:
    __slots__ = ("binding", "clock", "holder", "holder_since", "limit", "untagged")

    def __init__(self) -> None:
        self.binding: ContextVar[Account] = ContextVar("account")
        self.clock = perf_counter
        self.limit = 0.05
        self.untagged = Account()
        self.holder: Account | None = None
        self.holder_since = perf_counter()

    def end(self, outside: Account | None) -> None:
        now = self.clock()
        if self.holder is not None:
            self.holder.busy += now - self.holder_since
            self.holder.steps += 1
        self.holder, self.holder_since = outside, now


def drive(coro: Coroutine[Any, Any, Any], ledger: Ledger) -> Generator[Any, Any, Any]:
    send, clock, get = coro.send, ledger.clock, ledger.binding.get
    untagged, limit = ledger.untagged, ledger.limit
    overruns = 0
    thrown: BaseException | None = None
    value = yield
    while True:
        start = clock()
        outside = ledger.holder
        if outside is not None:
            outside.busy += start - ledger.holder_since
        ledger.holder = get(untagged)
        ledger.holder_since = start
        try:
            if thrown is None:
                item = send(value)
            else:
                raising, thrown = thrown, None
                item = coro.throw(raising)
        except StopIteration as stop:
            ledger.end(outside)
            return stop.value
        except BaseException:
            ledger.end(outside)
            raise
        end = clock()
        holder = ledger.holder
        holder.busy += end - ledger.holder_since
        holder.steps += 1
        if end - start > limit:
            overruns += 1
        ledger.holder = outside
        ledger.holder_since = end
        try:
            value = yield item
        except BaseException as error:
            thrown = error
        item = None


class MeteredCoroutine:
    __slots__ = ("close", "coro", "send", "throw")

    send: Callable[[Any], Any]

    def __init__(self, coro: Coroutine[Any, Any, Any], ledger: Ledger) -> None:
        steps = drive(coro, ledger)
        steps.send(None)
        self.coro = coro
        self.send, self.throw, self.close = steps.send, steps.throw, steps.close

    @property  # type: ignore[misc]
    def __class__(self) -> type:
        return type(self.coro)

    def __await__(self) -> Any:
        return self.send.__self__  # type: ignore[attr-defined]

    def __getattr__(self, name: str) -> Any:
        return getattr(self.coro, name)


Coroutine.register(MeteredCoroutine)
