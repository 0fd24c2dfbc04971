"""The hook into a Trio run: an Instrument. Loaded only if the host runs on Trio.

Trio calls an instrument around each step of a task and around each wait for events, and a task shows its context.
Exact accounting needs no more, so no task is wrapped and no timer runs. With the meter in C the calls are made directly
(trio_calls.py). Trio removes an instrument that raises. This one never raises: its fault is noted, and the hook
detaches itself.

The tasks that wait for their turn are read from the queues of Trio's run loop, as asyncio's are.

The asyncio loops of trio-asyncio that run inside of the run are metered with it (inner_loops.py).

The module is long because a hook answers all that the rest of the core asks of a run.

A run that is over is freed as without us, while its accounts stay readable: the run, its token and its root
task are referenced weakly, and no task is kept beyond the run.
"""

from __future__ import annotations

import sys
import threading
import weakref
from collections.abc import Callable
from contextlib import ExitStack, suppress
from contextvars import Context
from types import CoroutineType, FrameType, SimpleNamespace
from typing import Any

import trio
from trio._core import _run as trio_run
from trio._core._instrumentation import Instruments

from .._accounting.account import Account
from .._accounting.ledger import Ledger
from .._base.errors import StateError
from .._os.stacks import Places
from .._sessions.session import Session
from ..wire._messages import TaskInfo
from .asyncio_hook import ENDS
from .asyncio_names import is_task, loop_of
from .asyncio_tasks import stepped_at
from .coroutine_kinds import note_begin
from .hook import LoopHook, Running
from .inner_loops import LIBRARY, InnerLoops, base_class
from .iterations import Fault, Iterations, Stall
from .suspended import SuspendedTask
from .task_starts import Note
from .trio_callbacks import TrioCallbacks
from .trio_calls import DirectCalls, direct
from .trio_delays import RUN_LOOP, TrioDelays
from .trio_steps import Task, TrioSteps
from .trio_tasks import all_below, live_tasks, name_of, suspended_task, tasks_of_run


class TrioHook(TrioSteps, LoopHook):
    """Meters one Trio run. Trio calls those of its methods that an Instrument has."""

    kind = "trio"
    delays: TrioDelays

    def __init__(
        self, token: trio.lowlevel.TrioToken, ledger: Ledger, *, meter: bool, on_stall: Stall, on_fault: Fault
    ) -> None:
        if not _runs_in(token):
            raise StateError("this token is of a Trio run in another thread, or of one that is over: attach inside")
        LoopHook.__init__(self, ledger, ENDS | {RUN_LOOP}, meter=meter, on_fault=on_fault)
        iterations = Iterations(ledger, self.runs, on_stall, on_fault)
        self._inner = InnerLoops(ledger, iterations, meter=meter, on_fault=on_fault)
        TrioSteps.__init__(self, ledger, iterations, meter=meter, hosting=self._inner.hosting)
        self._token = weakref.ref(token)
        root = trio.lowlevel.current_root_task()
        self._root: Callable[[], Task | None] = weakref.ref(root) if root is not None else _none
        runner = getattr(trio_run.GLOBAL_RUN_CONTEXT, "runner", None)
        self._runner: Callable[[], Any] = weakref.ref(runner) if runner is not None else _none
        self.delays = TrioDelays(self._runner, ledger.binding, self._inner)
        self.callbacks = TrioCallbacks(self._runner)
        self._binding = ledger.binding
        self._tagged: dict[Task, Account] = {}
        """The tasks of sessions, and the accounts that count them."""
        self._ready_before: set[Task] = set()
        """The tasks that were scheduled before the wait that follows a block."""
        self._direct_calls: DirectCalls | None = None
        self._note: Note | None = None
        self._attached = False
        self._over = False
        """Whether the run is over."""

    # --- attaching -------------------------------------------------------------------------------

    def attach(self) -> None:
        self.ledger.idle = 0.0
        self.iterations.busy_since = self.ledger.clock()
        self.iterations.timed = True
        trio.lowlevel.add_instrument(self)  # type: ignore[arg-type]  # it only needs methods of an Instrument's names
        self._direct_calls = DirectCalls(self._runner(), self)
        self._attached = True
        if base_class() is not None:
            self._inner.find(all_below(self.root()))
        self.greenlets.trace()
        if trio.lowlevel.in_trio_task():
            self.before_task_step(trio.lowlevel.current_task())

    def detach(self) -> None:
        if not self._attached:
            return
        self._attached = False
        self._on_its_thread(self._remove)

    def _remove(self) -> None:
        with ExitStack() as parts:  # each is done, whatever the others raise
            parts.callback(self._inner.detach)
            parts.callback(self._forget_tasks)
            parts.callback(self.greenlets.stop)
            if not self._over:
                parts.callback(self._remove_instrument)
            parts.callback(self.end_step)
            parts.callback(self._put_back_calls)

    def _remove_instrument(self) -> None:
        with suppress(KeyError):
            trio.lowlevel.remove_instrument(self)  # type: ignore[arg-type]

    def _put_back_calls(self) -> None:
        calls, self._direct_calls = self._direct_calls, None
        if calls is not None:
            calls.put_back(self._runner())

    def _forget_tasks(self) -> None:
        self.stepping = None
        self.iterations.after_block = None
        self._tagged.clear()
        self._ready_before.clear()

    def _on_its_thread(self, change: Callable[[], None]) -> None:
        """Call `change` on the run's thread.

        It is called now if the run is over or runs here, else soon.
        """
        token = self._token()
        if token is None:
            self._over = True
        elif not self._over and not self.runs_here():
            try:
                token.run_sync_soon(self._safely, change)
                return
            except Exception:
                # The run has ended, and its token may not know: an internal error of Trio closes the
                # socket that wakes the run without marking the token.
                self._over = True
        change()

    def loses_tasks(self) -> bool:
        return any(inner.loses_tasks() for inner in self._inner)

    def is_loop(self, loop: Any) -> bool:
        return self._token() is loop or self._inner.of(loop) is not None

    def runs(self) -> bool:
        return not self._over

    def ended(self) -> bool:
        return self._over or self._token() is None or not self.thread.is_alive()

    def runs_here(self) -> bool:
        token = self._token()
        return threading.get_ident() == self.thread_id and token is not None and _runs_in(token)

    # --- what Trio calls -------------------------------------------------------------------------

    def task_spawned(self, task: Task) -> None:
        try:
            session = task.context.get(self._binding)
            if session is not None:
                self._tagged[task] = account = self.ledger.account_of(session)
                account.tasks += 1
            if self._note is not None:
                self._note(task, sys._getframe(1))
            if type(task.coro) is not CoroutineType:
                note_begin(task.coro)
            if LIBRARY in sys.modules:
                self._inner.spawned(task)
        except Exception as error:
            self.failed(error)

    def task_exited(self, task: Task) -> None:
        try:
            if self.hosting:
                self._inner.exited(task)
            self._forget_tag(task)
        except Exception as error:
            self.failed(error)

    def _forget_tag(self, task: Task) -> None:
        account = self._tagged.pop(task, None)
        if account is not None:
            account.tasks -= 1

    def end_open_steps(self) -> None:
        self._inner.end_open_steps()

    def about_to_wait(self, began: float) -> None:
        super().about_to_wait(began)
        if self.iterations.after_block is not None:
            self._ready_before = self.delays.ready_now()

    def has_woken(self, woke: float, timeout: float) -> None:
        super().has_woken(woke, timeout)
        if self.iterations.after_block is not None:
            ready, self._ready_before = self._ready_before, set()
            self.iterations.call_after_block(self.delays.ready_now() - ready)

    def after_run(self) -> None:
        """Take note that the run is over.

        It may have ended by an internal error of Trio, or its host may have abandoned it.
        """
        self._over = True
        try:
            self.iterations.waiting_since = self.ledger.clock()
            self.iterations.busy_since = None
            for account in self._tagged.values():  # their tasks will never end
                account.tasks -= 1
            self._remove()
        except Exception as error:
            self.failed(error)

    def jumps(self) -> bool:
        return bool(getattr(self._runner(), "clock_autojump_threshold", float("inf")) < float("inf"))

    def failed(self, error: Exception) -> None:
        """Note a fault of ours, and detach.

        An interrupt is noted as well: the host would not get it, since Trio logs what an instrument raises.
        """
        self._on_fault(f"a Trio run is not measured any more: {error!r}", error)
        with suppress(Exception):
            self.detach()

    # --- scopes ----------------------------------------------------------------------------------

    def enter_scope(self, session: Session, outer: Session | None) -> Any:
        inner = self._inner.here(self.stepping)
        if inner is not None:
            return inner, inner.enter_scope(session, outer)
        account = self.ledger.account_of(session)
        if not trio.lowlevel.in_trio_task():
            return None
        account.tasks += 1
        if self.meters:
            self._switch(outer, session)
        return weakref.ref(trio.lowlevel.current_task())

    def leave_scope(self, session: Session, entered: Any) -> None:
        if entered is None:
            return
        if type(entered) is tuple:
            inner, entered = entered
            inner.leave_scope(session, entered)
            return
        if not self.runs_here() and not self._over:
            self._on_its_thread(lambda: self.leave_scope(session, entered))
            return
        account = self.ledger.account_of(session)
        account.tasks -= 1
        if self.meters and self.stepping is not None and self.stepping is entered():
            self._switch(session, self._binding.get(None))
            self.ledger.heap.exited_scope = account

    def rebind(self, before: Session | None) -> None:
        if (inner := self._inner.here(self.stepping)) is not None:
            inner.rebind(before)
        elif self.meters and self.stepping is not None and trio.lowlevel.in_trio_task():
            self._switch(before, self._binding.get(None))

    def adopt_task(self, task: Any, session: Session) -> None:
        if is_task(task):
            if (inner := self._inner.of(loop_of(task))) is not None:
                inner.adopt_task(task, session)
            return
        self._forget_tag(task)
        self._tagged[task] = account = self.ledger.account_of(session)
        account.tasks += 1

    def task_name(self) -> str | None:
        task = self.stepping
        inner = self._inner.here(task)
        if inner is not None and (name := inner.task_name()) is not None:
            return name
        return name_of(task) if task is not None else None

    def tasks(self, session: Session, places: Places, *, first_id: int) -> list[TaskInfo]:
        tasks = tasks_of_run(session, self, self.root(), self.stepping, places, first_id=first_id)
        for inner in self._inner:
            tasks += inner.tasks(session, places, first_id=first_id + len(tasks))
        return tasks

    def live_tasks(self) -> list[Callable[[], Any]]:
        return [*live_tasks(self.root()), *(living for inner in self._inner for living in inner.live_tasks())]

    def stepped_at(self, task: Any) -> float | None:
        if is_task(task):
            return stepped_at(task, self)
        # A task of Trio's has no place in which a step could leave the time of its end. The session's may be later.
        session = task.context.get(self._binding) if self.meters else None
        return session.last_step if session is not None else None

    def suspended_task(self, task: Any) -> SuspendedTask | None:
        if is_task(task):
            inner = self._inner.of(loop_of(task))
            return inner.suspended_task(task) if inner is not None else None
        return suspended_task(task, self) if task is not self.stepping else None

    def note_tasks(self, note: Note | None) -> None:
        self._note = note
        self._inner.note_tasks(note)

    def running_session(self) -> Session | None:
        task = self.stepping
        if (inner := self._inner.hosting.get(task)) is not None:
            return inner.running_session()
        return task.context.get(self._binding) if task is not None else None

    def seen_running(self, frame: FrameType | None, end: FrameType | None) -> Running:
        if (inner := self._inner.hosting.get(self.stepping)) is not None:
            return inner.seen_running(frame, end)
        # Metered steps have accounts of their own: many of them in one iteration are no block of a single task.
        task = self.stepping if self.began is None else None
        return Running(task.context.get(self._binding), name_of(task)) if task is not None else Running()

    def root(self) -> Task | None:
        """Return the ancestor of all tasks of the run. None: the run is over."""
        return self._root()

    def begin_anew(self) -> None:
        super().begin_anew()
        if self.began is not None:  # the step that attaches is metered
            self.began = self.ledger.holder_since = self.ledger.clock()

    def sessions_live(self, some: bool) -> None:
        """Do nothing: no part of this hook runs only while sessions live."""

    def step_cost(self, ledger: Ledger) -> float:
        return _step_cost(ledger)


def _step_cost(ledger: Ledger) -> float:
    """Return the seconds that metering adds to one step.

    Measured with the calls that Trio makes of an instrument, which cost as well.
    """
    probe = TrioSteps(ledger, Iterations(ledger, lambda: True, _ignore, _ignore), meter=True)
    instruments = direct(Instruments([probe]), probe)  # type: ignore[list-item]
    task: Any = SimpleNamespace(context=Context())  # no real task: the run may be over
    clock = ledger.clock
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


def _runs_in(token: trio.lowlevel.TrioToken) -> bool:
    return trio.lowlevel.in_trio_run() and trio.lowlevel.current_trio_token() is token


def _none() -> None:
    return None


def _ignore(*_: object) -> None:
    pass
