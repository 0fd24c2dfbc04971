"""The hook into a Trio run: an Instrument. Loaded only where the host runs on Trio.

Trio calls an instrument around each step of a task and around each wait for events, and a task tells
its context: that is all that exact books need, so nothing is wrapped and no timer runs. An instrument
that raises is removed by Trio; this one never raises: its fault is noted, and it takes itself off.

What Trio does not tell is read from its run loop, as asyncio's queues are: which tasks wait their turn.

Long, because a hook answers all that the rest of the core asks of a run.

A run that is over is freed as without us, while its accounts stay readable: the run, its token and its root
task are referenced weakly, and no task is kept beyond the run.
"""

from __future__ import annotations

import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from contextvars import Context
from types import CodeType, FrameType, SimpleNamespace
from typing import Any

import trio
from trio._core import _run as trio_run
from trio._core._instrumentation import Instruments

from ._errors import StateError
from ._hook import LONG_S, Fault, LoopHook, Stall
from ._ledger import Ledger
from ._sessions import Account, Binding, Session

Task = trio.lowlevel.Task

RUN_LOOP: CodeType = trio_run.unrolled_run.__code__


class TrioHook(LoopHook):
    """Meters one Trio run. Its methods of the names of an Instrument's are called by Trio."""

    kind = "trio"
    ends = frozenset({RUN_LOOP})

    def __init__(
        self,
        token: trio.lowlevel.TrioToken,
        ledger: Ledger,
        *,
        meter: bool,
        on_stall: Stall,
        on_fault: Fault,
    ) -> None:
        if not _runs_in(token):
            raise StateError("this token is of a Trio run in another thread, or of one that is over: attach inside")
        super().__init__(ledger, meter=meter, on_stall=on_stall, on_fault=on_fault)
        self._token = weakref.ref(token)
        root = trio.lowlevel.current_root_task()
        self._root: Callable[[], Task | None] = weakref.ref(root) if root is not None else _none
        runner = getattr(trio_run.GLOBAL_RUN_CONTEXT, "runner", None)
        self._runner: Callable[[], Any] = weakref.ref(runner) if runner is not None else _none
        self.victims = self._tasks_of_run = TasksOfRun(self._runner, ledger.binding)
        self.stepping: Task | None = None
        """The task whose step runs."""
        self._binding = ledger.binding
        self._clock = ledger.clock
        self._began: float | None = None
        """When its step began to be metered; None where it is not."""
        self._tagged: dict[Task, Account] = {}
        """The tasks that are counted, and where."""
        self._stepped = True
        """Whether a task has run in this iteration."""
        self._ready_before: set[Task] = set()
        self._attached = False
        self._over = False

    # --- attaching -------------------------------------------------------------------------------

    def attach(self) -> None:
        self.ledger.idle = 0.0
        self.busy_since = self.ledger.clock()
        self.times_iterations = True
        trio.lowlevel.add_instrument(self)  # type: ignore[arg-type]  # what it asks of one is its methods' names
        self._attached = True
        if trio.lowlevel.in_trio_task():
            self.before_task_step(trio.lowlevel.current_task())

    def detach(self) -> None:
        if not self._attached:
            return
        self._attached = False
        self._on_its_thread(self._remove)

    def _remove(self) -> None:
        with ExitStack() as parts:  # each is let go of, whatever the others raise
            parts.callback(self._forget_tasks)
            if not self._over:
                parts.callback(self._remove_instrument)
            parts.callback(self._end_step)

    def _remove_instrument(self) -> None:
        with suppress(KeyError):
            trio.lowlevel.remove_instrument(self)  # type: ignore[arg-type]

    def _forget_tasks(self) -> None:
        self.stepping = None
        self.after_block = None
        self._tagged.clear()
        self._ready_before.clear()

    def _on_its_thread(self, change: Callable[[], None]) -> None:
        """Does it now, where the run is over or runs here, or else as soon as the run gets to it."""
        token = self._token()
        if token is None:
            self._over = True
        elif not self._over and not self.runs_here():
            try:
                token.run_sync_soon(self._safely, change)
                return
            except Exception:
                # The run has ended, and not always as its token knows: an error of Trio's own closes the
                # socket that wakes the run, and the token is told nothing.
                self._over = True
        change()

    def loses_tasks(self) -> bool:
        return False

    def is_loop(self, loop: Any) -> bool:
        return self._token() is loop

    def runs(self) -> bool:
        return not self._over

    def ended(self) -> bool:
        return self._over or self._token() is None or not self.thread.is_alive()

    def runs_here(self) -> bool:
        token = self._token()
        return threading.get_ident() == self.thread_id and token is not None and _runs_in(token)

    # --- what Trio calls -------------------------------------------------------------------------

    def before_task_step(self, task: Task) -> None:
        try:
            self.stepping = task
            self._stepped = True
            if self.meters:
                ledger = self.ledger
                if ledger.special:
                    if ledger.gap:
                        ledger.gap -= 1
                        ledger.running = ledger.left_out
                        return
                    ledger.begin_special(None)
                session = task.context.get(self._binding)
                ledger.running = ledger.account_of(session) if session is not None else ledger.untagged
                ledger.since = self._began = self._clock()
        except Exception as error:
            self._fail(error)

    def after_task_step(self, task: Task) -> None:
        now = self._clock()
        try:
            self._end_step(now)
            self.stepping = None
        except Exception as error:
            self._fail(error)

    def _end_step(self, now: float | None = None) -> None:
        began, self._began = self._began, None
        if began is not None:
            self.ledger.end(None, began, now=now)
        elif self.ledger.running is self.ledger.left_out:
            self.ledger.running = None

    def task_spawned(self, task: Task) -> None:
        try:
            session = task.context.get(self._binding)
            if session is not None:
                self._tagged[task] = account = self.ledger.account_of(session)
                account.tasks += 1
        except Exception as error:
            self._fail(error)

    def task_exited(self, task: Task) -> None:
        account = self._tagged.pop(task, None)
        if account is not None:
            account.tasks -= 1

    def before_io_wait(self, timeout: float) -> None:
        try:
            ledger = self.ledger
            began = ledger.clock()
            since = self.busy_since
            if since is not None:
                if not self._stepped and self._jumps():
                    ledger.idle += began - since  # type: ignore[operator]  # a float since `attach`
                elif began - since > LONG_S:
                    self._iterated(since, began)
            ledger.steps.clear()
            if self.after_block is not None:
                self._ready_before = self._tasks_of_run.ready_now()
            self.waiting_since = began
            self.busy_since = None
        except Exception as error:
            self._fail(error)

    def after_io_wait(self, timeout: float) -> None:
        try:
            ledger = self.ledger
            began, woke = self.waiting_since, ledger.clock()
            if self.busy_since is None:
                waited = woke - began
                ledger.idle += waited  # type: ignore[operator]  # a float since `attach`
                if waited > ledger.limit and waited - timeout > ledger.limit:
                    self._overslept(began + timeout, woke)
            self.busy_since = woke
            self._stepped = False
            if self.wakes_watchdog:
                self.on_wake()
            if self.after_block is not None:
                ready, self._ready_before = self._ready_before, set()
                self._call_after_block(self._tasks_of_run.ready_now() - ready)
        except Exception as error:
            self._fail(error)

    def after_run(self) -> None:
        """The run is over, maybe by an error of Trio's own, or dropped by its host in the middle."""
        self._over = True
        try:
            self.waiting_since = self.ledger.clock()
            self.busy_since = None
            for account in self._tagged.values():  # of tasks that will never end
                account.tasks -= 1
            self._remove()
        except Exception as error:
            self._fail(error)

    def _jumps(self) -> bool:
        """Whether this run's clock jumps where nothing happens: what passes then was waited for."""
        return bool(getattr(self._runner(), "clock_autojump_threshold", float("inf")) < float("inf"))

    def _fail(self, error: Exception) -> None:
        self._on_fault(f"a Trio run is measured no more: {error!r}", error)
        with suppress(Exception):
            self.detach()

    # --- scopes ----------------------------------------------------------------------------------

    def enter_scope(self, session: Session) -> weakref.ref[Task] | None:
        account = self.ledger.account_of(session)
        if not trio.lowlevel.in_trio_task():
            return None
        account.tasks += 1
        if self.meters:
            self.ledger.switch(account)
        return weakref.ref(trio.lowlevel.current_task())

    def leave_scope(self, session: Session, entered: weakref.ref[Task] | None) -> None:
        if entered is None:
            return
        if not self.runs_here() and not self._over:
            self._on_its_thread(lambda: self.leave_scope(session, entered))
            return
        account = self.ledger.account_of(session)
        account.tasks -= 1
        if self.meters and self.stepping is not None and self.stepping is entered():
            self.ledger.switch(self.ledger.bound())
            self.ledger.left = account

    def adopt_task(self, task: Task, session: Session) -> None:
        self.task_exited(task)
        self._tagged[task] = account = self.ledger.account_of(session)
        account.tasks += 1

    def task_name(self) -> str | None:
        task = self.stepping
        return name_of(task) if task is not None else None

    def running_session(self) -> Session | None:
        task = self.stepping
        return task.context.get(self._binding) if task is not None else None

    def seen_running(self, end: FrameType | None) -> tuple[Session | None, str | None]:
        # Metered steps have their own books: many of them in one iteration are no single task's block.
        task = self.stepping if self._began is None else None
        return (task.context.get(self._binding), name_of(task)) if task is not None else (None, None)

    def root(self) -> Task | None:
        """The task that all others of the run are below. None: the run is over."""
        return self._root()

    def sessions_live(self, some: bool) -> None:
        """Nothing runs only while sessions live."""

    def step_cost(self, books: Ledger) -> float:
        """As Trio calls it: an instrument costs by the way it is called as well."""
        probe = _Stepper(books)
        instruments = Instruments([probe])
        task: Any = SimpleNamespace(context=Context())  # the run's own may be over
        clock = books.clock
        rounds = []
        for _ in range(7):
            began = clock()
            for _ in range(50):
                if "before_task_step" in instruments:
                    instruments.call("before_task_step", task)
                if "after_task_step" in instruments:
                    instruments.call("after_task_step", task)
            rounds.append((clock() - began) / 50)
        return min(rounds)


class _Stepper(trio.abc.Instrument):
    """A hook's two methods for a step, on books of its own."""

    before_task_step = TrioHook.before_task_step
    after_task_step = TrioHook.after_task_step
    _end_step = TrioHook._end_step

    def __init__(self, books: Ledger) -> None:
        self.ledger = books
        self.meters = True
        self._binding = books.binding
        self._clock = books.clock


class TasksOfRun:
    """What one Trio run tells of who waits.

    A task that is scheduled has waited since before the block, or since the block itself scheduled it; the
    tasks in a cancel scope whose deadline is over have waited since then: that is how Trio sleeps. What
    the next look at the sockets schedules has waited for some unknown part of the block.
    """

    def __init__(self, runner: Callable[[], Any], binding: Binding) -> None:
        self._runner = runner
        """A weak reference: None once the run is over."""
        self._binding = binding
        self.known = all(hasattr(runner(), name) for name in ("runq", "deadlines", "clock"))

    def waiting(self, seconds: float) -> dict[Session, float]:
        waits: dict[Session, float] = {}
        for task in (*self.ready_now(), *_rest_of_batch()):
            self._note(waits, task, seconds)
        runner = self._runner()
        if runner is None:
            return waits
        now = runner.clock.current_time()
        for deadline, scope in _overdue(runner.deadlines, now):
            for task in _tasks_in(getattr(scope, "_cancel_status", None)):
                if getattr(task, "_next_send_fn", None) is None and not _running(task):
                    self._note(waits, task, min(seconds, now - deadline))
        return waits

    def ready_now(self) -> set[Task]:
        """The tasks that are scheduled to run."""
        runner = self._runner()
        return set(runner.runq) if self.known and runner is not None else set()

    def ready(self, events: set[Task]) -> set[Session]:
        found: dict[Session, float] = {}
        for task in events:
            self._note(found, task, 0.0)
        return set(found)

    def _note(self, waits: dict[Session, float], task: Task, seconds: float) -> None:
        session = task.context.get(self._binding)
        if session is not None and not session.ended:
            waits[session] = max(seconds, waits.get(session, 0.0))


def _rest_of_batch() -> list[Task]:
    """The tasks that Trio has taken from its queue to run behind the one whose step ends now."""
    frame: FrameType | None = sys._getframe()
    while frame is not None and frame.f_code is not RUN_LOOP:
        frame = frame.f_back
    return list(frame.f_locals.get("batch", ())) if frame is not None else []


def _overdue(deadlines: Any, now: float) -> Iterator[tuple[float, Any]]:
    """(deadline, cancel scope) of each that is over: the root's descendants in Trio's heap, as long as they are."""
    heap = getattr(deadlines, "_heap", ())
    pending = [0]
    while pending:
        index = pending.pop()
        if index < len(heap) and heap[index][0] <= now:
            deadline, _, scope = heap[index]
            if deadline == getattr(scope, "_registered_deadline", None):
                yield deadline, scope
            pending += (2 * index + 1, 2 * index + 2)


def _tasks_in(status: Any) -> Iterator[Task]:
    if status is not None:
        yield from tuple(getattr(status, "_tasks", ()))
        for child in tuple(getattr(status, "_children", ())):
            if not child._scope.shield:
                yield from _tasks_in(child)


def _running(task: Task) -> bool:
    return trio.lowlevel.in_trio_task() and trio.lowlevel.current_task() is task


def _runs_in(token: trio.lowlevel.TrioToken) -> bool:
    return trio.lowlevel.in_trio_run() and trio.lowlevel.current_trio_token() is token


def _none() -> None:
    return None


def name_of(task: Task) -> str:
    """The task's name, as text that can be sent."""
    return task.name.encode("utf-8", "backslashreplace").decode("utf-8")
