"""Sessions: who a task works for, and the account its loop time is charged to.

A session is bound in a context variable. asyncio and anyio copy the context when they create a
task, so every task created inside a session's scope carries it, and nothing needs to be passed on.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from typing import Any

from ._errors import ArgumentError, ArgumentTypeError

MIB = 1024 * 1024
HEAP_MARK_S = 10.0
HEAP_MARKS = 7
HELD_BYTES = MIB
MAX_HELD = 256

MAX_NAME = 256
"""Characters a session id, an agent name or a tenant may have."""


class Account:
    """Loop time charged to one holder of the loop. Written by the loop's thread only."""

    __slots__ = ("busy", "heap", "steps")

    def __init__(self) -> None:
        self.busy = 0.0
        """Seconds it has held the loop, without the step in progress."""
        self.steps = 0
        self.heap = 0
        """Bytes that its steps have allocated, less those that they freed; 0 where memory is not measured."""


class Session(Account):
    """One live session. Made by `Introspector.session`; `current_session` returns it."""

    __slots__ = (
        "_heap_marks", "_marks", "agent_name", "blocks", "delayed", "ended", "ended_at", "metadata", "peak_mb",
        "session_id", "slow_until", "started", "tasks", "tenant", "thread_cpu", "thread_heap",
        "worst_block", "worst_delay",
    )  # fmt: skip

    def __init__(self, session_id: str, agent_name: str, metadata: Mapping[str, Any], started: float) -> None:
        super().__init__()
        self.session_id = session_id
        self.agent_name = agent_name
        self.metadata = metadata
        """As it was given; of all of it only `tenant` ever leaves the process."""
        self.tenant = tenant_of(metadata)
        self.started = started
        """Clock reading at its start."""
        self.tasks = 0
        """Live tasks: the one inside the scope and those created in its context."""
        self.peak_mb = 0.0
        self.blocks = 0
        self.worst_block = 0.0
        """Seconds."""
        self.slow_until = float("-inf")
        """Clock reading until which it is shown as slow."""
        self.delayed = 0.0
        """Seconds it was kept waiting by others' blocks."""
        self.worst_delay = 0.0
        self.thread_cpu = 0.0
        """CPU seconds of its calls in threads that have ended. Written under their lock."""
        self.thread_heap = 0
        """As `heap`, of its calls in threads that have ended. Written under their lock."""
        self.ended = False
        self.ended_at = float("inf")
        """Clock reading at its end."""
        self._marks = (started, 0.0, started, 0.0)
        self._heap_marks: tuple[tuple[float, int], ...] = ((started, 0),)

    def __repr__(self) -> str:
        return f"<Session {self.session_id!r} agent_name={self.agent_name!r}>"

    def mark(self, now: float, busy: float) -> None:
        """Called about once a second: remembers `busy`, so that `share` can look one to two seconds back."""
        self._marks = (*self._marks[2:], now, busy)

    def share(self, now: float, busy: float) -> float:
        """Percent of wall time since the last mark but one; `busy` is what it has `now`."""
        since, before, _, _ = self._marks
        return percent(busy - before, now - since)

    @property
    def held(self) -> int:
        """Bytes that its steps and its calls in threads have allocated, less those that they freed."""
        return self.heap + self.thread_heap

    def mark_heap(self, now: float) -> None:
        """Called about once a second where memory is measured: remembers `heap` each ten seconds for a minute."""
        if now - self._heap_marks[-1][0] >= HEAP_MARK_S:
            self._heap_marks = (*self._heap_marks[-HEAP_MARKS + 1 :], (now, self.held))

    def heap_growth(self, now: float) -> float | None:
        """Bytes a minute, over the last minute; None before there are ten seconds to tell from."""
        since, before = self._heap_marks[0]
        return 60.0 * (self.held - before) / (now - since) if now - since >= HEAP_MARK_S else None


def percent(part: float, whole: float) -> float:
    """`part` of `whole` in percent, kept within 0–100 against clock readings a moment apart."""
    return min(100.0, max(0.0, 100.0 * part / whole)) if whole > 0.0 else 0.0


class SessionTable:
    """The live sessions by id, and what has been of them in all."""

    __slots__ = ("errored", "held", "left_behind", "live", "retired", "started")

    def __init__(self) -> None:
        self.live: dict[str, Session] = {}
        self.left_behind: dict[int, Session] = {}
        """Ended sessions, by id(): their tasks may still run, and their time goes on being booked to them."""
        self.held: deque[Session] = deque(maxlen=MAX_HELD)
        """Of those before them, the last that have not given back what they allocated."""
        self.retired = Account()
        """What the sessions before them held the loop for, in all."""
        self.started = 0
        self.errored = 0

    def add(self, session: Session) -> None:
        self.check_free(session.session_id)
        self.live[session.session_id] = session
        self.started += 1

    def check_free(self, session_id: str) -> None:
        """Raises ArgumentError where a live session has this id."""
        if session_id in self.live:
            raise ArgumentError(
                f"session id {session_id!r} is live already: an id is free again once its session has ended"
            )

    def remove(self, session: Session, *, errored: bool) -> None:
        session.ended = True
        del self.live[session.session_id]
        self.left_behind[id(session)] = session
        self.errored += errored

    def retire(self) -> None:
        """Closes the accounts of ended sessions that have no task left. Called about once a second."""
        for key, session in list(self.left_behind.items()):
            if session.tasks <= 0:
                self.retired.busy += session.busy
                self.retired.steps += session.steps
                del self.left_behind[key]
                if session.held >= HELD_BYTES:
                    self.held.append(session)

    def holding(self, since: float) -> list[Session]:
        """The sessions that ended after `since` with memory of their own still allocated, the most first."""
        ended = [*self.left_behind.values(), *self.held]
        held = [session for session in ended if session.held >= HELD_BYTES and session.ended_at > since]
        return sorted(held, key=lambda session: -session.held)

    def totals(self, busy_of: Callable[[Account], float] = lambda account: account.busy) -> tuple[float, int]:
        """(seconds, steps) charged to all sessions there have been."""
        # One that ends while it is counted is in both: once is enough.
        sessions = {id(session): session for session in (*self.live.values(), *self.left_behind.values())}
        busy = self.retired.busy + sum(busy_of(session) for session in sessions.values())
        return busy, self.retired.steps + sum(session.steps for session in sessions.values())


Binding = ContextVar[Session]
"""Unset: no session. Not set to None, so that a step's look-up is a single `get(default)`.

Each introspector has a binding of its own, so that two on one loop (a test's and the program's)
charge their own sessions only; `innermost` is what `current_session` reads, whoever bound it.
"""

innermost: Binding = ContextVar("openrtc_session")


def current_session() -> Session | None:
    """The session this code runs for, or None outside every session's scope.

    Also None once the session has ended, in tasks that it left behind.
    """
    session = innermost.get(None)
    return session if session is not None and not session.ended else None


def check_text(what: str, value: object) -> str:
    """A session id, agent name or tenant that can be shown and sent. Raises ArgumentError."""
    if not isinstance(value, str):
        raise ArgumentTypeError(f"{what} must be a str, got {value!r}")
    if not 1 <= len(value) <= MAX_NAME:
        given = f"{len(value)} characters" if value else "an empty one"
        raise ArgumentError(f"{what} must have 1 to {MAX_NAME} characters, got {given}")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        raise ArgumentError(f"{what} must be valid Unicode without lone surrogates, got {value!a}") from None
    return value


def check_metadata(metadata: object) -> Mapping[str, Any]:
    """The metadata, {} for None. Raises ArgumentError where it is no mapping or its tenant is no str."""
    if metadata is None:
        return {}
    if not isinstance(metadata, Mapping):
        raise ArgumentTypeError(f"metadata must be a mapping such as {{'tenant': 'acme'}}, got {metadata!r:.200}")
    if metadata.get("tenant") is not None:
        check_text("metadata['tenant']", metadata["tenant"])
    return metadata


def tenant_of(metadata: Mapping[str, Any]) -> str | None:
    tenant: str | None = metadata.get("tenant")
    return tenant
