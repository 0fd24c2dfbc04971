"""The hook into an asyncio event loop: asyncio's own, and uvloop.

A module of its own changes each method of the loop while attached, and restores it on detach:

- `create_task`: task_creation.py;
- `run_forever`: heartbeat_iterations.py, which has a heartbeat timer while tasks step, on loops that wait in no
  selector, such as uvloop and Qt's;
- `selector.select`, on loops written in Python: selector_iterations.py;
- `call_soon`, only while a session's scope is open in a task older than the hook, and only on loops that do not show
  their ready queue: adopted_tasks.py.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import ExitStack
from contextvars import Context
from functools import partial
from types import FrameType
from typing import Any
from weakref import WeakKeyDictionary, ref

from .._accounting.account import Account
from .._accounting.ledger import Ledger
from .._accounting.meter import drive, drives_metered, is_metered, step_cost
from .._accounting.suspended_step import SuspendedStep
from .._base.errors import StateError
from .._base.interrupts import is_interrupt
from .._os.stacks import Places
from .._sessions.session import Session
from ..wire._messages import TaskInfo
from .adopted_tasks import AdoptedStep, AdoptedTasks
from .anyio_threads import ANYIO_THREADS
from .asyncio_callbacks import AsyncioCallbacks
from .asyncio_names import context_of, coro_of, kind_of, name_of
from .asyncio_tasks import live_tasks, stepped_at, suspended_task, tasks_of_loop
from .contexts import see_contexts
from .delays import AsyncioDelays
from .greenlets import GreenletSteps
from .heartbeat_iterations import HeartbeatIterations
from .hook import LoopHook, Running
from .iterations import Fault, Iterations, Stall
from .open_steps import HANDLE_RUN, OpenSteps
from .portals import original_of
from .selector_iterations import SelectorIterations, selector_of
from .suspended import SuspendedTask
from .task_creation import TaskCreation
from .task_starts import Note
from .uvloop_callbacks import UvloopCallbacks

ENDS = frozenset(
    {
        drive.__code__,
        AdoptedStep.__call__.__code__,
        HANDLE_RUN,
        HeartbeatIterations.run.__code__,
        asyncio.Runner.run.__code__,
    }
)
"""The code of the frames in which a task's or a callback's own frames end on a loop of asyncio's interface."""


class AsyncioHook(LoopHook):
    """Meters one loop of asyncio's interface."""

    callbacks: AsyncioCallbacks

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        ledger: Ledger,
        *,
        meter: bool,
        on_stall: Stall,
        on_fault: Fault,
        iterations: Iterations | None = None,
    ) -> None:
        if loop.is_closed():
            raise StateError(f"cannot attach to {loop!r}: it is closed; attach to a loop that is open")
        super().__init__(ledger, ENDS, meter=meter, on_fault=on_fault)
        self.loop = loop
        self.kind = kind_of(loop)
        selector = selector_of(loop)
        self.delays = AsyncioDelays(loop, ledger.binding)
        kind = UvloopCallbacks if self.kind == "uvloop" else AsyncioCallbacks
        self.callbacks = kind(loop, ledger)
        self.tags: WeakKeyDictionary[asyncio.Future[Any], Session] = WeakKeyDictionary()
        """The session of each task, if steps are not metered."""
        self._attached = False
        self._adopted = AdoptedTasks(loop, ledger)
        self._creation = TaskCreation(loop, ledger, meter=meter, created=None if meter else self._tag)
        if meter:
            self.greenlets = GreenletSteps(ledger, on_fault)
        self._steps = OpenSteps(loop, ledger, self._adopted, self.greenlets, nests=selector is not None)
        self.iterations: Iterations
        self._observed: HeartbeatIterations | None = None
        """The iterations, unless they are those of a loop that this one runs inside of."""
        if iterations is not None:
            self.iterations = iterations
        elif selector is not None:
            self.iterations = self._observed = SelectorIterations(
                loop,
                selector,
                ledger,
                self._adopted,
                on_hidden=self._hides_iterations,
                on_stall=on_stall,
                on_fault=on_fault,
                parks=meter,
            )
        else:
            self.iterations = self._observed = HeartbeatIterations(
                loop, ledger, on_stall=on_stall, on_fault=on_fault, parks=meter
            )
            self._hides_iterations()
        ledger.on_fault = on_fault

    # --- attaching -------------------------------------------------------------------------------

    def attach(self) -> None:
        self._attached = True
        self._look_for_end()
        self._creation.attach()
        self.greenlets.trace()
        if self._observed is not None:
            self._observed.heartbeat.see_caller = self.ends.see_runner
            self._observed.attach(self._steps, self._creation, self._see_start)
            if not isinstance(self._observed, SelectorIterations):
                see_contexts(self.loop, self.on_one_context)

    def _see_start(self) -> None:
        """Take note that this thread runs the loop from now on, by the method that is replaced."""
        self._see_thread()
        self.ends.see_start()

    def _look_for_end(self) -> None:
        if self.runs_here():
            self.ends.look()

    def _hides_iterations(self) -> None:
        """Take note that the loop waits elsewhere than asyncio's own: what else it has of those is not used either."""
        self._steps.nests = False
        self._adopted.hide_queue()
        self.delays.available = False
        self.callbacks.shows_queue = False
        self.ends.learn(type(self.loop))
        if self._attached:
            self._look_for_end()
            see_contexts(self.loop, self.on_one_context)

    def detach(self) -> None:
        """Restore the loop's methods.

        A method that someone has wrapped since stays, and does nothing more.
        """
        if not self._attached:
            return
        self._attached = False
        with ExitStack() as parts:  # each is restored, whatever the others raise
            parts.callback(self._on_its_thread, self._detach_here)
            parts.callback(self.greenlets.stop)
            parts.callback(self._adopted.clear)
            if self._observed is not None:
                self._observed.detach(parts)
            parts.callback(self._creation.detach)

    def _detach_here(self) -> None:
        self.greenlets.stop()
        if self._observed is not None:
            self._observed.detach_here()

    def loses_tasks(self) -> bool:
        # `_attached` last: another thread may have detached meanwhile, and a method that it restored is no replacement.
        return not self.loop.is_closed() and self._creation.replaced() and self._attached

    def is_loop(self, loop: Any) -> bool:
        return self.loop is loop

    def runs(self) -> bool:
        return self.loop.is_running()

    def runs_here(self) -> bool:
        return asyncio._get_running_loop() is self.loop

    def ended(self) -> bool:
        return self.loop.is_closed() or not (self.thread.is_alive() or self.loop.is_running())

    def _on_its_thread(self, change: Callable[[], None]) -> None:
        """Call `change` on the loop's thread.

        It is called now if this is the thread or the loop does not run, else soon.
        """
        if self.loop.is_closed():
            return
        if threading.get_ident() == self.thread_id or not self.loop.is_running():
            change()
        else:
            try:
                self.loop.call_soon_threadsafe(self._safely, change, context=Context())
            except RuntimeError:
                if not self.loop.is_closed():  # one that was closed meanwhile has nothing to change
                    raise

    # --- tasks -----------------------------------------------------------------------------------

    def _tag(self, task: asyncio.Future[Any], context: Context | None) -> None:
        """Note the session of a new task; if steps are not metered."""
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
            if is_interrupt(error):
                raise
            self._on_fault(f"a task could not be tagged: {error!r}", error)

    # --- scopes ----------------------------------------------------------------------------------

    def enter_scope(self, session: Session, outer: Session | None) -> ref[asyncio.Task[Any]] | None:
        ANYIO_THREADS.replace_if_loaded()  # the host may have loaded anyio since
        account = self.ledger.account_of(session)
        self.greenlets.trace()
        if self.meters:
            self._creation.see_factory()
        task = asyncio.current_task(self.loop)
        if task is None:
            return None
        account.tasks += 1
        if not self.meters:
            self.tags[task] = session
        elif self._runs_others():
            self._adopted.adopt_waiting(task, account)
        elif self.ledger.holder is None:
            self._adopted.adopt(task, account)
        elif self._is_metered(task):
            self._switch(outer, session)
        else:  # a task made by `asyncio.Task` itself begins in the middle of another task's step
            self._adopted.adopt_waiting(task, account)
        return ref(task)  # so that a scope that is never left does not keep its task alive

    def leave_scope(self, session: Session, entered: ref[asyncio.Task[Any]] | None) -> None:
        if entered is None:
            return
        # Not by runs_here(): in a forked child asyncio forgets that its loop runs.
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
            self._switch(session, outer)
            self.ledger.heap.exited_scope = account

    def rebind(self, before: Session | None) -> None:
        task = asyncio.current_task(self.loop)
        if task is None:
            return
        session = self.ledger.binding.get(None)
        if not self.meters:
            if session is None:
                self.tags.pop(task, None)
            else:
                self.tags[task] = session
        elif self.ledger.holder is not None and not self._runs_others() and self._is_metered(task):
            self._switch(before, session)

    def _runs_others(self) -> bool:
        """Return whether what runs is an iteration in the middle of a step: nothing shows where a step in it ends."""
        return type(running := self.ledger.holder) is SuspendedStep and running.runs_others()

    def _is_metered(self, task: asyncio.Task[Any]) -> bool:
        """Return whether the step of the running task is metered, and not one that it has begun in the middle of."""
        coro = task.get_coro()
        return is_metered(coro) or task is self._adopted.stepping or drives_metered(original_of(coro))

    def adopt_task(self, task: asyncio.Task[Any], session: Session) -> None:
        account = self.ledger.account_of(session)
        account.tasks += 1
        if not self.meters:
            self.tags[task] = session
        elif not is_metered(original_of(task.get_coro())):
            self._adopted.adopt_waiting(task, account)
        task.add_done_callback(lambda ended: self._adopted_task_ended(ended, account), context=Context())

    def _adopted_task_ended(self, task: asyncio.Future[Any], account: Account) -> None:
        account.tasks -= 1
        self._adopted.release(task, account, running=False)

    def task_name(self) -> str | None:
        task = asyncio.current_task(self.loop) or self._adopted.stepping
        return name_of(task) if task is not None else None

    def tasks(self, session: Session, places: Places, *, first_id: int) -> list[TaskInfo]:
        return tasks_of_loop(session, self.loop, self, places, first_id=first_id)

    def live_tasks(self) -> list[Callable[[], Any]]:
        return live_tasks(self.loop)

    def stepped_at(self, task: asyncio.Task[Any]) -> float | None:
        return stepped_at(task, self)

    def suspended_task(self, task: asyncio.Task[Any]) -> SuspendedTask | None:
        return suspended_task(task, self.loop, self)

    def note_tasks(self, note: Note | None) -> None:
        self._creation.note(note)

    def running_coroutine(self) -> Any:
        task = asyncio.current_task(self.loop) or self._adopted.stepping
        coro: Any = original_of(coro_of(task)) if task is not None else None
        return coro.coro if is_metered(coro) else coro

    def running_session(self) -> Session | None:
        task = asyncio.current_task(self.loop)
        return self.tags.get(task) if task is not None else None

    def seen_running(self, frame: FrameType | None, end: FrameType | None) -> Running:
        holder, unsampled = self.ledger.holder, self.ledger.unsampled
        if holder is not None and holder is not unsampled and holder is not self.ledger.parked:
            return Running()  # a metered step, which the meter in C has no frame around
        inner = end
        while end is not None and end.f_code is not HANDLE_RUN:  # another introspector meters what runs, or did
            end = end.f_back
        if end is not None and end.f_code is HANDLE_RUN:
            return self.callbacks.running(end.f_locals.get("self"), frame, end)
        if holder is unsampled and (task := asyncio.current_task(self.loop)) is not None:
            return Running(self._session_of(task), name_of(task))
        return self.callbacks.running(None, frame, inner)

    def _session_of(self, task: asyncio.Task[Any]) -> Session | None:
        """Return the session bound in the task. None: none is, or its context cannot be read."""
        context = context_of(task)
        return context.get(self.ledger.binding) if context is not None else None

    def sessions_live(self, some: bool) -> None:
        if self._observed is not None and not self._observed.timed:
            self._on_its_thread(partial(self._observed.sessions_live, some))

    def step_cost(self, ledger: Ledger) -> float:
        return step_cost(ledger)


def _count_down(account: Account, task: object) -> None:
    account.tasks -= 1
