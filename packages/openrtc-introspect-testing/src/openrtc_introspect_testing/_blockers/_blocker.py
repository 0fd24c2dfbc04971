"""A blocker: something that holds the event loop, and knows afterwards what it was."""

from __future__ import annotations

import asyncio
import inspect
import os
import sys
import time
from collections.abc import Awaitable, Callable, Generator, Sequence
from dataclasses import replace
from functools import lru_cache
from types import FrameType
from typing import Any, NamedTuple

from openrtc_introspect_core import current_session
from openrtc_introspect_core.wire import Block, Location

from ._calls import MARK
from ._clock import now
from ._expected import Expected, is_users
from ._running import asyncios, call_soon

MAX_S = 60.0
NOBODYS = ("gc", "gil-contention", "burst")
"""Causes that are no session's fault: whose code it fell into is not told."""

_MOST_FRAMES = 64
_LOOPS_OWN = (asyncio.Handle._run.__code__, asyncio.Runner.run.__code__)


class Reading(NamedTuple):
    """The clock, and the processor time of the calling thread. Neither gives the GIL away: a watchdog that was kept
    from it would else find the thread here, and no longer where it blocked."""

    when: float
    cpu_s: float

    @classmethod
    def take(cls) -> Reading:
        return cls(now(), time.thread_time())


def waited() -> float:
    """Seconds that this thread was ready to run and was not let, so far. 0 where the system does not tell."""
    try:
        with open("/proc/thread-self/schedstat", "rb", buffering=0) as file:
            return int(file.read(128).split()[1]) / 1e9
    except OSError:
        return 0.0


class _Anything:
    """What both kinds of blockers have."""

    def __init__(self, kind: str, seconds: float, causes: tuple[str, ...], exact: bool) -> None:
        if not 0.0 < seconds <= MAX_S:
            raise ValueError(f"seconds must be more than 0 and at most {MAX_S:g}, got {seconds!r}")
        self.kind = kind
        self.seconds = seconds
        """How long it is to block."""
        self.exact = exact
        """Whether it takes just that, to 2 ms, where the machine lets it. Else only `duration_s` tells what it took."""
        self._causes = causes
        self._expected: Expected | None = None
        self._settle: Callable[[], None] | None = None
        """What is still to be found out about the latest block, outside of it."""
        self._callers: list[Location] = []
        self.function: Callable[[float], None] | None = None
        """What blocks, until the `time.perf_counter()` that it is given. None: not one call does."""

    def __repr__(self) -> str:
        return f"<blocker {self.kind}, {1000 * self.seconds:g} ms>"

    @property
    def expected(self) -> Expected:
        """What the latest block really was. Raises RuntimeError before there was one."""
        if self._expected is None:
            raise RuntimeError(f"{self!r} has not blocked yet: call block() first")
        if self._settle is not None:
            self._settle()
        if not self._expected.locations:
            self._expected = replace(self._expected, locations=self._locations())
        return self._expected

    @property
    def duration_s(self) -> float | None:
        """Seconds that the latest block took, measured around it. None: there was none yet."""
        return None if self._expected is None else self._expected.duration_s

    @property
    def expected_causes(self) -> tuple[str, ...]:
        """The likeliest first. Of the latest block, which the machine may have made another one; else the kind's."""
        return self._causes if self._expected is None else self.expected.causes

    @property
    def expected_cause(self) -> str:
        return self.expected_causes[0]

    @property
    def expected_location(self) -> Location | None:
        """The user's line that blocked. None: no one line does (gc, gil, burst), or it has not blocked yet.

        That is the innermost line of code which is neither the standard library's nor installed: where
        this package is installed the line that called `block()`, else a line of this package.
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
        """What is wrong with `block` as a report of the latest block: a sentence for each thing, none if it is right.

        within_ms: how far its duration may be off; None: any (uvloop tells "at least" outside of steps).
        project_roots: as given to the Introspector, if they were.
        """
        expected = self.expected
        if project_roots is not None:
            expected = replace(expected, locations=self._locations(project_roots))
        return list(expected.mismatches(block, within_ms=within_ms).values())

    def _locations(self, roots: Sequence[str | os.PathLike[str]] | None = None) -> tuple[Location, ...]:
        if self._causes[0] in NOBODYS:
            return ()
        lines = marked_lines(self.function) if self.function is not None else ()
        if not lines or is_users(lines[0].file, roots):
            return lines
        return tuple(caller for caller in self._callers if is_users(caller.file, roots))[:1] or lines

    def _measured(self, before: Reading, after: Reading, waited_before: float | None) -> None:
        """Takes the measures of a block. waited_before: None where it was not this thread that was held."""
        causes = self._causes
        session = current_session()
        owner = session.session_id if session is not None and causes[0] not in NOBODYS else None
        length = after.when - before.when
        loop = asyncios()
        if causes[0] not in NOBODYS and loop is not None and asyncio.current_task() is None:
            causes = ("callback",)
            if not isinstance(loop, asyncio.BaseEventLoop):
                owner = None  # uvloop does not tell whose callback runs
        started_at = time.time() - (now() - before.when)
        self._expected = Expected(self.kind, started_at, length, causes, owner, ())
        if waited_before is None:
            return

        def settle() -> None:
            if self._settle is settle:
                self._settle = None
                self._judge(waited() - waited_before, after.cpu_s - before.cpu_s)

        self._settle = settle
        if not call_soon(settle):
            settle()

    def _judge(self, waited_s: float, cpu_s: float) -> None:
        """What the machine made of the latest block."""
        expected = self._expected
        assert expected is not None
        length, causes = expected.duration_s, expected.causes
        if self.kind == "fsync" and causes == self._causes:
            # What it waits for may be in memory, so that it computes, in the kernel for the most.
            computed = cpu_s / max(1e-9, length - waited_s)
            causes = ("cpu", "native") if computed > 0.6 else (*causes, "cpu", "native") if computed > 0.4 else causes
        if waited_s > 0.4 * length:
            causes = (*causes, "descheduled") if waited_s < 0.6 * length else ("descheduled",)
        owner = None if causes == ("descheduled",) else expected.session_id
        self._expected = replace(expected, causes=causes, session_id=owner, waited_s=waited_s)


class Blocker(_Anything):
    """Holds the calling thread, and with it its event loop, for `seconds`.

    `blockers.sleep(0.12).block()` is all that it takes; calling it does the same. It can be used again.
    """

    def __init__(
        self, kind: str, seconds: float, function: Callable[[float], None], causes: tuple[str, ...], exact: bool = True
    ) -> None:
        super().__init__(kind, seconds, causes, exact)
        self.function: Callable[[float], None] = function

    def block(self) -> Blocker:
        """Blocks. Returns itself, which then knows what it was."""
        return self._block(sys._getframe(1))

    def __call__(self) -> Blocker:
        return self._block(sys._getframe(1))

    def _block(self, caller: FrameType | None) -> Blocker:
        self._callers = _places(caller)
        waited_before = waited()
        before = Reading.take()
        self.function(before.when + self.seconds)
        self._measured(before, Reading.take(), waited_before)
        return self


class AsyncBlocker(_Anything):
    """Holds the running event loop for `seconds`, by other means than a call of the task's own.

    `await blockers.burst(0.12)` is all that it takes; `await blocker.block()` does the same.
    """

    def __init__(
        self, kind: str, seconds: float, function: Callable[[float], Awaitable[Any]], causes: tuple[str, ...]
    ) -> None:
        super().__init__(kind, seconds, causes, True)
        self._function = function

    async def block(self) -> AsyncBlocker:
        """Blocks. Returns itself, which then knows what it was."""
        told = await self._function(self.seconds)
        if isinstance(told, Blocker):  # that it had called from elsewhere
            self._expected = told.expected
            self.function, self._callers = told.function, told._callers
            self._settle = told._settle
        else:
            self._measured(*told)
        return self

    def __await__(self) -> Generator[Any, Any, AsyncBlocker]:
        return self.block().__await__()


def _places(frame: FrameType | None) -> list[Location]:
    """The calls from `frame` outwards, up to the event loop's own."""
    found: list[Location] = []
    while frame is not None and not _is_loops(frame) and len(found) < _MOST_FRAMES:
        found.append(Location(frame.f_code.co_filename, frame.f_lineno, frame.f_code.co_qualname))
        frame = frame.f_back
    return found


def _is_loops(frame: FrameType) -> bool:
    return frame.f_code in _LOOPS_OWN or frame.f_globals.get("__name__") == "trio._core._run"


@lru_cache
def marked_lines(function: Callable[..., Any]) -> tuple[Location, ...]:
    """The lines of its source that are marked as those that block."""
    source, first = inspect.getsourcelines(function)
    code = function.__code__
    file = os.path.abspath(code.co_filename)
    return tuple(Location(file, first + index, code.co_qualname) for index, line in enumerate(source) if MARK in line)
