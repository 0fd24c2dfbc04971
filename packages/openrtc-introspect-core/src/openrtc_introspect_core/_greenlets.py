"""Steps that a greenlet is left in the middle of.

greenback and its like run a task's coroutine in a greenlet of its own, and leave it in mid-step where synchronous code
awaits something: the loop goes on, and a later step of the task comes back into the middle of the first. greenlet tells
of each switch on a thread (`settrace`), so a step is suspended where its greenlet is left, and goes on where that is
entered again.

A switch into a child is a call, as SQLAlchemy's `greenlet_spawn` makes it: whoever holds the loop goes on holding
it. A switch to a parent, or to a greenlet elsewhere, leaves the greenlet; a step that was begun inside of it and is
not over waits there.

The trace function costs each switch of the thread 0.6 µs. It is there from the first moment that greenlet is found
loaded: when the loop is attached, when a scope is entered on it, or when it waits while a step is open.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary, ref

from ._ledger import Ledger, Suspended
from ._sessions import Account


class GreenletSteps:
    """The steps of one loop that wait in greenlets. All of it runs on the loop's thread."""

    def __init__(self, ledger: Ledger, on_fault: Callable[[str, BaseException], None]) -> None:
        self._ledger = ledger
        self._on_fault = on_fault
        self._trace: Trace | None = None
        """None: not traced."""
        self._waiting: WeakKeyDictionary[Any, Suspended] = WeakKeyDictionary()
        """By greenlet: the step that was begun inside of it, and was left."""
        self._outside: dict[Any, Account | None] = {}
        """By greenlet that was entered, until it is left: who held the loop then."""
        self._on = True

    def trace(self) -> None:
        """Follow the switches of this thread, if greenlet is loaded, from now on."""
        greenlet: Any = sys.modules.get("greenlet")
        if self._trace is None and self._on and hasattr(greenlet, "settrace"):
            self._trace = Trace(self, _still_wanted(greenlet.gettrace()))
            greenlet.settrace(self._trace)

    def stop(self) -> None:
        """Follow them no more. From any thread; from the loop's own, the trace function goes as well.

        One that someone has set since stays.
        """
        self._on = False
        greenlet: Any = sys.modules.get("greenlet")
        if self._trace is not None and greenlet.gettrace() is self._trace:
            greenlet.settrace(_still_wanted(self._trace.before))
            self._trace = None

    @property
    def on(self) -> bool:
        """Whether switches are followed."""
        return self._on

    def switched(self, origin: Any, target: Any) -> None:
        """One greenlet of this thread has taken the other's place. Raises no Exception."""
        try:
            if target.parent is origin or _is_above(origin, target):
                self._enter(target)
            else:
                self._leave(origin)
                if not (origin.parent is target or _is_above(target, origin)):
                    self._enter(target)
        except Exception as error:
            self._on = False
            self._on_fault(f"switches of greenlets are not followed any more: {error!r}", error)

    def _leave(self, origin: Any) -> None:
        ledger = self._ledger
        outside = self._outside.pop(origin, ledger.running)  # where nobody saw it entered, nothing was begun inside
        if ledger.running is outside:
            return
        now = ledger.clock()
        suspended = ledger.suspend(now)
        if suspended is not None:
            self._waiting[origin] = suspended
        ledger.running = outside
        ledger.since = now

    def _enter(self, target: Any) -> None:
        ledger = self._ledger
        outside = ledger.running
        suspended = self._waiting.pop(target, None) if self._waiting else None
        if suspended is not None:
            now = ledger.clock()
            if outside is not None:
                outside = ledger.interrupt(outside, now)
            ledger.resume(suspended, now)
        self._outside[target] = outside


class Trace:
    """A thread's trace function: greenlet keeps it while the thread lives, so it keeps nothing of ours alive."""

    __slots__ = ("before", "steps")

    def __init__(self, steps: GreenletSteps, before: Callable[..., Any] | None) -> None:
        self.steps = ref(steps)
        self.before = before
        """The trace function that was there before."""

    def __call__(self, event: str, switch: tuple[Any, Any]) -> None:
        steps = self.steps()
        if steps is not None and steps._on:
            steps.switched(*switch)
        if self.before is not None:
            self.before(event, switch)


def _still_wanted(trace: Callable[..., Any] | None) -> Callable[..., Any] | None:
    """The trace function, or what was there before it where it is ours and over: it could not be taken off then."""
    while isinstance(trace, Trace) and ((steps := trace.steps()) is None or not steps.on):
        trace = trace.before
    return trace


def _is_above(ancestor: Any, descendant: Any) -> bool:
    """Whether `ancestor` is the parent of the greenlet, or a parent's parent."""
    above = descendant.parent
    while above is not None and above is not ancestor:
        above = above.parent
    return above is not None
