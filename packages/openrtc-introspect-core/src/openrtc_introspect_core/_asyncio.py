"""The hook into an asyncio event loop: asyncio's own, and uvloop.

Three places are touched while attached, and given back on detach:
- the task factory, chained: each task is tagged with its session at creation and, where steps are
  metered, drives a MeteredCoroutine;
- on loops written in Python, `selector.select` and `run_forever` get a wrapper on the instance, so
  that waiting and each iteration are timed exactly and without a timer; on uvloop, which has no
  such place, a heartbeat timer runs while sessions live, and its lateness is what is known;
- `call_soon`, only while a session's scope is open in a task older than the hook (see _adopted.py).
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Coroutine
from contextvars import Context
from typing import Any
from weakref import WeakKeyDictionary

from ._adopted import AdoptedTasks
from ._errors import StateError
from ._heartbeat import Heartbeat
from ._ledger import Ledger
from ._meter import MeteredCoroutine
from ._sessions import Session

LONG_S = 0.0005
"""Iterations shorter than this are not kept: the lag's resolution."""

Task: Any = asyncio.Task
TaskFactory = Callable[..., Any]
Stall = Callable[[float, float], None]


class AsyncioHook:
    """Meters one loop. Everything but `attach` and `detach` runs on the loop's own thread."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        ledger: Ledger,
        *,
        meter: bool,
        on_stall: Stall,
        on_fault: Callable[[str], None],
    ) -> None:
        if loop.is_closed():
            raise StateError(f"cannot attach to {loop!r}: it is closed; attach to a loop that is open")
        self.loop = loop
        self.ledger = ledger
        self.tags: WeakKeyDictionary[asyncio.Future[Any], Session] = WeakKeyDictionary()
        """Task to session, where steps are not metered."""
        self.long_waits: deque[tuple[float, float]] = deque(maxlen=8192)
        """(when, seconds): iterations of a note-worthy length, or each heartbeat's lateness."""
        self.busy_since: float | None = None
        """When the iteration in progress began; None while the loop waits. On uvloop: when an
        overdue heartbeat was due, None where it is not overdue or not running."""
        self.waiting_since = 0.0
        """When the loop last began to wait."""
        self.times_iterations = False
        self.wakes_watchdog = False
        """Whether the watchdog sleeps until the loop's next iteration."""
        self.on_wake: Callable[[], None] = _nothing
        self.after_block: Callable[[Any], None] | None = None
        """Called once, with what the selector finds next."""
        self.thread_id = threading.get_ident()
        self.meters = meter
        self._on_stall = on_stall
        self._on_fault = on_fault
        self._adopted = AdoptedTasks(loop, ledger)
        self._attached = False
        self._previous: TaskFactory | None = None
        self._factory: TaskFactory | None = None
        self._unwrap: list[Callable[[], None]] = []
        self._heartbeat: Heartbeat | None = None

    # --- attaching -------------------------------------------------------------------------------

    def attach(self) -> None:
        self._previous = self.loop.get_task_factory()
        self._factory = self._task_factory()
        self.loop.set_task_factory(self._factory)
        self._attached = True
        selector = getattr(self.loop, "_selector", None)
        if hasattr(selector, "select") and hasattr(selector, "__dict__") and hasattr(self.loop, "__dict__"):
            self._time_iterations(selector)
        else:
            self._heartbeat = Heartbeat(self.loop, self.ledger, beat=self.beat, on_start=self._wake, parks=self.meters)

    def detach(self) -> None:
        """Gives back what was touched; what someone has wrapped since stays, and does nothing more."""
        if not self._attached:
            return
        self._attached = False
        if not self.loop.is_closed() and self.loop.get_task_factory() is self._factory:
            self.loop.set_task_factory(self._previous)
        for unwrap in self._unwrap:
            unwrap()
        self._unwrap.clear()
        self._adopted.clear()
        if self._heartbeat is not None:
            self._heartbeat.stop()

    def replaced_factory(self) -> bool:
        """Whether another task factory was set since. It may still call ours; another hook's does.

        From any thread.
        """
        if self.loop.is_closed():
            return False
        current = self.loop.get_task_factory()
        # Asked last: another thread may have detached meanwhile, and what it gave back is no replacement.
        return (
            current is not self._factory
            and not isinstance(getattr(current, "hook", None), AsyncioHook)
            and self._attached
        )

    # --- tasks -----------------------------------------------------------------------------------

    def _task_factory(self) -> TaskFactory:
        """The factory to set, chained to the one that is set now. A closure: every task pays for it."""
        previous = self.loop.get_task_factory()
        ledger, meter = self.ledger, self.meters
        binding = ledger.binding
        bound_here = binding.get

        def create_task(loop: asyncio.AbstractEventLoop, coro: Coroutine[Any, Any, Any], **kwargs: Any) -> Any:
            context: Context | None = kwargs.get("context") if kwargs else None
            tag = bound_here(None) if context is None else context.get(binding)
            driven: Any = coro
            if meter and self._attached:
                try:
                    driven = MeteredCoroutine(coro, ledger, tag)
                except Exception:  # not a coroutine: the task itself says so better
                    driven = coro
            task: Any = Task(driven, loop=loop, **kwargs) if previous is None else previous(loop, driven, **kwargs)
            if getattr(task, "_source_traceback", None):
                _hide_our_frame(task._source_traceback, chained=previous is not None)
            if tag is not None and not meter and self._attached:
                self._tag(task, tag)
            return task

        create_task.hook = self  # type: ignore[attr-defined]
        return create_task

    def _tag(self, task: asyncio.Future[Any], session: Session) -> None:
        try:
            self.tags[task] = session
            session.tasks += 1
            task.add_done_callback(lambda _task: _count_down(session), context=Context())
        except Exception as error:
            self._on_fault(f"a task could not be tagged: {error!r}")

    # --- scopes ----------------------------------------------------------------------------------

    def enter_scope(self, session: Session) -> asyncio.Task[Any] | None:
        """The running code's session is `session` from now on. Returns what `leave_scope` wants back."""
        task = self._current_task()
        if task is None:
            return None
        session.tasks += 1
        if not self.meters:
            self.tags[task] = session
        elif self.ledger.running is not None:
            self.ledger.switch(session)
        else:
            self._adopted.adopt(task, session)
        return task

    def leave_scope(self, session: Session, entered: asyncio.Task[Any] | None) -> None:
        if entered is None:
            return
        session.tasks -= 1
        outer = self.ledger.binding.get(None)
        if not self.meters:
            if outer is None:
                self.tags.pop(entered, None)
            else:
                self.tags[entered] = outer
            return
        current = self._current_task() is entered
        if not self._adopted.release(entered, session, running=current) and current:
            self.ledger.switch(outer or self.ledger.untagged)

    def _current_task(self) -> asyncio.Task[Any] | None:
        if threading.get_ident() != self.thread_id:
            return None
        return asyncio.current_task(self.loop)

    def task_name(self) -> str | None:
        """The name of the task whose step is being ended. None outside of tasks."""
        task = asyncio.current_task(self.loop) or self._adopted.stepping
        return name_of(task) if task is not None else None

    def sessions_live(self, some: bool) -> None:
        """The first session has started, or the last one has ended. From any thread."""
        if self._heartbeat is None:
            return
        change = self._heartbeat.start if some else self._heartbeat.stop
        if threading.get_ident() == self.thread_id:
            change()
        elif not self.loop.is_closed():
            self.loop.call_soon_threadsafe(change)

    # --- iterations ------------------------------------------------------------------------------

    def _time_iterations(self, selector: Any) -> None:
        ledger = self.ledger
        clock = ledger.clock
        ledger.idle = 0.0
        select = selector.select
        run_forever = self.loop.run_forever
        self.busy_since = clock()
        self.times_iterations = True

        steps, limit = ledger.steps, ledger.limit

        def timed_select(timeout: float | None = None) -> Any:
            began = clock()
            self._between_steps()
            since = self.busy_since
            if since is not None and began - since > LONG_S:
                self._iterated(since, began)
            if steps:
                steps.clear()
            self.waiting_since = began
            self.busy_since = None
            try:
                ready = select(timeout)
            finally:
                woke = clock()
                waited = woke - began
                ledger.idle += waited  # type: ignore[operator]  # a float since 0.0 above
                self.busy_since = woke
                if self.wakes_watchdog:
                    self.on_wake()
            if waited > limit and timeout is not None and waited - timeout > limit:
                self._overslept(began + timeout, woke)
            if self.after_block is not None:
                self._after_block(ready)
            return ready

        def timed_run_forever() -> None:
            # The loop was stopped until now: that was no iteration, and blocked nobody.
            now = clock()
            if ledger.idle is not None:
                ledger.idle += now - (self.waiting_since if self.busy_since is None else self.busy_since)
            self.busy_since = now
            self.thread_id = threading.get_ident()
            try:
                run_forever()
            finally:
                self._stopped(clock())

        self._wrap(selector, "select", timed_select)
        self._wrap(self.loop, "run_forever", timed_run_forever)

    def _wrap(self, owner: Any, name: str, wrapper: Any) -> None:
        setattr(owner, name, wrapper)

        def unwrap() -> None:
            if vars(owner).get(name) is wrapper:
                delattr(owner, name)

        self._unwrap.append(unwrap)

    def _stopped(self, now: float) -> None:
        """The loop runs no more: its last iteration ends without a wait. Until it runs again, it idles."""
        self._between_steps()
        if self.busy_since is not None and now - self.busy_since > LONG_S:
            self._iterated(self.busy_since, now)
        self.ledger.steps.clear()
        self.waiting_since = now
        self.busy_since = None

    def _after_block(self, ready: Any) -> None:
        then, self.after_block = self.after_block, None
        try:
            if then is not None:
                then(ready)
        except Exception as error:
            self._on_fault(f"what waited for a block could not be booked: {error!r}")

    def _overslept(self, due: float, woke: float) -> None:
        """The wait ended far later than it should have: another thread kept the GIL, or the host the processor."""
        if self.ledger.idle is not None:
            self.ledger.idle -= woke - due
        self._iterated(due, woke)

    def _iterated(self, since: float, until: float) -> None:
        try:
            self.long_waits.append((until, until - since))
            if until - since > self.ledger.limit:
                self._on_stall(since, until)
        except Exception as error:
            self._on_fault(f"an iteration could not be booked: {error!r}")

    def beat(self, due: float, now: float) -> None:
        """The heartbeat fired at `now` and was due at `due`."""
        self._between_steps()
        try:
            self.long_waits.append((now, max(0.0, now - due)))
            if now - due > self.ledger.limit:
                self._on_stall(due, now)
            self.ledger.steps.clear()
        except Exception as error:
            self._on_fault(f"a heartbeat could not be booked: {error!r}")

    def _between_steps(self) -> None:
        """No step runs now. Heals the books should an interrupt have come in mid-switch."""
        ledger = self.ledger
        if ledger.running is not None and ledger.running is not ledger.quiet:
            self._adopted.end_step()
            ledger.running = None

    def idle(self, now: float) -> float | None:
        """Seconds the loop has waited, the wait in progress included; None where it does not tell.

        From any thread: what changed while it was read is read again.
        """
        while True:
            idle, busy_since, waiting_since = self.ledger.idle, self.busy_since, self.waiting_since
            if idle is None:
                return None
            if idle == self.ledger.idle and busy_since == self.busy_since:
                return idle if busy_since is not None else idle + max(0.0, now - waiting_since)

    def _wake(self) -> None:
        self.on_wake()

    def stuck_since(self, now: float) -> float | None:
        """Since when the loop has got to nothing new; None where it waits. From any thread."""
        if self._heartbeat is not None:
            due = self._heartbeat.due
            return due if due is not None and due < now else None
        return self.busy_since


def _nothing() -> None:
    pass


def loop_to_attach(loop: asyncio.AbstractEventLoop | None) -> asyncio.AbstractEventLoop:
    """`loop`, or the running one for None. Raises StateError where there is none, or it runs elsewhere."""
    try:
        running = asyncio.get_running_loop()
    except RuntimeError:
        running = None
    if loop is None and running is None:
        raise StateError("no asyncio event loop is running here: attach inside one, or name the loop to attach to")
    if loop is not None and loop is not running and loop.is_running():
        raise StateError(f"{loop!r} runs in another thread: attach from its own, by loop.call_soon_threadsafe")
    target = loop if loop is not None else running
    assert target is not None
    return target


def name_of(task: asyncio.Task[Any]) -> str:
    """The task's name, as text that can be sent."""
    name = task.get_name()
    if name == "None":  # CPython 3.13.0–3.13.2 calls unnamed tasks so wherever a task factory is set
        name = getattr(task.get_coro(), "__qualname__", name)
    return name.encode("utf-8", "backslashreplace").decode("utf-8")


def loop_name(loop: asyncio.AbstractEventLoop) -> str:
    return "uvloop" if type(loop).__module__.partition(".")[0] == "uvloop" else "asyncio"


def _count_down(session: Session) -> None:
    session.tasks -= 1


def _hide_our_frame(frames: list[Any], *, chained: bool) -> None:
    """In debug mode a task remembers where it was created: not in here."""
    ours = [index for index, frame in enumerate(frames) if frame.filename == __file__]
    if not ours:
        return
    first = ours[0]
    # Without a factory the loop takes its own create_task off too; with one it leaves it.
    del frames[first if chained or first == 0 else first - 1 : ours[-1] + 1]
