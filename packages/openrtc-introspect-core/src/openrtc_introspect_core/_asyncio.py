"""The hook into an asyncio event loop: asyncio's own, and uvloop.

Three places are touched while attached, and given back on detach:
- `create_task`: each task is tagged with its session at creation and, where steps are metered, drives
  a metered coroutine (see _task_creation.py);
- on loops written in Python, `selector.select` and `run_forever` get a wrapper on the instance, so
  that waiting and each iteration are timed exactly and without a timer; on uvloop, which has no
  such place, a heartbeat timer runs while sessions live, and its lateness is what is known;
- `call_soon`, only while a session's scope is open in a task older than the hook, and only on loops
  that do not show their ready queue (see _adopted.py).

Long, because a hook answers all that the rest of the core asks of a loop; how tasks are created, older tasks, greenlets
and the heartbeat have modules of their own.
"""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Callable
from contextlib import ExitStack
from contextvars import Context
from functools import partial
from types import CodeType, FrameType, MethodType
from typing import Any, cast
from weakref import WeakKeyDictionary, ref

from ._adopted import AdoptedStep, AdoptedTasks
from ._errors import StateError
from ._fields import COMPILED
from ._greenlets import GreenletSteps
from ._heartbeat import Heartbeat
from ._hook import LONG_S, Fault, LoopHook, Stall
from ._interrupts import is_interrupt
from ._ledger import Ledger, Suspended
from ._meter import drive, drives_metered, is_metered, step_cost
from ._replaced import Replaced
from ._sessions import Account, Session
from ._task_creation import TaskCreation
from ._victims import QueuesOfLoop

HANDLE_RUN: CodeType = asyncio.Handle._run.__code__


class AsyncioHook(LoopHook):
    """Meters one loop of asyncio's interface."""

    ends = frozenset({drive.__code__, AdoptedStep.__call__.__code__, HANDLE_RUN, asyncio.Runner.run.__code__})

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        ledger: Ledger,
        *,
        meter: bool,
        on_stall: Stall,
        on_fault: Fault,
    ) -> None:
        if loop.is_closed():
            raise StateError(f"cannot attach to {loop!r}: it is closed; attach to a loop that is open")
        super().__init__(ledger, meter=meter, on_stall=on_stall, on_fault=on_fault)
        self.loop = loop
        self.kind = loop_name(loop)
        self.drives_in_c = meter and COMPILED is not None and self.kind == "uvloop"
        self.victims = QueuesOfLoop(loop, ledger.binding)
        self.tags: WeakKeyDictionary[asyncio.Future[Any], Session] = WeakKeyDictionary()
        """Task to session, where steps are not metered."""
        self._adopted = AdoptedTasks(loop, ledger)
        self._attached = False
        self._creation = TaskCreation(loop, ledger, meter=meter, created=None if meter else self._tag)
        self._greenlets = GreenletSteps(ledger, on_fault)
        self._replaced: list[Replaced] = []
        self._selector: Any = None
        self._heartbeat: Heartbeat | None = None
        ledger.on_fault = on_fault

    # --- attaching -------------------------------------------------------------------------------

    def attach(self) -> None:
        self._attached = True
        self._creation.attach()
        if self.meters:
            self._greenlets.trace()
        selector = getattr(self.loop, "_selector", None)
        own = all(hasattr(self.loop, name) for name in ("__dict__", "_task_factory"))
        if own and hasattr(selector, "select") and hasattr(selector, "__dict__"):
            self._time_iterations(selector)
        else:
            self._heartbeat = Heartbeat(
                self.loop, self.ledger, beat=self.beat, on_start=self._wake, on_fault=self._on_fault, parks=self.meters
            )

    def detach(self) -> None:
        """Gives back what was touched; what someone has wrapped since stays, and does nothing more."""
        if not self._attached:
            return
        self._attached = False
        with ExitStack() as parts:  # each is given back, whatever the others raise
            parts.callback(self._on_its_thread, self._detach_here)
            parts.callback(self._greenlets.stop)
            parts.callback(self._adopted.clear)
            for each in self._replaced:
                parts.callback(each.put_back)
            self._replaced.clear()
            parts.callback(self._creation.detach)

    def _detach_here(self) -> None:
        self._greenlets.stop()
        if self._heartbeat is not None:
            self._heartbeat.stop()

    def loses_tasks(self) -> bool:
        # Asked last: another thread may have detached meanwhile, and what it gave back is no replacement.
        return not self.loop.is_closed() and self._creation.replaced() and self._attached

    def is_loop(self, loop: Any) -> bool:
        return self.loop is loop

    def runs(self) -> bool:
        return self.loop.is_running()

    def runs_here(self) -> bool:
        return asyncio._get_running_loop() is self.loop

    def ended(self) -> bool:
        return self.loop.is_closed() or not (self.thread.is_alive() or self.loop.is_running())

    def _on_its_thread(self, change: Callable[[], None] | None) -> None:
        if change is None or self.loop.is_closed():
            return
        if threading.get_ident() == self.thread_id or not self.loop.is_running():
            change()
        else:
            try:
                self.loop.call_soon_threadsafe(self._safely, change, context=Context())
            except RuntimeError:
                if not self.loop.is_closed():  # closed meanwhile, it has nothing left to change
                    raise

    # --- tasks -----------------------------------------------------------------------------------

    def _tag(self, task: asyncio.Future[Any], context: Context | None) -> None:
        try:
            binding = self.ledger.binding
            session = binding.get(None) if context is None else context.get(binding)
            if session is None or not self._attached:
                return
            self.tags[task] = session
            account = self.ledger.account_of(session)
            account.tasks += 1
            task.add_done_callback(partial(_count_down, account), context=Context())
        except Exception as error:
            self._on_fault(f"a task could not be tagged: {error!r}", error)

    # --- scopes ----------------------------------------------------------------------------------

    def enter_scope(self, session: Session) -> ref[asyncio.Task[Any]] | None:
        account = self.ledger.account_of(session)
        if self.meters:
            self._greenlets.trace()
            self._creation.look()
        task = asyncio.current_task(self.loop)
        if task is None:
            return None
        account.tasks += 1
        if not self.meters:
            self.tags[task] = session
        elif type(running := self.ledger.running) is Suspended and running.runs_others():
            self._adopted.adopt_waiting(task, account)  # where its step ends in another's iteration, nothing tells
        elif running is None:
            self._adopted.adopt(task, account)
        elif task is self._adopted.stepping or drives_metered(task.get_coro()):
            self.ledger.switch(account)
        else:  # made by `asyncio.Task` itself, it begins in the middle of another task's step
            self._adopted.adopt_waiting(task, account)
        return ref(task)  # a scope that is never left does not keep its task

    def leave_scope(self, session: Session, entered: ref[asyncio.Task[Any]] | None) -> None:
        if entered is None:
            return
        # Not by runs_here(): asyncio forgets in a forked child that its loop runs.
        if threading.get_ident() != self.thread_id and self.loop.is_running():
            self._on_its_thread(lambda: self.leave_scope(session, entered))
            return
        account = self.ledger.account_of(session)
        account.tasks -= 1
        task = entered()
        if task is None:
            return
        current = self.runs_here() and asyncio.current_task(self.loop) is task
        outer = self.ledger.binding.get(None) if current else None
        if not self.meters:
            if outer is None:
                self.tags.pop(task, None)
            else:
                self.tags[task] = outer
            return
        if not self._adopted.release(task, account, running=current) and current:
            self.ledger.switch(self.ledger.account_of(outer))
            self.ledger.left = account

    def adopt_task(self, task: asyncio.Task[Any], session: Session) -> None:
        account = self.ledger.account_of(session)
        account.tasks += 1
        if not self.meters:
            self.tags[task] = session
        elif not is_metered(task.get_coro()):
            self._adopted.adopt_waiting(task, account)
        task.add_done_callback(lambda ended: self._let_go_of(ended, account), context=Context())

    def _let_go_of(self, task: asyncio.Future[Any], account: Account) -> None:
        account.tasks -= 1
        self._adopted.release(task, account, running=False)

    def task_name(self) -> str | None:
        task = asyncio.current_task(self.loop) or self._adopted.stepping
        return name_of(task) if task is not None else None

    def running_session(self) -> Session | None:
        task = asyncio.current_task(self.loop)
        return self.tags.get(task) if task is not None else None

    def seen_running(self, end: FrameType | None) -> tuple[Session | None, str | None]:
        running, left_out = self.ledger.running, self.ledger.left_out
        if running is None or running is left_out:  # or another introspector has metered it, or has left it metered
            while end is not None and end.f_code is not HANDLE_RUN:
                end = end.f_back
        if end is not None and end.f_code is HANDLE_RUN:
            return self._whose(end.f_locals.get("self"))
        return self._whose(asyncio.current_task(self.loop) if running is left_out else None)

    def _whose(self, seen: Any) -> tuple[Session | None, str | None]:
        """(session, task's name) of a task, or of a loop's handle."""
        if isinstance(seen, asyncio.Task):
            return self._session_of(seen), name_of(seen)
        context = getattr(seen, "_context", None)
        session = context.get(self.ledger.binding) if context is not None else None
        task = getattr(getattr(seen, "_callback", None), "__self__", None)
        return session, name_of(task) if isinstance(task, asyncio.Task) else None

    def _session_of(self, task: asyncio.Task[Any]) -> Session | None:
        """The one that is bound in the task; on Python 3.11, which does not tell, the one that it was created for."""
        if hasattr(task, "get_context"):
            session: Session | None = task.get_context().get(self.ledger.binding)
            return session
        coro: Any = task.get_coro()
        return coro.tag.session if is_metered(coro) else None

    def sessions_live(self, some: bool) -> None:
        if self._heartbeat is not None:
            self._on_its_thread(self._heartbeat.start if some else self._heartbeat.stop)

    def step_cost(self, books: Ledger) -> float:
        return step_cost(books)

    # --- iterations ------------------------------------------------------------------------------

    def _time_iterations(self, selector: Any) -> None:
        self.ledger.idle = 0.0
        self.busy_since = self.ledger.clock()
        self.times_iterations = True
        self._selector = selector
        self._replaced.append(Replaced(selector, "select", self._timing_select))
        self._replaced.append(Replaced(self.loop, "run_forever", self._timing_run_forever))

    def _timing_select(self, before: Callable[..., Any] | None) -> Callable[..., Any]:
        ledger = self.ledger
        clock, steps, limit = ledger.clock, ledger.steps, ledger.limit
        below = before or self._selector.select
        creation, loop, adopted = self._creation, cast(Any, self.loop), self._adopted.tasks

        def select(selector: Any, timeout: float | None = None) -> Any:
            suspended = None
            try:
                began = clock()
                if ledger.running is not None:
                    suspended = self._between_steps(began)
                if creation.known is not loop._task_factory:
                    creation.look()
                if adopted:
                    self._adopted.see_ready()
                since = self.busy_since
                if since is not None and began - since > LONG_S:
                    self._iterated(since, began)
                if steps:
                    steps.clear()
                self.waiting_since = began
                self.busy_since = None
            except Exception as error:
                if self._iterations_failed(error):
                    raise
                return below(timeout)
            try:
                ready = below(timeout)
            finally:
                try:
                    woke = clock()
                    waited = woke - began
                    ledger.idle += waited  # type: ignore[operator]  # a float while iterations are timed
                    ledger.since = self.busy_since = woke
                    if suspended is not None:
                        ledger.resume(suspended, woke)
                    if self.wakes_watchdog:
                        self.on_wake()
                    if waited > limit and timeout is not None and waited - timeout > limit:
                        self._overslept(began + timeout, woke)
                except Exception as error:
                    if self._iterations_failed(error):
                        raise
            if self.after_block is not None:
                try:
                    self._call_after_block(ready)
                except Exception as error:
                    if self._iterations_failed(error):
                        raise
            return ready

        return select

    def _iterations_failed(self, error: Exception) -> bool:
        """Iterations are not timed any more: of idle time and lag nothing is known from now on.

        Returns whether the error is no fault, but an interrupt that is the host's to get: then nothing is changed.
        """
        if is_interrupt(error):
            return True
        self.times_iterations = False
        for each in self._replaced:
            each.put_back()
        self.busy_since = self.ledger.idle = None
        self._on_fault(f"iterations of the loop are not timed any more: {error!r}", error)
        return False

    def _timing_run_forever(self, before: Callable[..., Any] | None) -> Callable[..., Any]:
        def run_forever(loop: Any) -> None:
            run = before or MethodType(type(loop).run_forever, loop)
            if loop.is_running() or not self.times_iterations:  # refused, or nested: the iterations tell
                run()
                return
            try:
                self._starts(self.ledger.clock())
            except Exception as error:
                if self._iterations_failed(error):
                    raise
            try:
                run()
            finally:
                try:
                    self._stopped(self.ledger.clock())
                except Exception as error:
                    if self._iterations_failed(error):
                        raise

        return run_forever

    def _starts(self, now: float) -> None:
        """The loop runs: it was stopped until now, which was no iteration, and blocked nobody."""
        ledger = self.ledger
        since = self.waiting_since if self.busy_since is None else max(self.busy_since, ledger.since)
        ledger.idle += now - since  # type: ignore[operator]  # a float while iterations are timed
        self.busy_since = now
        if self.thread_id != threading.get_ident():
            self._moved_here()

    def _stopped(self, now: float) -> None:
        """The loop runs no more: its last iteration ends without a wait. Until it runs again, it idles."""
        self._between_steps(now)
        if self.busy_since is not None and now - self.busy_since > LONG_S:
            self._iterated(self.busy_since, now)
        self.ledger.steps.clear()
        self.waiting_since = now
        self.busy_since = None

    def beat(self, due: float, now: float) -> None:
        """The heartbeat fired at `now` and was due at `due`."""
        try:
            self._between_steps(now)
            self._creation.look()
            self.long_waits.append((now, max(0.0, now - due)))
            if now - due > self.ledger.limit:
                self._on_stall(due, now)
            self.ledger.steps.clear()
        except Exception as error:
            if is_interrupt(error):
                raise
            self._on_fault(f"a heartbeat could not be booked: {error!r}", error)

    def _between_steps(self, now: float) -> Suspended | None:
        """The loop has come to the end of an iteration. Returns the step that runs the iteration; None: none does.

        Any other step that is open now was left in its middle: by its greenlet, or by an interrupt while our code ran.
        """
        ledger = self.ledger
        if ledger.running is None or ledger.running is ledger.quiet:
            return None
        if self._heartbeat is None and self._runs_in_callback():
            return ledger.suspend(now, run=sys._getframe(3))  # who calls `_run_once`, which calls `select`
        self._adopted.end_steps()
        ledger.suspend(now)
        self._greenlets.trace()
        return None

    def _runs_in_callback(self) -> bool:
        """Whether one of the loop's callbacks is further out on this stack: then this iteration is nested in it."""
        frame: FrameType | None = sys._getframe(1)
        while frame is not None:
            if frame.f_code is HANDLE_RUN and getattr(frame.f_locals.get("self"), "_loop", None) is self.loop:
                return True
            frame = frame.f_back
        return False

    def _wake(self) -> None:
        self.on_wake()

    def stuck_since(self, now: float) -> float | None:
        if self._heartbeat is not None:
            due = self._heartbeat.due
            return due if due is not None and due < now else None
        return super().stuck_since(now)


def name_of(task: asyncio.Task[Any]) -> str:
    """The task's name, as text that can be sent."""
    name = task.get_name()
    if name == "None":  # CPython 3.13.0–3.13.2 calls unnamed tasks so wherever a task factory is set
        name = getattr(task.get_coro(), "__qualname__", name)
    return name.encode("utf-8", "backslashreplace").decode("utf-8")


def loop_name(loop: asyncio.AbstractEventLoop) -> str:
    return "uvloop" if type(loop).__module__.partition(".")[0] == "uvloop" else "asyncio"


def _count_down(account: Account, task: object) -> None:
    account.tasks -= 1
