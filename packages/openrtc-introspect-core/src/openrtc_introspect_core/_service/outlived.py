"""Sessions that have ended and whose tasks go on: work that was begun in one session's context, and serves others."""

from __future__ import annotations

from dataclasses import dataclass, field

from .._sessions.session import OUTLIVED_AFTER_S, Session
from ..wire._messages import Outlived, TaskInfo
from .attached_loops import AttachedLoops
from .inspection import tasks_of
from .moment import Moment
from .shared import Shared

MAX_OUTLIVED = 10
"""The number of such sessions listed: those with the most loop time."""
LOOK_AGAIN_S = 5.0
"""Seconds after which the tasks of such a session are looked at again: that goes through all tasks."""


@dataclass(slots=True)
class OutlivedSessions:
    """The sessions of one introspector that their tasks have outlived. The service thread calls `tick`."""

    shared: Shared
    loops: AttachedLoops
    _shown: list[Session] = field(default_factory=list)
    _tasks: dict[Session, tuple[float, TaskInfo | None]] = field(default_factory=dict)
    """By session: when its tasks were looked at, and the one that is shown."""

    def tick(self, moment: Moment) -> None:
        """Find the sessions and name their tasks. About once a second."""
        now, found = moment.now, []
        for session in self.shared.sessions.outlived(moment.now - OUTLIVED_AFTER_S):
            session.mark(now, moment.busy_of(session))
            for loop in self.loops:
                loop.ledger.accounts.outlives(session)
            found.append((session.share(now, session.marks[3]), session))
        found.sort(key=lambda each: -each[0])
        self._shown = [session for _, session in found[:MAX_OUTLIVED]]
        before, self._tasks = self._tasks, {}
        for session in self._shown:
            when, task = before.get(session, (float("-inf"), None))
            if now - when >= LOOK_AGAIN_S:
                when, task = now, self._latest(session) or task
            self._tasks[session] = when, task

    def _latest(self, session: Session) -> TaskInfo | None:
        """Return the task that steps, or will next. None: all wait, and there are several."""
        tasks, _ = tasks_of(session, [loop.hook for loop in self.loops], self.shared.places)
        stepping = [task for state in ("running", "ready") for task in tasks if task.state == state]
        return next(iter(stepping if stepping or len(tasks) > 1 else tasks), None)

    def infos(self, moment: Moment) -> list[Outlived]:
        """Return what a snapshot of this moment says of them."""
        timed = self.shared.settings.cpu != "off"
        infos = []
        for session in self._shown:
            if (tasks := session.tasks) <= 0:
                continue
            busy = moment.busy_of(session)
            _, task = self._tasks.get(session, (0.0, None))
            infos.append(
                Outlived(
                    session_id=session.session_id,
                    agent_name=session.agent_name,
                    tenant=session.tenant,
                    ended_at=self.shared.wall.at(session.ended_at),
                    tasks=tasks,
                    cpu_pct=session.share(moment.now, busy) if timed else None,
                    cpu_s=busy if timed else None,
                    task_name=task.name if task is not None else None,
                    coroutine=task.coroutine if task is not None else None,
                )
            )
        return sorted(infos, key=lambda info: -(info.cpu_pct or 0.0))
