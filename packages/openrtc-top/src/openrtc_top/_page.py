"""The page of one session: which one, what was last known of it, and what its worker told when asked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from openrtc_top._cursor import Scroll
from openrtc_top._tree import Task

if TYPE_CHECKING:
    from openrtc_introspect_core.wire import Location, SessionRow, Snapshot


@dataclass(frozen=True, slots=True)
class Inspection:
    """What a worker told of one session."""

    tasks: Sequence[Task] | None = None
    """Its live tasks. None: this worker does not tell."""
    truncated: bool = False
    """There are more tasks than the worker told."""
    stack: Sequence[Location] | None = None
    """Where its task was while it held the loop, innermost last; empty: it did not. None: not told."""
    problem: str = ""
    """Why something is not told, in one line."""


@dataclass(frozen=True, slots=True)
class SessionPage:
    """What the page shows, but for its blocks and its history, which its worker has."""

    worker: str
    """The worker's key."""
    session: SessionRow
    """As last seen."""
    ended: bool = False
    told: Inspection | None = None
    """None: the answer has not come yet."""
    scroll: Scroll = field(default_factory=Scroll)

    @property
    def identity(self) -> tuple[str, str]:
        return self.worker, self.session.session_id

    def after(self, snapshot: Snapshot | None) -> SessionPage:
        """With what its worker's newest snapshot tells."""
        if snapshot is None:
            return self
        session_id = self.session.session_id
        found = next((session for session in snapshot.sessions if session.session_id == session_id), None)
        return replace(self, ended=True) if found is None else replace(self, session=found, ended=False)
