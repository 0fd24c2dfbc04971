"""Sessions: one call or chat each, which is charged with its tasks' loop time.

A session is bound in a context variable. asyncio and anyio copy the context when they create a
task, so every task created inside a session's scope carries the session, and nothing needs to be passed on.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Mapping
from contextvars import ContextVar
from typing import Any, cast

import msgspec

from .._accounting.account import Account, Owner
from .._base.units import percent
from .._native import native
from .waited_time import WaitedTime

OUTLIVED_AFTER_S = 1.0
"""Seconds after a session's end for which its tasks are still its own: they clean up, or are cancelled."""
HEAP_MARK_S = 10.0
"""Seconds between two marks of what a session holds."""
HEAP_MARKS = 7
"""The marks kept: the oldest is a minute old."""


class ContextMarker:
    """A token in a session's contexts, which alone refer to it.

    While it lives, so does a task, a callback, a timer or a copied context that the session has made.
    """

    __slots__ = ("__weakref__",)


class Session:
    """One session: one call or chat that the worker hosts.

    `Introspector.session` makes it, and `with introspector.session(...) as session` names it; `current_session()`
    returns the one that the calling code runs for. Its `session_id`, `agent_name`, `metadata` and `tenant` are those
    that it was made with, `ended` is whether its scope was left. The rest is read by snapshots.
    """

    __slots__ = (
        "_heap_marks", "accounts", "agent_name", "blocks", "context_marker", "delayed", "ended", "ended_at",
        "given_back_at_end", "held_at_end", "label", "loop", "marks", "metadata", "noted", "peak_mb", "session_id",
        "shown_busy", "slow_until", "started", "tenant", "thread_cpu", "thread_heap", "waited", "waits", "worst_block",
        "worst_delay",
    )  # fmt: skip

    def __init__(self, session_id: str, agent_name: str, metadata: Mapping[str, Any], started: float) -> None:
        self.session_id = session_id
        self.agent_name = agent_name
        self.metadata = metadata
        """The mapping that was given; only its `tenant` ever leaves the process."""
        self.tenant = tenant_of(metadata)
        self.label = label_of(session_id, agent_name, self.tenant)
        """Its names, for who reads them without the GIL."""
        self.started = started
        """Clock reading at its start."""
        self.loop: str | None = None
        """Name of the loop that its scope was entered on; None: no attached one."""
        self.accounts: list[Account] = []
        """One for each loop that its tasks have run on."""
        self.peak_mb = 0.0
        self.shown_busy = 0.0
        """The seconds of loop time that snapshots have shown so far: no later one shows less. A thread may lose the
        processor or the GIL right after a step's last clock reading: a snapshot of that moment shows a longer step."""
        self.noted = 0
        """Rises with each block, delay and call in a thread, and each change of `waits`, so that a reader need not
        compare them."""
        self.blocks = 0
        self.worst_block = 0.0
        """Seconds."""
        self.slow_until = float("-inf")
        """Clock reading until which it is shown as slow."""
        self.delayed = 0.0
        """Seconds for which others' blocks delayed it."""
        self.worst_delay = 0.0
        self.thread_cpu = 0.0
        """CPU seconds of its calls in threads, once they have ended."""
        self.thread_heap = 0
        """Bytes that its calls in threads have allocated less those they freed, once they have ended."""
        self.waits: str | None = None
        """The kind of what it was last seen waiting for. None: it has not been seen so, or was busy since."""
        self.waited: WaitedTime | None = None
        """What it was seen waiting for, and for how long. None: nobody has looked so far."""
        self.ended = False
        self.ended_at = float("inf")
        """Clock reading at its end."""
        self.context_marker: weakref.ref[ContextMarker] | None = None
        """Dead once nothing of the session's context lives. None: memory by session is not measured."""
        self.held_at_end = self.given_back_at_end = 0
        """Bytes that it held when it ended, and bytes that all code had freed by then."""
        self.marks = (started, 0.0, started, 0.0)
        """The last two marks, the older first: clock reading, `busy`."""
        self._heap_marks: tuple[tuple[float, int], ...] = ((started, 0),)

    def __repr__(self) -> str:
        return f"<Session {self.session_id!r} agent_name={self.agent_name!r}>"

    @property
    def busy(self) -> float:
        """Return the seconds for which it has held loops, without steps in progress."""
        return sum(account.busy for account in self.accounts)

    @property
    def steps(self) -> int:
        """Return the number of its steps that have ended."""
        return sum(account.steps for account in self.accounts)

    @property
    def last_step(self) -> float:
        """Return the clock reading at the end of its last step; at its start, if it has none."""
        return max((account.last_step for account in self.accounts), default=self.started)

    @property
    def tasks(self) -> int:
        """Return the number of its live tasks.

        These are the task inside the scope and those created in its context.
        """
        return max(0, sum(account.tasks for account in self.accounts))

    @property
    def held(self) -> int:
        """Return the bytes that it has allocated, less those that it freed.

        Its steps count, and its calls in threads.
        """
        return self.thread_heap + sum(account.heap for account in self.accounts)

    def held_at_least(self, given_back: int) -> int:
        """Return the bytes that it certainly still holds after its end.

        That is what it held at its end, less all that others have freed since, as if it were the session's.
        given_back: bytes that all code has freed by now.
        """
        its_own = max(0, self.held_at_end - self.held)
        others = max(0, given_back - self.given_back_at_end - its_own)
        return max(0, self.held - others)

    def has_computed(self, cpu_s: float, heap: int) -> None:
        """Add what one of its calls in a thread has used.

        cpu_s: seconds. heap: bytes allocated less freed.
        """
        with _write_lock:
            self.thread_cpu += cpu_s
            self.thread_heap += heap
            self.noted += 1

    def has_blocked(self, seconds: float, slow_until: float) -> None:
        """Count a block that it caused.

        seconds: the block's length. slow_until: the clock reading until which the session shows as slow.
        """
        with _write_lock:
            self.blocks += 1
            self.worst_block = max(self.worst_block, seconds)
            self.slow_until = max(self.slow_until, slow_until)
            self.noted += 1

    def was_delayed(self, seconds: float, *, exact: bool) -> None:
        """Count a delay by another session's block.

        Without `exact`, `seconds` is an upper bound, of which half is charged.
        """
        with _write_lock:
            self.delayed += seconds if exact else seconds / 2
            self.worst_delay = max(self.worst_delay, seconds)
            self.noted += 1

    def show_wait(self, kind: str | None) -> None:
        """Set the kind of what it waits for."""
        if kind is not self.waits:
            with _write_lock:
                self.waits = kind
                self.noted += 1

    def mark(self, now: float, busy: float) -> None:
        """Remember `busy`, so that `share` covers the last one to two seconds.

        Called about once a second.
        """
        self.marks = (*self.marks[2:], now, busy)

    def share(self, now: float, busy: float) -> float:
        """Return its share of the time since the last mark but one, in percent.

        On n loops that is up to n · 100.

        busy: the seconds that it has held loops until `now`.
        """
        since, before, _, _ = self.marks
        return percent(busy - before, now - since, 100.0 * (len(self.accounts) or 1))

    def mark_heap(self, now: float) -> None:
        """Remember `held` each ten seconds, for a minute.

        Called about once a second if memory is measured.
        """
        if now - self._heap_marks[-1][0] >= HEAP_MARK_S:
            self._heap_marks = (*self._heap_marks[-HEAP_MARKS + 1 :], (now, self.held))

    def heap_growth(self, now: float) -> float | None:
        """Return the growth of `held` over the last minute, in bytes a minute.

        None in the first ten seconds.
        """
        since, before = self._heap_marks[0]
        return 60.0 * (self.held - before) / (now - since) if now - since >= HEAP_MARK_S else None


_write_lock = threading.Lock()
"""Held to add a block, a delay or a call in a thread to a session: rarely, and from any thread."""


Binding = ContextVar[Session]
"""A context variable of the session that code runs for.

It is unset, not None, outside of sessions, so that a step's look-up is a single `get(default)`. Each introspector has
a binding of its own, so that two on one loop (a test's and the program's) charge only their own sessions.
"""

innermost: Binding = ContextVar("openrtc_session")
"""Read by `current_session`: the innermost session of any introspector."""

context_marker: ContextVar[ContextMarker] = ContextVar("openrtc_context_marker")
"""Set beside the session, if memory by session is measured."""


def session_of(owner: Owner | None) -> Session | None:
    """Return an account's owner as a session, which every owner is.

    Accounting itself knows only Owner.
    """
    return cast("Session | None", owner)


def current_session() -> Session | None:
    """Return the session that the calling code runs for.

    None outside of every session's scope.

    Tasks inherit their session from the code that creates them. Of nested sessions, also of several introspectors, it
    is the innermost. In tasks that outlive their session it is None.
    """
    session = innermost.get(None)
    return session if session is not None and not session.ended else None


def unmeasured_session(session_id: str, agent_name: str, metadata: Mapping[str, Any]) -> Session:
    """Return a session that is not registered.

    Nothing is charged to it, and it counts as ended.
    """
    session = Session.__new__(Session)
    session.session_id, session.agent_name, session.metadata = session_id, agent_name, metadata
    session.tenant = session.loop = session.context_marker = session.waits = session.waited = None
    session.accounts = []
    session.started = session.ended_at = session.thread_cpu = session.worst_block = session.worst_delay = 0.0
    session.blocks = session.thread_heap = session.noted = 0
    session.ended = True
    return session


def label_of(session_id: str, agent_name: str, tenant: str | None) -> bytes:
    """Return a session's names as the stall sampler in C writes them.

    Its id, a zero byte, and its members in JSON. Empty: the meter is in Python, and nobody reads them.
    """
    if native is None:
        return b""
    members = msgspec.json.encode({"session_id": session_id, "agent_name": agent_name, "tenant": tenant})
    return b"%b\0%b" % (session_id.replace("\0", "?").encode("utf-8", "replace"), members[1:-1])


def tenant_of(metadata: Mapping[str, Any]) -> str | None:
    """Return the tenant among a session's metadata; None: it has none."""
    tenant: str | None = metadata.get("tenant")
    return tenant
