"""A task or a thread as the holder of what others wait for, in the wire's form."""

from __future__ import annotations

from collections.abc import Sequence
from types import FrameType
from typing import Any

from .._base.clock import WallTime
from .._loops.suspended import SuspendedTask
from .._os.stacks import Call, Places, take
from .._sessions.session import Session
from ..wire._messages import Holder
from .found import line_in
from .tasks_waited import name_of_task


def suspended_holder(
    seen: SuspendedTask,
    chain: Sequence[Any],
    places: Places,
    wall: WallTime,
    *,
    taken_at: Call | None,
    waits: str | None = None,
    certain: bool = True,
) -> Holder:
    """Return a suspended task as a holder.

    chain: its suspended coroutines, outermost first. waits: the kind of what it waits for; None: not known.
    """
    line = line_in(chain, places)
    session = seen.session if isinstance(seen.session, Session) and not seen.session.ended else None
    return Holder(
        session_id=session.session_id if session is not None else None,
        agent_name=session.agent_name if session is not None else None,
        tenant=session.tenant if session is not None else None,
        task_name=name_of_task(seen.task),
        since=wall.at(seen.since) if seen.since is not None else None,
        location=places.location(Call(*line)) if line is not None else None,
        taken_at=places.location(taken_at) if taken_at is not None else None,
        waits=waits,
        certain=certain,
    )


def running_holder(task: Any, places: Places, *, taken_at: Call | None, certain: bool) -> Holder:
    """Return a task that runs now, or has gone on, as a holder."""
    at = places.location(taken_at) if taken_at is not None else None
    return Holder(task_name=name_of_task(task), taken_at=at, certain=certain)


def thread_holder(
    name: str, frame: FrameType | None, places: Places, *, taken_at: Call | None, certain: bool = True
) -> Holder:
    """Return a thread as a holder, with the line that it is at."""
    calls, _ = take(frame, ())
    innermost = places.innermost(calls)
    return Holder(
        thread=name,
        location=places.location(innermost) if innermost is not None else None,
        taken_at=places.location(taken_at) if taken_at is not None else None,
        certain=certain,
    )
