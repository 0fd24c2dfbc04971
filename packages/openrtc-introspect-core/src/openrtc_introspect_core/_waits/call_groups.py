"""Calls in threads, grouped by session and function."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .._accounting.account import Owner
from .._os.stacks import Call, Places
from .._sessions.session import session_of
from ..wire._messages import ThreadCallGroup

MAX_GROUPS = 20
"""The groups that are listed: those with the most calls."""


@dataclass(slots=True)
class _Group:
    session: Owner | None
    function: str
    running: int = 0
    queued: int = 0
    running_since: float | None = None
    """Clock reading at which the oldest of those that run began. None: not known."""
    queued_since: float | None = None
    """Clock reading at which the oldest of those that wait was handed over. None: not known."""
    at: Call | None = None
    """The line at which the oldest of those that run is. None: none is known."""
    first_line: Call | None = None


class CallGroups:
    """The calls of one pool. Clock readings; None where a time is not known."""

    def __init__(self, now: float, places: Places) -> None:
        self._now = now
        self._places = places
        self._groups: dict[tuple[Owner | None, str], _Group] = {}

    def add_running(
        self,
        session: Owner | None,
        function: str,
        since: float | None,
        stack: Sequence[Call] = (),
        first_line: Call | None = None,
    ) -> None:
        """Add a call that runs. stack: its own calls, the innermost first, as far as they are known."""
        group = self._of(session, function)
        group.running += 1
        group.first_line = first_line
        is_oldest = group.running == 1 or (since is not None and since < (group.running_since or self._now))
        if is_oldest:
            group.running_since = since
            group.at = self._places.innermost(stack)

    def add_queued(self, session: Owner | None, function: str, since: float | None, first_line: Call | None) -> None:
        """Add a call that waits for a thread. since: when it was handed over."""
        group = self._of(session, function)
        group.queued += 1
        group.first_line = first_line
        if since is not None:
            group.queued_since = min(since, group.queued_since if group.queued_since is not None else since)

    def _of(self, session: Owner | None, function: str) -> _Group:
        group = self._groups.get((session, function))
        if group is None:
            group = self._groups[session, function] = _Group(session, function)
        return group

    @property
    def longest_queued_s(self) -> float | None:
        """Return the seconds for which the oldest call has waited. None: none waits, or it is not known."""
        return self._for(min((each.queued_since for each in self._groups.values() if each.queued_since), default=None))

    def listed(self) -> list[ThreadCallGroup]:
        """Return the groups, those with the most calls first."""
        most = sorted(self._groups.values(), key=lambda group: -(group.running + group.queued))[:MAX_GROUPS]
        return [self._described(group) for group in most]

    def _described(self, group: _Group) -> ThreadCallGroup:
        session = session_of(group.session)
        at = group.at or group.first_line
        return ThreadCallGroup(
            session_id=session.session_id if session is not None else None,
            agent_name=session.agent_name if session is not None else None,
            tenant=session.tenant if session is not None else None,
            function=group.function,
            location=self._places.location(at) if at is not None else None,
            running=group.running,
            queued=group.queued,
            longest_running_s=self._for(group.running_since),
            longest_queued_s=self._for(group.queued_since),
        )

    def _for(self, since: float | None) -> float | None:
        return max(0.0, self._now - since) if since is not None else None
