"""Sessions: who a task works for, and the account its loop time is charged to.

A session is bound in a context variable. asyncio and anyio copy the context when they create a
task, so every task created inside a session's scope carries it, and nothing needs to be passed on.
"""

from __future__ import annotations

import threading
import weakref
from collections import deque
from collections.abc import Mapping
from contextvars import ContextVar
from typing import Any

from ._errors import ArgumentError, ArgumentTypeError
from ._fields import AccountFields
from ._gil import copied

MIB = 1024 * 1024
HEAP_MARK_S = 10.0
HEAP_MARKS = 7
HELD_BYTES = MIB
MAX_HELD = 256

MAX_NAME = 256
"""Characters a session id, an agent name or a tenant may have."""


class Account(AccountFields):
    """Loop time charged to one holder on one loop. Written by that loop's thread only.

    A session whose tasks run on several loops has an account on each, so that no two threads ever
    add to one number; what is shown is their sum.
    """

    __slots__ = ()

    def __init__(self, session: Session | None = None) -> None:
        self.session = session
        """None: no session's."""
        self.busy = 0.0
        """Seconds it has held the loop, without the step in progress."""
        self.steps = 0
        self.heap = 0
        """Bytes that its steps have allocated, less those that they freed; 0 where memory is not measured."""
        self.tasks = 0
        """Live tasks of the session on this loop; may be below 0 where some were counted on another one."""


class Trace:
    """Bound beside a session, and referenced by contexts only: while it is there, so is a task, a callback, a
    timer or a copied context that the session has made."""

    __slots__ = ("__weakref__",)


class Session:
    """One live session. Made by `Introspector.session`; `current_session` returns it."""

    __slots__ = (
        "_heap_marks", "_marks", "accounts", "agent_name", "blocks", "delayed", "ended", "ended_at",
        "given_back_at_end", "held_at_end", "loop", "metadata", "peak_mb", "session_id", "slow_until", "started",
        "tenant", "thread_cpu", "thread_heap", "trace", "worst_block", "worst_delay",
    )  # fmt: skip

    def __init__(self, session_id: str, agent_name: str, metadata: Mapping[str, Any], started: float) -> None:
        self.session_id = session_id
        self.agent_name = agent_name
        self.metadata = metadata
        """As it was given; of all of it only `tenant` ever leaves the process."""
        self.tenant = tenant_of(metadata)
        self.started = started
        """Clock reading at its start."""
        self.loop: str | None = None
        """Name of the loop that its scope was entered on; None: on none that is attached."""
        self.accounts: list[Account] = []
        """One on each loop that its tasks have run on."""
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
        """CPU seconds of its calls in threads that have ended."""
        self.thread_heap = 0
        """As an account's `heap`, of its calls in threads that have ended."""
        self.ended = False
        self.ended_at = float("inf")
        """Clock reading at its end."""
        self.trace: weakref.ref[Trace] | None = None
        """None: not traced."""
        self.held_at_end = self.given_back_at_end = 0
        """What it held when it ended, and what anyone had given back by then; bytes."""
        self._marks = (started, 0.0, started, 0.0)
        self._heap_marks: tuple[tuple[float, int], ...] = ((started, 0),)

    def __repr__(self) -> str:
        return f"<Session {self.session_id!r} agent_name={self.agent_name!r}>"

    @property
    def busy(self) -> float:
        """Seconds it has held loops, without steps in progress."""
        return sum(account.busy for account in self.accounts)

    @property
    def steps(self) -> int:
        return sum(account.steps for account in self.accounts)

    @property
    def tasks(self) -> int:
        """Live tasks: the one inside the scope and those created in its context."""
        return max(0, sum(account.tasks for account in self.accounts))

    @property
    def held(self) -> int:
        """Bytes that its steps and its calls in threads have allocated, less those that they freed."""
        return self.thread_heap + sum(account.heap for account in self.accounts)

    def held_at_least(self, given_back: int) -> int:
        """Bytes it holds yet, once ended, whoever frees: what it held less all that others have given back since.

        given_back: bytes that anyone has given back by now.
        """
        its_own = max(0, self.held_at_end - self.held)
        others = max(0, given_back - self.given_back_at_end - its_own)
        return max(0, self.held - others)

    def has_computed(self, cpu_s: float, heap: int) -> None:
        """A call of its in a thread has used so much."""
        with _seldom:
            self.thread_cpu += cpu_s
            self.thread_heap += heap

    def has_blocked(self, seconds: float, slow_until: float) -> None:
        """It held a loop for so long."""
        with _seldom:
            self.blocks += 1
            self.worst_block = max(self.worst_block, seconds)
            self.slow_until = max(self.slow_until, slow_until)

    def was_delayed(self, seconds: float, *, exact: bool) -> None:
        """It was kept waiting for so long; where only a bound is known, half of it counts."""
        with _seldom:
            self.delayed += seconds if exact else seconds / 2
            self.worst_delay = max(self.worst_delay, seconds)

    def mark(self, now: float, busy: float) -> None:
        """Called about once a second: remembers `busy`, so that `share` can look one to two seconds back."""
        self._marks = (*self._marks[2:], now, busy)

    def share(self, now: float, busy: float) -> float:
        """Percent of wall time since the last mark but one; `busy` is what it has `now`. On n loops up to n · 100."""
        since, before, _, _ = self._marks
        return percent(busy - before, now - since, 100.0 * (len(self.accounts) or 1))

    def mark_heap(self, now: float) -> None:
        """Called about once a second where memory is measured: remembers `held` each ten seconds for a minute."""
        if now - self._heap_marks[-1][0] >= HEAP_MARK_S:
            self._heap_marks = (*self._heap_marks[-HEAP_MARKS + 1 :], (now, self.held))

    def heap_growth(self, now: float) -> float | None:
        """Bytes a minute, over the last minute; None before there are ten seconds to tell from."""
        since, before = self._heap_marks[0]
        return 60.0 * (self.held - before) / (now - since) if now - since >= HEAP_MARK_S else None


_seldom = threading.Lock()
"""Held to write what blocks and calls in threads tell of sessions: seldom, and from any thread."""


def percent(part: float, whole: float, most: float = 100.0) -> float:
    """`part` of `whole` in percent, kept within 0 and `most` against clock readings a moment apart."""
    return min(most, max(0.0, 100.0 * part / whole)) if whole > 0.0 else 0.0


class SessionTable:
    """The live sessions by id, and what has been of them in all.

    Scopes are entered and left on any loop's thread: under `lock`, which is held over what has to
    follow from the first session and the last one as well.
    """

    __slots__ = ("errored", "holding_on", "left_behind", "live", "lock", "started")

    def __init__(self) -> None:
        self.lock = threading.RLock()
        """Reentrant: a collection in the middle of it may end a scope that was forgotten."""
        self.live: dict[str, Session] = {}
        self.left_behind: dict[int, Session] = {}
        """Ended sessions, by id(): their tasks may still run, and their time goes on being booked to them."""
        self.holding_on: deque[Session] = deque(maxlen=MAX_HELD)
        """Of those before them, the last that have not given back what they allocated."""
        self.started = 0
        self.errored = 0

    def add(self, session: Session) -> None:
        """Under the lock. Raises ArgumentError where a live session has its id."""
        self.check_free(session.session_id)
        self.live[session.session_id] = session
        self.started += 1

    def check_free(self, session_id: str) -> None:
        """Raises ArgumentError where a live session has this id."""
        held = self.live.get(session_id)
        if held is not None and not held.ended:
            raise ArgumentError(
                f"session id {session_id!r} is live already: an id is free again once its session has ended"
            )

    def remove(self, session: Session, *, errored: bool) -> None:
        """Under the lock."""
        session.ended = True
        del self.live[session.session_id]
        self.left_behind[id(session)] = session
        self.errored += errored

    def retire(self) -> list[Session]:
        """Takes out ended sessions that have no task left, whose accounts can be closed. About once a second."""
        retired = [session for session in list(self.left_behind.values()) if session.tasks <= 0]
        for session in retired:
            del self.left_behind[id(session)]
            if session.held >= HELD_BYTES:
                self.holding_on.append(session)
        return retired

    def holding(self, since: float) -> list[Session]:
        """The sessions that ended after `since` with memory of their own still allocated, the most first."""
        ended = [*self.left_behind.values(), *copied(self.holding_on)]
        held = [session for session in ended if session.held >= HELD_BYTES and session.ended_at > since]
        return sorted(held, key=lambda session: -session.held)


Binding = ContextVar[Session]
"""Unset: no session. Not set to None, so that a step's look-up is a single `get(default)`.

Each introspector has a binding of its own, so that two on one loop (a test's and the program's)
charge their own sessions only; `innermost` is what `current_session` reads, whoever bound it.
"""

innermost: Binding = ContextVar("openrtc_session")

traces: ContextVar[Trace] = ContextVar("openrtc_trace")
"""Where memory by session is measured."""


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


def unmeasured(session_id: str, agent_name: str, metadata: Mapping[str, Any]) -> Session:
    """A session that has its names and is no more than that: nobody books to it, and it counts as ended."""
    session = Session.__new__(Session)
    session.session_id, session.agent_name, session.metadata = session_id, agent_name, metadata
    session.tenant = session.loop = session.trace = None
    session.accounts = []
    session.started = session.ended_at = session.thread_cpu = session.worst_block = session.worst_delay = 0.0
    session.blocks = session.thread_heap = 0
    session.ended = True
    return session


def tenant_of(metadata: Mapping[str, Any]) -> str | None:
    tenant: str | None = metadata.get("tenant")
    return tenant
