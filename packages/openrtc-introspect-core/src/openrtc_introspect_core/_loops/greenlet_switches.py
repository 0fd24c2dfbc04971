"""The switches between greenlets on a loop's thread.

greenlet reports each switch on a thread (`settrace`). So it is known, also to other threads, which greenlet runs: the
thread's stack ends where that greenlet's does, and goes on in its parents.

The trace function costs each switch of the thread 0.6 µs. It is set from the first moment that greenlet is found
loaded: when the loop is attached, when a scope is entered on it, when it waits while a step is open, or once a second.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import FrameType
from typing import Any
from weakref import ref

from .._base.interrupts import is_interrupt
from .greenlet_frames import frames_beyond


class GreenletSwitches:
    """The switches on one loop's thread.

    All but `stop`, `untraced` and `beyond` runs on that thread.
    """

    def __init__(self, on_fault: Callable[[str, BaseException], None]) -> None:
        self._on_fault = on_fault
        self._trace: Trace | None = None
        """None: not traced."""
        self._current: Any = None
        """The greenlet that runs. None: the thread's main one does, or it is not known."""
        self._on = True

    def trace(self) -> None:
        """Follow the switches of this thread, if greenlet is loaded, from now on."""
        greenlet: Any = sys.modules.get("greenlet")
        if self._trace is None and self._on and hasattr(greenlet, "settrace"):
            current = greenlet.getcurrent()
            self._current = current if current.parent is not None else None
            self._trace = Trace(self, _still_wanted(greenlet.gettrace()))
            greenlet.settrace(self._trace)

    def stop(self) -> None:
        """Stop following switches. From any thread.

        On the loop's own thread the trace function is removed as well.

        A trace function that someone has set since stays.
        """
        self._on = False
        self._current = None
        greenlet: Any = sys.modules.get("greenlet")
        if self._trace is not None and greenlet.gettrace() is self._trace:
            greenlet.settrace(_still_wanted(self._trace.before))
            self._trace = None

    @property
    def on(self) -> bool:
        """Whether switches are followed."""
        return self._on

    def untraced(self) -> bool:
        """Return whether greenlet has been loaded since `trace` was called last. From any thread."""
        return self._trace is None and self._on and "greenlet" in sys.modules

    def beyond(self) -> list[FrameType]:
        """Return the frames at which the thread's stack goes on, one after the other, beyond the greenlet that runs.

        Empty: no greenlet runs but the thread's main one, or it is not known. From any thread, with the GIL.
        """
        current = self._current
        return frames_beyond(current) if current is not None else []

    def switched(self, origin: Any, target: Any) -> None:
        """Take note that this thread switched from `origin` to `target`.

        Raise nothing but interrupts. greenlet raises those in `target`, and removes the trace function.
        """
        try:
            parent = target.parent
            self._current = target if parent is not None else None
            self._follow(origin, target, parent)
        except Exception as error:
            self._current = None
            if is_interrupt(error):
                self._trace = None  # `trace` sets it anew
                raise
            self._on = False
            self._on_fault(f"switches of greenlets are not followed any more: {error!r}", error)

    def _follow(self, origin: Any, target: Any, parent: Any) -> None:
        """Do what a switch to `target`, a child of `parent`, is followed for."""


class Trace:
    """A thread's trace function.

    greenlet keeps it while the thread lives, so it refers to its steps weakly.
    """

    __slots__ = ("before", "switches")

    def __init__(self, switches: GreenletSwitches, before: Callable[..., Any] | None) -> None:
        self.switches = ref(switches)
        self.before = before
        """The trace function that was there before."""

    def __call__(self, event: str, switch: tuple[Any, Any]) -> None:
        switches = self.switches()
        if switches is not None and switches._on:
            switches.switched(*switch)
        if self.before is not None:
            self.before(event, switch)


def _still_wanted(trace: Callable[..., Any] | None) -> Callable[..., Any] | None:
    """Return the trace function, or the one before it if it is ours and stopped.

    Ours cannot be removed from another thread than its own.
    """
    while isinstance(trace, Trace) and ((switches := trace.switches()) is None or not switches.on):
        trace = trace.before
    return trace
