"""The event loops that one introspector is attached to."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from types import FrameType

from .._accounting.budget import NOT_MEASURED, STEP_COSTS
from .._accounting.ledger import Ledger
from .._base.clock import perf_counter
from .._base.errors import StateError
from .._loops.hook import LoopHook
from .._loops.running_loop import Loop, describe
from .._os.stacks import Calls, take
from .attached_loop import AttachedLoop
from .loop_statistics import MARK_INTERVAL_S
from .shared import Shared

MAX_DETACHED = 32
"""The loops detached lately that are kept. A program may run hundreds a second, and each kept one has open files."""


class AttachedLoops:
    """The loops attached now, the first one first, and those detached lately.

    Changed under the sessions' lock.
    """

    def __init__(self, shared: Shared, on_detached: Callable[[AttachedLoop], None]) -> None:
        self._shared = shared
        self._on_detached = on_detached
        self._loops: list[AttachedLoop] = []
        self.detached: deque[tuple[float, AttachedLoop]] = deque()
        """(clock reading, loop): loops detached lately, whose threads' usage may still be read."""
        self._step_costs = STEP_COSTS if shared.clock is perf_counter else {}
        """By kind of loop, once they are measured. A clock of the caller's own has its own measurements."""
        shared.hooks = lambda: [loop.hook for loop in self]
        self._count = 0
        """The number of loops attached so far."""

    def __iter__(self) -> Iterator[AttachedLoop]:
        return iter(tuple(self._loops))

    def __len__(self) -> int:
        return len(self._loops)

    def __getitem__(self, index: int) -> AttachedLoop:
        return self._loops[index]

    def here(self) -> AttachedLoop | None:
        """Return the attached loop that the calling code runs on.

        None: no attached loop runs here.
        """
        return next((loop for loop in self if loop.hook.runs_here()), None)

    def hook_here(self) -> LoopHook | None:
        """Return the hook of the attached loop that the calling code runs on; None: it runs on none."""
        loop = self.here()
        return loop.hook if loop is not None else None

    def calls_of(self, frame: FrameType, thread_id: int) -> Calls:
        """Return the calls of a frame that runs on the thread, up to where a task's own end on the loop there."""
        hook = next((loop.hook for loop in self if loop.hook.thread_id == thread_id and loop.hook.runs()), None)
        if hook is None:
            calls, _ = take(frame, ())
        else:
            calls, _ = take(frame, hook.ends.codes, in_c=hook.ends.in_c, beyond=hook.greenlets.beyond())
        return tuple(calls)

    def ledger_of(self, thread_id: int) -> Ledger | None:
        """Return the ledger of the attached loop that runs on the thread; None: none does."""
        return next((loop.ledger for loop in self if loop.hook.thread_id == thread_id and loop.hook.runs()), None)

    def check_new(self, target: Loop) -> None:
        """Raise StateError if `target` is attached already."""
        if any(each.hook.is_loop(target) for each in self):
            raise StateError(
                f"introspector {self._shared.settings.name!r} is attached already to {describe(target)}: once is enough"
            )

    def attach(self, target: Loop, *, sampling_period: int = 1) -> None:
        """Attach to `target`, timing one step in `sampling_period`. Detach from loops that will never run again.

        Raise StateError; nothing is left half-attached.
        """
        for each in self:  # not only once a second, in which hundreds may come and go
            if each.hook.ended():
                self._detach(each)
        loop = AttachedLoop(target, self._count + 1, self._shared)
        try:
            loop.attach(target)
        except BaseException:
            loop.detach()
            loop.close()
            raise
        loop.step_cost = self._step_costs.get(loop.hook.kind, NOT_MEASURED)
        loop.ledger.set_sampling_period(sampling_period)
        self._count += 1
        self._loops.append(loop)
        self._name_loops()
        if self._shared.sessions.live:
            loop.hook.sessions_live(True)

    def begin_anew(self, target: Loop) -> None:
        """Count what holds a loop from now on. On its thread."""
        for loop in self:
            if loop.hook.is_loop(target):
                loop.hook.begin_anew()

    def detach(self, target: Loop) -> None:
        """Detach from `target`. Raise StateError if it is not attached."""
        for loop in self:
            if loop.hook.is_loop(target):
                self._detach(loop)
                return
        raise StateError(
            f"introspector {self._shared.settings.name!r} is not attached to {describe(target)}: attach it first"
        )

    def _detach(self, loop: AttachedLoop) -> None:
        loop.detach()
        self._on_detached(loop)
        self._loops.remove(loop)
        self.detached.append((self._shared.clock(), loop))
        if len(self.detached) > MAX_DETACHED:
            self.detached.popleft()[1].close()
        self._name_loops()

    def _name_loops(self) -> None:
        """Have blocks name the loop that they held, if there are several."""
        for loop in self:
            loop.detector.loop_name = loop.name if len(self) > 1 else None

    def detach_all(self, parts: ExitStack) -> None:
        """Have `parts` detach each of them."""
        for loop in reversed(self._loops):
            parts.callback(loop.detach)

    def close(self) -> None:
        """Close what the usage of all their threads is read from."""
        for loop in (*self._loops, *(loop for _, loop in self.detached)):
            loop.close()

    def clear(self) -> None:
        """Forget the attached loops, which were detached by `detach_all`."""
        self._loops.clear()

    def sessions_live(self, some: bool) -> None:
        """Pass on that the first session has started, or the last one has ended."""
        for loop in self:
            loop.hook.sessions_live(some)

    # --- once a second ---------------------------------------------------------------------------

    def measure_step_costs(self) -> None:
        """Measure what metering a step costs on each kind of loop whose cost is not known."""
        for loop in self:
            if loop.step_cost is NOT_MEASURED:
                loop.step_cost = self._step_costs[loop.hook.kind] = loop.measure_step_cost()

    def detach_ended(self, now: float) -> None:
        """Detach from loops that will never run again.

        Note loops that no longer show the creation of tasks.
        """
        shared = self._shared
        for loop in self:
            if loop.hook.loses_tasks():
                shared.notes.add(
                    "create_task",
                    "the loop's create_task was replaced while introspection runs: unless the new one calls the old, "
                    "tasks created since are not seen",
                )
            if loop.hook.ended():
                with shared.sessions.lock:
                    if loop in self._loops and shared.sessions.state == "open":
                        self._detach(loop)
        with shared.sessions.lock:
            while self.detached and now - self.detached[0][0] >= MARK_INTERVAL_S:
                self.detached.popleft()[1].close()
