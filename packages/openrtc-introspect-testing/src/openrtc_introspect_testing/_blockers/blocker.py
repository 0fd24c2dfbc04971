"""A blocker: it holds the event loop, and knows the truth about its block."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Awaitable, Callable, Generator, Sequence
from dataclasses import replace
from types import FrameType
from typing import Any, NamedTuple

from openrtc_introspect_core import current_session
from openrtc_introspect_core._diagnosis.cause import UNATTRIBUTED
from openrtc_introspect_core.wire import Block, Location

from .code_lines import calls_from, marked_lines
from .deadline import now
from .expected import Expected, is_users
from .running_loop import asyncios, call_soon

MAX_S = 60.0


class Reading(NamedTuple):
    """The clock, and the processor time of the calling thread.

    Reading either keeps the GIL. If it were released here, a watchdog that had waited for it would sample this line
    and not the line that blocked.
    """

    when: float
    cpu_s: float

    @classmethod
    def take(cls) -> Reading:
        return cls(now(), time.thread_time())


def run_delay_s() -> float:
    """Return this thread's run delay so far, in seconds.

    0 if the operating system does not report it.
    """
    try:
        with open("/proc/thread-self/schedstat", "rb", buffering=0) as file:
            return int(file.read(128).split()[1]) / 1e9
    except OSError:
        return 0.0


class _BaseBlocker:
    """The common part of both kinds of blockers."""

    def __init__(self, kind: str, seconds: float, causes: tuple[str, ...], exact: bool) -> None:
        if not 0.0 < seconds <= MAX_S:
            raise ValueError(f"seconds must be more than 0 and at most {MAX_S:g}, got {seconds!r}")
        self.kind = kind
        self.seconds = seconds
        """How long it is to block."""
        self.exact = exact
        """Whether a block takes `seconds` to 2 ms, on a machine that runs it undisturbed. If not, see `duration_s`."""
        self._causes = causes
        self._expected: Expected | None = None
        self._settle: Callable[[], None] | None = None
        """Completes the measures of the latest block, once the step that blocked is over. None: they are complete."""
        self._callers: list[Location] = []
        self.function: Callable[[float], None] | None = None
        """The call that blocks, until the `time.perf_counter()` that it is given. None: no single call blocks."""

    def __repr__(self) -> str:
        return f"<blocker {self.kind}, {1000 * self.seconds:g} ms>"

    @property
    def expected(self) -> Expected:
        """The truth about the latest block. Raises RuntimeError before there was one."""
        if self._expected is None:
            raise RuntimeError(f"{self!r} has not blocked yet: call block() first")
        if self._settle is not None:
            self._settle()
        if not self._expected.locations:
            self._expected = replace(self._expected, locations=self._locations())
        return self._expected

    @property
    def duration_s(self) -> float | None:
        """Seconds that the latest block took, measured around it. None before it."""
        return None if self._expected is None else self._expected.duration_s

    @property
    def expected_causes(self) -> tuple[str, ...]:
        """The possible causes of the latest block, the likeliest first.

        Before the first block they are those of the kind.
        """
        return self._causes if self._expected is None else self.expected.causes

    @property
    def expected_cause(self) -> str:
        return self.expected_causes[0]

    @property
    def expected_location(self) -> Location | None:
        """The user's line that blocked.

        None: no single line blocks (gc, gil, burst), or there was no block.

        It is the innermost line of code that is neither the standard library's nor an installed package's: if this
        package is installed, the line that called `block()`; in a checkout, a line of this package.
        """
        locations = self.expected.locations if self._expected is not None else ()
        return locations[0] if locations else None

    def matches(
        self,
        block: Block,
        *,
        within_ms: float | None = 2.0,
        project_roots: Sequence[str | os.PathLike[str]] | None = None,
    ) -> list[str]:
        """Compare `block` with the latest block; return a sentence for each difference.

        An empty list means that `block` reports it right.

        within_ms: by how many milliseconds the duration may differ; None: by any (on uvloop, the reported duration of
            a block outside of steps is a lower bound).
        project_roots: those that the Introspector was given, if it was given any.
        """
        expected = self.expected
        if project_roots is not None:
            expected = replace(expected, locations=self._locations(project_roots))
        return list(expected.mismatches(block, within_ms=within_ms).values())

    def _locations(self, roots: Sequence[str | os.PathLike[str]] | None = None) -> tuple[Location, ...]:
        if self._causes[0] in UNATTRIBUTED:
            return ()
        lines = marked_lines(self.function) if self.function is not None else ()
        if not lines or is_users(lines[0].file, roots):
            return lines
        return tuple(caller for caller in self._callers if is_users(caller.file, roots))[:1] or lines

    def _measured(self, before: Reading, after: Reading, delay_before_s: float | None) -> None:
        """Record a block.

        delay_before_s: this thread's run delay before the block; None if another thread was held.
        """
        causes = self._causes
        session = current_session()
        owner = session.session_id if session is not None and causes[0] not in UNATTRIBUTED else None
        length = after.when - before.when
        loop = asyncios()
        owned = causes[0] not in (*UNATTRIBUTED, "explicit-gc")
        if owned and loop is not None and asyncio.current_task() is None:
            causes = ("callback",)
            if not isinstance(loop, asyncio.BaseEventLoop):
                owner = None  # uvloop does not expose the context of the running callback
        started_at = time.time() - (now() - before.when)
        self._expected = Expected(self.kind, started_at, length, causes, owner, ())
        if delay_before_s is None:
            return

        def settle() -> None:
            if self._settle is settle:
                self._settle = None
                self._classify(run_delay_s() - delay_before_s, after.cpu_s - before.cpu_s)

        self._settle = settle
        if not call_soon(settle):
            settle()

    def _classify(self, delay_s: float, cpu_s: float) -> None:
        """Correct the causes of the latest block by its run delay and its CPU time."""
        expected = self._expected
        assert expected is not None
        length, causes = expected.duration_s, expected.causes
        if self.kind == "fsync" and causes == self._causes:
            # If the file is in memory, the call computes instead of waiting, mostly in the kernel.
            computed = cpu_s / max(1e-9, length - delay_s)
            causes = ("cpu", "native") if computed > 0.6 else (*causes, "cpu", "native") if computed > 0.4 else causes
        if delay_s > 0.4 * length:
            causes = (*causes, "descheduled") if delay_s < 0.6 * length else ("descheduled",)
        owner = None if causes == ("descheduled",) else expected.session_id
        self._expected = replace(expected, causes=causes, session_id=owner, waited_s=delay_s)


class Blocker(_BaseBlocker):
    """A call that holds the calling thread, and its event loop, for `seconds`.

    `blockers.sleep(0.12).block()` blocks, and so does `blockers.sleep(0.12)()`. A blocker can block again.
    """

    def __init__(
        self, kind: str, seconds: float, function: Callable[[float], None], causes: tuple[str, ...], exact: bool = True
    ) -> None:
        super().__init__(kind, seconds, causes, exact)
        self.function: Callable[[float], None] = function

    def block(self) -> Blocker:
        """Block, and return the blocker itself, which then knows the truth."""
        return self._block(sys._getframe(1))

    def __call__(self) -> Blocker:
        return self._block(sys._getframe(1))

    def _block(self, caller: FrameType | None) -> Blocker:
        self._callers = calls_from(caller)
        delay_before_s = run_delay_s()
        before = Reading.take()
        self.function(before.when + self.seconds)
        self._measured(before, Reading.take(), delay_before_s)
        return self


class AsyncBlocker(_BaseBlocker):
    """A hold of the running event loop that is not one call of the task's own.

    `await blockers.burst(0.12)` blocks, and so does `await blockers.burst(0.12).block()`.
    """

    def __init__(
        self, kind: str, seconds: float, function: Callable[[float], Awaitable[Any]], causes: tuple[str, ...]
    ) -> None:
        super().__init__(kind, seconds, causes, True)
        self._function = function

    async def block(self) -> AsyncBlocker:
        """Block, and return the blocker itself, which then knows the truth."""
        measured = await self._function(self.seconds)
        if isinstance(measured, Blocker):  # it has blocked in a callback, and has measured itself
            self._expected = measured.expected
            self.function, self._callers = measured.function, measured._callers
            self._settle = measured._settle
        else:
            self._measured(*measured)
        return self

    def __await__(self) -> Generator[Any, Any, AsyncBlocker]:
        return self.block().__await__()
