"""Iterations of loops that do not show them, such as uvloop.

Only the lateness of a heartbeat is known. `run_forever` is wrapped on the loop's instance: a loop that is stopped has
no heartbeat.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import ExitStack
from types import MethodType
from typing import Any, Protocol

from .._accounting.ledger import Ledger
from .._base.interrupts import is_interrupt
from .._base.replaced_method import Replaced
from .heartbeat import Heartbeat
from .iterations import Fault, Iterations, Stall
from .open_steps import OpenSteps
from .task_creation import TaskCreation


class Change(Protocol):
    """A change of the host's objects, in effect until `put_back`."""

    def put_back(self) -> object: ...


class HeartbeatIterations(Iterations):
    """The iterations of one loop, between `attach` and `detach`.

    A heartbeat that parks runs only while tasks step, another one only while sessions live.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, ledger: Ledger, *, on_stall: Stall, on_fault: Fault, parks: bool
    ) -> None:
        super().__init__(ledger, loop.is_running, on_stall, on_fault)
        self._loop = loop
        self.heartbeat = Heartbeat(loop, ledger, beat=self.beat, on_start=self._wake, on_fault=on_fault, parks=parks)
        self._live = False
        """Whether sessions live, as far as it matters to a heartbeat."""
        self._replaced: list[Change] = []
        """Empty: not attached, or observing has failed."""

    def attach(self, steps: OpenSteps, creation: TaskCreation, on_start: Callable[[], None]) -> None:
        """Observe iterations from now on.

        steps: ended by each beat. creation: looks for a new task factory at each. `on_start` is called when the loop
        begins to run.
        """
        self._steps = steps
        self._creation = creation
        self._on_start = on_start
        self._replaced.append(Replaced(self._loop, "run_forever", self._seeing_run_forever))
        self._begin()

    def _begin(self) -> None:
        if self.heartbeat.parks:
            self.heartbeat.start()
        if self._live:
            self.heartbeat.sessions_live(True)

    def detach(self, parts: ExitStack) -> None:
        """Have `parts` restore the methods.

        A method that someone has wrapped since stays, and does nothing more.
        """
        for each in self._replaced:
            parts.callback(each.put_back)
        self._replaced.clear()

    def detach_here(self) -> None:
        """Stop what only the loop's thread may stop."""
        self.heartbeat.stop()

    def sessions_live(self, some: bool) -> None:
        """Take note that the first session has started, or the last one has ended."""
        self._live = some
        self.heartbeat.sessions_live(some)

    def begin_anew(self) -> None:
        """Count from now on: the next beat is due anew."""
        super().begin_anew()
        if self.heartbeat.due is not None:
            self.heartbeat.stop()
            self.heartbeat.start()

    def beat(self, due: float, now: float) -> None:
        """Record a beat that came at `now` and was due at `due`; clock readings."""
        try:
            self._steps.suspend(now)
            self._creation.see_factory()
            self.long_waits.append((now, max(0.0, now - due)))
            if now - due > self.ledger.limit:
                self._on_stall(due, now)
        except Exception as error:
            if is_interrupt(error):
                raise
            self._on_fault(f"a heartbeat could not be recorded: {error!r}", error)

    def stuck_since(self, now: float) -> float | None:
        due = self.heartbeat.due
        return due if due is not None and due < now and self._runs() else None

    def dormant(self) -> bool:
        return self.heartbeat.due is None

    def _wake(self) -> None:
        self.ledger.spans.begin_heartbeat(self.heartbeat.due or 0.0)
        self.on_wake()

    # --- the loop runs, and stops ----------------------------------------------------------------

    def _seeing_run_forever(self, before: Callable[..., Any] | None) -> Callable[..., Any]:
        """Return the `run_forever` to put in place."""

        def run_forever(loop: Any) -> Any:
            run = before or MethodType(type(loop).run_forever, loop)
            try:
                if loop.is_running() or not self._replaced:  # it is refused, or nested: its iterations are seen as ever
                    return run()
                return self.run(run)
            except BaseException as error:
                error.__traceback__ = error.__traceback__.tb_next  # type: ignore[union-attr]  # this frame is not theirs
                raise

        return run_forever

    def run(self, run: Callable[[], Any]) -> Any:
        """Run the loop, by `run`, and observe that it starts and stops."""
        try:
            self.starts(self.ledger.clock())
        except Exception as error:
            if self.failed(error):
                raise
        try:
            return run()
        except BaseException as error:
            error.__traceback__ = error.__traceback__.tb_next  # type: ignore[union-attr]  # this frame is not theirs
            raise
        finally:
            try:
                if self._replaced:
                    self.stopped(self.ledger.clock())
            except Exception as error:
                if self.failed(error):
                    raise

    def starts(self, now: float) -> None:
        """Begin to observe a loop that was stopped until now, which was no block.

        The run in which we attached ends without `stopped`. A step that an interrupt left open in it ends here.
        """
        self._steps.suspend(now)
        self._on_start()
        self.heartbeat.stop()
        self._begin()

    def stopped(self, now: float) -> None:
        """Record what the last beat did not see: the loop does not beat until it runs again."""
        due = self.heartbeat.due
        if due is not None and due < now:
            self.beat(due, now)
        self.heartbeat.stop()

    def failed(self, error: Exception) -> bool:
        """Observe no starts and stops after a fault of ours.

        Return True, and change nothing, if the error is no fault but an interrupt, which the host must get.
        """
        if is_interrupt(error):
            return True
        for each in self._replaced:
            each.put_back()
        self._replaced.clear()
        self._on_fault(f"starts and stops of the loop are not seen any more: {error!r}", error)
        return False
