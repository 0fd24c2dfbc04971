"""Steps whose greenlet is left in their middle.

greenback and similar libraries run a task's coroutine in a greenlet of its own, and leave it in the middle of a step
when synchronous code awaits something. The loop goes on, and a later step of the task returns into the middle of the
first. So a step is suspended when its greenlet is left, and is resumed when its greenlet is entered again.

A switch into a child is a call, as SQLAlchemy's `greenlet_spawn` makes it: the holder of the loop stays the same. A
switch to a parent, or to a greenlet elsewhere, leaves the greenlet; a step that was begun inside of it and is not over
waits there.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary

from .._accounting.account import Account
from .._accounting.ledger import Ledger
from .._accounting.suspended_step import SuspendedStep
from .greenlet_switches import GreenletSwitches


class GreenletSteps(GreenletSwitches):
    """The steps of one loop that wait in greenlets."""

    def __init__(self, ledger: Ledger, on_fault: Callable[[str, BaseException], None]) -> None:
        super().__init__(on_fault)
        self._ledger = ledger
        self._waiting: WeakKeyDictionary[Any, SuspendedStep] = WeakKeyDictionary()
        """By greenlet: the step that was begun inside of the greenlet and left in its middle."""
        self._outside: dict[Any, Account | None] = {}
        """By greenlet, from its entry until it is left: the holder of the loop when it was entered."""

    def _follow(self, origin: Any, target: Any, parent: Any) -> None:
        if parent is origin or _is_above(origin, target):
            self._enter(target)
        else:
            self._leave(origin)
            if not (origin.parent is target or _is_above(target, origin)):
                self._enter(target)

    def _leave(self, origin: Any) -> None:
        ledger = self._ledger
        outside = self._outside.pop(origin, ledger.holder)  # one whose entry was not seen began no step inside
        if ledger.holder is outside:
            return
        now = ledger.clock()
        suspended = ledger.suspend(now)
        if suspended is not None:
            self._waiting[origin] = suspended
        ledger.go_on(outside, now)

    def _enter(self, target: Any) -> None:
        ledger = self._ledger
        outside = ledger.holder
        suspended = self._waiting.pop(target, None) if self._waiting else None
        if suspended is not None:
            now = ledger.clock()
            if outside is not None:
                outside = ledger.interrupt(outside, now)
            ledger.resume(suspended, now)
        self._outside[target] = outside


def _is_above(ancestor: Any, descendant: Any) -> bool:
    """Return whether `ancestor` is a parent, or a parent's parent, of `descendant`."""
    above = descendant.parent
    while above is not None and above is not ancestor:
        above = above.parent
    return above is not None
