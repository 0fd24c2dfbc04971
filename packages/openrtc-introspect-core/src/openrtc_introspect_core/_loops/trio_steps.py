"""The steps and the iterations of a Trio run, as an instrument of Trio sees them. Loaded only on Trio.

Trio looks an instrument's methods up at each call, and drops an instrument that raises. If the meter in C is installed,
the four methods that Trio calls are in C; what is rare is here for both.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import trio

from .._accounting.ledger import Ledger
from .._accounting.spans import NOTABLE_S
from .._native import native
from .iterations import LONG_S, Iterations

Task = trio.lowlevel.Task


class RareSteps:
    """What is rare in a step or an iteration. Both meters call it."""

    ledger: Ledger
    iterations: Iterations
    meters: bool
    """Whether steps are timed."""
    stepping: Task | None
    """The task whose step runs."""
    began: float | None
    """When metering of this step began; None: the step is not metered."""
    stepped: bool
    """Whether a task has run in this iteration."""
    hosting: dict[Any, Any]
    """The tasks that run the callbacks of a loop inside of this run: what runs in their steps is metered."""

    def end_step(self) -> None:
        """End the step under way, if there is one, for an instrument that is removed."""
        began, self.began = self.began, None
        if began is not None:
            self.ledger.end(None, began)
        elif self.ledger.holder is self.ledger.unsampled:
            self.ledger.holder = None

    def end_open_steps(self) -> None:
        """End what is open at the end of a step that is not metered: a loop inside of this run has left it open."""
        self.ledger.suspend(self.ledger.clock())

    def running_coroutine(self) -> Any:
        """Return the user's coroutine whose step runs. None: no task's does. From any thread."""
        task = self.stepping
        inner = self.hosting.get(task)
        if inner is not None:
            return inner.running_coroutine()
        return task.coro if task is not None else None

    def about_to_wait(self, began: float) -> None:
        """End an iteration at `began` that is not as usual."""
        since = self.iterations.busy_since
        if since is not None:
            if not self.stepped and self.jumps():
                self.ledger.idle += began - since  # type: ignore[operator]  # a float while attached
            elif began - since > LONG_S:
                self.iterations.iterated(since, began)
        self.ledger.spans.steps.clear()
        self.iterations.waiting_since = began
        self.iterations.busy_since = None

    def has_woken(self, woke: float, timeout: float) -> None:
        """Begin an iteration at `woke`, with more to do than usual.

        timeout: seconds that Trio wanted to wait at most.
        """
        ledger, iterations = self.ledger, self.iterations
        began = iterations.waiting_since
        if iterations.busy_since is None:
            waited = woke - began
            ledger.idle += waited  # type: ignore[operator]  # a float while attached
            if waited > ledger.limit and waited - timeout > ledger.limit:
                iterations.overslept(began + timeout, woke)
        iterations.busy_since = woke
        self.stepped = False
        if iterations.wakes_watchdog:
            iterations.on_wake()

    def jumps(self) -> bool:
        """Return whether this run's clock jumps while nothing happens.

        Time that passes then was waited.
        """
        return False

    def failed(self, error: Exception) -> None:
        """Take note of a fault of ours."""
        raise error


class StepsInPython(RareSteps):
    """What Trio calls, if the meter in C is not installed."""

    def _use(self, ledger: Ledger, iterations: Iterations) -> None:
        """Meter into this ledger, and time these iterations."""
        self._ledger = ledger
        self._iterations = iterations
        self._binding = ledger.binding
        self._clock = ledger.clock
        self._accounts = ledger.accounts.by_owner
        self._untagged = ledger.untagged
        self._unsampled = ledger.unsampled
        self._notable = ledger.spans.steps
        self._limit = ledger.limit
        self.began = None

    def before_task_step(self, task: Task) -> None:
        try:
            self.stepping = task
            self.stepped = True
            if self.meters and not (self.hosting and task in self.hosting):
                ledger = self._ledger
                if ledger.slow_path:
                    if ledger.steps_until_sample:
                        ledger.steps_until_sample -= 1
                        ledger.holder = self._unsampled
                        return
                    ledger.begin_slow_path(None)
                session = task.context.get(self._binding)
                if session is None:
                    holder = self._untagged
                else:
                    holder = self._accounts.get(session) or ledger.account_of(session)
                ledger.holder_since = self.began = self._clock()
                ledger.holder = holder
        except Exception as error:
            self.failed(error)

    def after_task_step(self, task: Task) -> None:
        try:
            now = self._clock()
            ledger = self._ledger
            began, self.began = self.began, None
            if began is None:
                if ledger.holder is self._unsampled:
                    ledger.holder = None
                elif ledger.holder is not None:
                    self.end_open_steps()
                if ledger.switched:
                    ledger.end_unsampled()
            elif ledger.slow_path or ledger.holder is None or now - began > NOTABLE_S:
                ledger.end(None, began, None, now)
            else:  # written out: every step comes here
                holder = ledger.holder
                holder.busy += now - ledger.holder_since
                holder.last_step = ledger.holder_since = now
                ledger.holder = None
                holder.steps += 1
            self.stepping = None
        except Exception as error:
            self.failed(error)

    def before_io_wait(self, timeout: float) -> None:
        try:
            began = self._clock()
            iterations = self._iterations
            since = iterations.busy_since
            if self.stepped and since is not None and began - since <= LONG_S and iterations.after_block is None:
                if self._notable:
                    self._notable.clear()
                iterations.waiting_since = began
                iterations.busy_since = None
            else:
                self.about_to_wait(began)
        except Exception as error:
            self.failed(error)

    def after_io_wait(self, timeout: float) -> None:
        try:
            woke = self._clock()
            iterations = self._iterations
            waited = woke - iterations.waiting_since
            iterations.count += 1
            if (
                iterations.busy_since is None
                and waited <= self._limit
                and not iterations.wakes_watchdog
                and iterations.after_block is None
            ):
                self._ledger.idle += waited  # type: ignore[operator]  # a float while attached
                iterations.busy_since = woke
                self.stepped = False
            else:
                self.has_woken(woke, timeout)
        except Exception as error:
            self.failed(error)


if TYPE_CHECKING or native is None:
    Steps = StepsInPython
else:

    class Steps(native.TrioSteps, RareSteps):
        """What Trio calls, in C."""

        def _use(self, ledger: Ledger, iterations: Iterations) -> None:
            accounts, notable = ledger.accounts.by_owner, ledger.spans.steps
            super()._use(ledger, iterations, accounts, notable, ledger.limit, self.hosting)


class TrioSteps(Steps):
    """The instrument: it charges each step to the session that is bound in the task's context at its start."""

    def __init__(
        self, ledger: Ledger, iterations: Iterations, *, meter: bool, hosting: dict[Any, Any] | None = None
    ) -> None:
        self.ledger = ledger
        self.iterations = iterations
        self.meters = meter
        self.hosting = {} if hosting is None else hosting
        self.stepping = None
        self.stepped = True
        self._use(ledger, iterations)
