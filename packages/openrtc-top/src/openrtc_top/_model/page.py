"""The page of one session: its last known row, and its worker's answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from openrtc_top._model.cursor import Scroll
from openrtc_top._model.tree import Task

if TYPE_CHECKING:
    from openrtc_introspect_core.wire import Location, SessionRow, Snapshot, WallTime


@dataclass(frozen=True, slots=True)
class Inspection:
    """A worker's answer about one session."""

    tasks: Sequence[Task] | None = None
    """Its live tasks. None: this worker does not report them."""
    truncated: bool = False
    """There are more tasks than the worker sent."""
    stack: Sequence[Location] | None = None
    """Where its task was while it held the loop, innermost last; empty: it did not. None: not reported."""
    problem: str = ""
    """The reason why something is missing, in one line."""
    wall_time: WallTime | None = None
    """What the session's time went to. None: not reported."""


@dataclass(frozen=True, slots=True)
class SessionPage:
    """The page of one session, without blocks and history, which are the worker's."""

    worker: str
    """The worker's key."""
    session: SessionRow
    """The row as last seen."""
    ended: bool = False
    inspection: Inspection | None = None
    """None: no answer has come so far."""
    scroll: Scroll = field(default_factory=Scroll)

    @property
    def identity(self) -> tuple[str, str]:
        return self.worker, self.session.session_id

    def after(self, snapshot: Snapshot | None) -> SessionPage:
        """Return the page with the session's row in its worker's newest snapshot."""
        if snapshot is None:
            return self
        session_id = self.session.session_id
        found = next((session for session in snapshot.sessions if session.session_id == session_id), None)
        return replace(self, ended=True) if found is None else replace(self, session=found, ended=False)
