"""Iterations of loops written in Python, timed exactly and without a timer.

While attached, `selector.select` and `run_forever` are wrapped on the instances: an iteration is between two waits. On
Linux, the meter in C wraps the `poll` of the selector's epoll object in place of `select`: see _native/poll.c.

A loop may have a selector and not wait in it. While that is not known (selector_trial.py), nothing is reported of
iterations; such a loop has a heartbeat.
"""

from __future__ import annotations

import asyncio
import select
import selectors
from collections.abc import Callable
from contextlib import ExitStack
from contextvars import Context
from types import MethodType
from typing import Any, cast

from .._accounting.ledger import Ledger
from .._accounting.suspended_step import SuspendedStep
from .._base.interrupts import is_interrupt
from .._base.replaced_method import Replaced
from .._native import native
from .adopted_tasks import AdoptedTasks
from .heartbeat_iterations import HeartbeatIterations
from .iteration_sample import MAX_FOUND
from .iterations import LONG_S, Fault, Iterations, Stall
from .selector_trial import SelectorTrial, has_asyncio_code, waits_by_own_code


def selector_of(loop: asyncio.AbstractEventLoop) -> Any:
    """Return the selector whose waits can be timed; None: this loop has none."""
    selector = getattr(loop, "_selector", None)
    own = all(hasattr(loop, name) for name in ("__dict__", "_task_factory"))
    return selector if own and hasattr(selector, "select") and hasattr(selector, "__dict__") else None


def _waits_by_epoll(selector: Any) -> bool:
    """Return whether each wait of this selector is one `poll` of an epoll object."""
    kind = getattr(selectors, "EpollSelector", None)
    if kind is None or type(selector) is not kind or type(selector._selector) is not select.epoll:
        return False
    return bool(kind.select.__module__ == selectors.__name__)  # nobody has patched it


def _events_of(mask: int) -> int:
    """Return a selector's mask for one of epoll's, as an EpollSelector makes it: a failure is ready for both."""
    return bool(mask & ~select.EPOLLOUT) * selectors.EVENT_READ | bool(mask & ~select.EPOLLIN) * selectors.EVENT_WRITE


class _TimedEpoll:
    """The timed epoll object of one selector, in effect until `put_back`."""

    def __init__(self, selector: Any, timed: Any) -> None:
        self._selector = selector
        self._timed = timed
        selector._selector = timed

    def put_back(self) -> None:
        """Restore the selector's own, unless someone else has replaced it since."""
        if self._selector._selector is self._timed:
            self._selector._selector = self._timed.epoll


class SelectorIterations(HeartbeatIterations):
    """The iterations of one loop between `attach` and `detach`: timed, or by a heartbeat if its waits do not show them.

    on_hidden: called when it is known that they do not.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        selector: Any,
        ledger: Ledger,
        adopted: AdoptedTasks,
        *,
        on_hidden: Callable[[], None],
        on_stall: Stall,
        on_fault: Fault,
        parks: bool,
    ) -> None:
        super().__init__(loop, ledger, on_stall=on_stall, on_fault=on_fault, parks=parks)
        self._selector = selector
        self._adopted = adopted
        self._on_hidden = on_hidden
        self._trial: SelectorTrial | None = None
        """None: it is known whether waits show iterations."""
        self._trying: Replaced | None = None
        self._hidden = False
        """Whether it is known that they do not."""

    def _begin(self) -> None:
        if self._hidden:
            super()._begin()
            return
        self.ledger.idle = 0.0
        self.busy_since = self.ledger.clock()
        self._trial = SelectorTrial(self._loop)
        if has_asyncio_code(self._loop) or self._trial.runs_here():
            self._show()
            return
        self._trying = Replaced(self._selector, "select", self._trying_select)
        if waits_by_own_code(self._loop):
            return
        # A timer: asyncio's loop runs none without another wait, while a nested iteration may end before a callback.
        try:
            self._loop.call_later(0.0, self._see_trial, context=Context())
        except Exception as error:  # a host has patched it: then only waits show what the loop does
            if is_interrupt(error):
                raise

    def detach(self, parts: ExitStack) -> None:
        parts.callback(self._end_trial)
        super().detach(parts)

    # --- whether waits show iterations -----------------------------------------------------------

    def _trying_select(self, before: Callable[..., Any] | None) -> Callable[..., Any]:
        """Return the `select` to put in place until it is known."""
        below: Any = before or self._selector.select

        def trying_select(selector: Any, timeout: float | None = None) -> Any:
            suspended = None
            try:
                if self._trial is not None:
                    shown = self._trial.see_wait()
                    if shown:
                        self._show()
                        return selector.select(timeout)  # from now on it is timed
                    suspended = self.about_to_wait(self.ledger.clock())
                    if shown is not None:
                        self._hide()
            except Exception as error:
                if self.failed(error):
                    raise
            ready = below(timeout)
            try:
                if suspended is not None:
                    self.ledger.resume(suspended, self.ledger.clock())
                if self._trial is not None:
                    self.busy_since = self.ledger.clock()
            except Exception as error:
                if self.failed(error):
                    raise
            return ready

        return trying_select

    def _see_trial(self) -> None:
        """Take note that the loop has run a timer: without a wait of its selector, it waits elsewhere."""
        try:
            if self._trial is not None and self._trial.waits == 0:
                self._hide()
        except Exception as error:
            if self.failed(error):
                raise

    def _end_trial(self) -> None:
        self._trial, trying, self._trying = None, self._trying, None
        if trying is not None:
            trying.put_back()

    def _show(self) -> None:
        """Time iterations from now on."""
        self._end_trial()
        self.timed = True
        if native is not None and _waits_by_epoll(self._selector):
            self._replaced.append(_TimedEpoll(self._selector, native.Poll(*self._timing(), self._selector._selector)))
            self._steps.depth = 4
        else:
            self._replaced.append(Replaced(self._selector, "select", self._timing_select))
            self._steps.depth = 4 if native is None else 3
        self.on_wake()

    def _hide(self) -> None:
        """Observe the loop by a heartbeat from now on: its iterations cannot be timed."""
        self._end_trial()
        self._hidden = True
        self.ledger.idle = self.busy_since = None
        self._on_hidden()
        self._steps.suspend(self.ledger.clock())
        self._begin()

    # --- from any thread -------------------------------------------------------------------------

    def stuck_since(self, now: float) -> float | None:
        return Iterations.stuck_since(self, now) if self.timed else super().stuck_since(now)

    def sessions_live(self, some: bool) -> None:
        if self._hidden:
            super().sessions_live(some)
        else:
            self._live = some

    # --- the timed wait --------------------------------------------------------------------------

    def _timing(self) -> tuple[Any, ...]:
        """Return what the types in C need to time iterations."""
        ledger = self.ledger
        return self, self._creation, self._loop, self._adopted.tasks, ledger.spans.steps, ledger.limit

    def _timing_select(self, before: Callable[..., Any] | None) -> Callable[..., Any]:
        """Return the `select` to put in place."""
        below: Any = before or self._selector.select
        if native is None:
            return self._timing_select_in_python(below)
        takes_selector = before is None and type(below) is MethodType and below.__self__ is self._selector
        timed: Callable[..., Any] = native.Select(
            *self._timing(), below.__func__ if takes_selector else below, takes_selector
        )
        return timed

    def _timing_select_in_python(self, below: Callable[..., Any]) -> Callable[..., Any]:
        """Return the `select` of the meter in Python. A closure: every iteration pays for it."""
        ledger = self.ledger
        clock, steps, limit = ledger.clock, ledger.spans.steps, ledger.limit
        creation, loop, adopted_tasks = self._creation, cast(Any, self._loop), self._adopted.tasks

        def timed_select(selector: Any, timeout: float | None = None) -> Any:
            suspended = None
            try:
                began = clock()
                since, sample = self.busy_since, self.sample
                if (
                    ledger.holder is None
                    and since is not None
                    and began - since <= LONG_S
                    and not adopted_tasks
                    and sample is None
                    and creation.known_factory is loop._task_factory
                ):
                    if steps:
                        steps.clear()
                    self.waiting_since = began
                    self.busy_since = None
                else:
                    suspended = self.about_to_wait(began)
            except Exception as error:
                if self.failed(error):
                    raise
                return below(timeout)
            try:
                ready = below(timeout)
            finally:
                try:
                    woke = clock()
                    waited = woke - began
                    ledger.idle += waited  # type: ignore[operator]  # a float while iterations are timed
                    self.count += 1
                    ledger.holder_since = self.busy_since = woke
                    if suspended is not None or self.wakes_watchdog or (waited > limit and timeout is not None):
                        self.has_woken(began, woke, timeout, suspended)
                except Exception as error:
                    if self.failed(error):
                        raise
            if self.after_block is not None or sample is not None:
                try:
                    self.take_selected(ready)
                except Exception as error:
                    if self.failed(error):
                        raise
            return ready

        return timed_select

    # What follows is called by C as well.

    def about_to_wait(self, began: float) -> SuspendedStep | None:
        """End an iteration at `began` that is not as usual.

        Return the step that runs it, for `has_woken`; None: no step does.
        """
        sample = self.sample
        if sample is not None and not sample.end_iteration():
            self.sample = None
        suspended = self._steps.suspend(began) if self.ledger.holder is not None else None
        self._creation.see_factory()
        if self._adopted.tasks:
            self._adopted.see_ready()
        since = self.busy_since
        if self.timed and since is not None and began - since > LONG_S:
            self.iterated(since, began)
        self.ledger.spans.steps.clear()
        self.waiting_since = began
        self.busy_since = None
        return suspended

    def has_woken(self, began: float, woke: float, timeout: float | None, suspended: SuspendedStep | None) -> None:
        """Begin an iteration at `woke`, after a wait since `began`, with more to do than usual.

        timeout: seconds; None or, as an epoll object takes it, a negative number: the wait had no limit.
        """
        if suspended is not None:
            self.ledger.resume(suspended, woke)
        if self.wakes_watchdog:
            self.on_wake()
        if timeout is not None and timeout >= 0 and woke - began - timeout > self.ledger.limit < woke - began:
            self.overslept(began + timeout, woke)

    def take_polled(self, found: list[tuple[int, int]]) -> None:
        """Take what an epoll object has found: descriptors and epoll's masks."""
        sample = self.sample
        if sample is not None:
            sample.begin_iteration([(descriptor, _events_of(mask)) for descriptor, mask in found[:MAX_FOUND]])
        if self.after_block is not None:
            keys = self._selector.get_map()
            self.call_after_block([(keys[descriptor], mask) for descriptor, mask in found if descriptor in keys])

    def take_selected(self, found: list[tuple[selectors.SelectorKey, int]]) -> None:
        """Take what a selector has found: keys and the selector's masks."""
        sample = self.sample
        if sample is not None:
            sample.begin_iteration([(key.fd, mask) for key, mask in found[:MAX_FOUND]])
        if self.after_block is not None:
            self.call_after_block(found)

    def failed(self, error: Exception) -> bool:
        """Stop timing iterations after a fault of ours.

        Idle time and lag are not known from now on.

        Return True, and change nothing, if the error is no fault but an interrupt, which the host must get.
        """
        if is_interrupt(error):
            return True
        self.timed = False
        self._end_trial()
        for each in self._replaced:
            each.put_back()
        self._replaced.clear()
        self.busy_since = self.ledger.idle = None
        self._on_fault(f"iterations of the loop are not timed any more: {error!r}", error)
        return False

    def starts(self, now: float) -> None:
        """Count the time until now as idle: the loop was stopped, which was no iteration and no block."""
        if self._hidden:
            super().starts(now)
            return
        ledger = self.ledger
        self._steps.suspend(now)
        since = self.waiting_since if self.busy_since is None else max(self.busy_since, ledger.holder_since)
        ledger.idle += now - since  # type: ignore[operator]  # a float while iterations are timed
        self.busy_since = now
        self._on_start()

    def stopped(self, now: float) -> None:
        """End the last iteration, after which comes no wait.

        The loop idles until it runs again.
        """
        if self._hidden:
            super().stopped(now)
            return
        self._steps.suspend(now)
        if self.timed and self.busy_since is not None and now - self.busy_since > LONG_S:
            self.iterated(self.busy_since, now)
        self.ledger.spans.steps.clear()
        self.waiting_since = now
        self.busy_since = None
