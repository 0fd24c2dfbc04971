"""The source of what one worker serves: its hello, and the answers to requests."""

from __future__ import annotations

import os
from collections.abc import Callable, Container
from typing import TypeVar

from msgspec.structs import replace

from .._accounting.ledger import times_steps
from .._sessions.session import Session
from .._version import __version__
from .._waits.activity import Activity
from .._waits.creations import creations
from .._waits.executors import executors
from .._waits.survey import survey
from .._waits.wall_time import wall_time
from ..wire._messages import (
    CAPABILITIES,
    PROTOCOL_MAJOR,
    PROTOCOL_MINOR,
    Block,
    Hello,
    LoopActivity,
    Snapshot,
    Stacks,
    StacksRequest,
    Tasks,
    TasksRequest,
    Waits,
    WaitsRequest,
    WallTime,
)
from ..wire._row_table import RowTable
from .inspection import tasks_of, thread_stacks
from .moment import read_moment
from .session_table import SessionTable
from .snapshot_builder import SnapshotBuilder

_Part = TypeVar("_Part")

_ACTIVITY = "what loops do beside steps"


def hello(name: str, epoch: str, without: Container[str] = ()) -> Hello:
    """Return the hello of a worker of this name.

    `without`: types of requests that it does not answer.
    """
    return Hello(
        protocol=f"{PROTOCOL_MAJOR}.{PROTOCOL_MINOR}",
        worker=name,
        pid=os.getpid(),
        epoch=epoch,
        version=__version__,
        capabilities=[each for each in CAPABILITIES if each not in without],
    )


class WorkerSource:
    """The answers that the service thread sends.

    Its rows yield the GIL while they are brought up to date.
    """

    def __init__(self, builder: SnapshotBuilder) -> None:
        self._builder = builder
        self._shared = builder.shared
        self._shared.places.load()

    def snapshot(self) -> Snapshot:
        return self._builder.snapshot()

    def table(self) -> RowTable:
        return SessionTable(self._builder)

    def blocks(self, since: int) -> list[Block]:
        return self._shared.history.since(since)

    def tasks(self, request: TasksRequest) -> Tasks | None:
        session = self._shared.sessions.live.get(request.session_id)
        if session is None:
            return None
        now = self._now()
        tasks, truncated = tasks_of(session, [loop.hook for loop in self._builder.loops], self._shared.places)
        return Tasks(
            id=request.id,
            session_id=request.session_id,
            taken_at=now,
            tasks=tasks,
            truncated=truncated,
            wall_time=self._wall_time(session),
        )

    def stacks(self, request: StacksRequest) -> Stacks:
        now = self._now()
        hooks = [loop.hook for loop in self._builder.loops]
        return Stacks(id=request.id, taken_at=now, threads=thread_stacks(hooks, self._shared.places))

    def waits(self, request: WaitsRequest) -> Waits:
        shared, loops = self._shared, tuple(self._builder.loops)
        hooks = [loop.hook for loop in loops]
        names = {id(loop.ledger): loop.name for loop in loops} if len(loops) > 1 else {}
        named = [(names.get(id(hook.ledger), hook.kind), hook) for hook in hooks]
        activity = Activity(named)

        def sample() -> list[LoopActivity]:
            activity.sample()
            return []

        try:
            waits = survey(
                hooks,
                shared.places,
                shared.clock,
                shared.wall,
                self._task_not_seen,
                lambda: self._part(_ACTIVITY, sample),
            )
            return replace(
                waits,
                id=request.id,
                executors=self._part("pools of threads", lambda: executors(shared.thread_calls, names, shared.places)),
                creations=self._part(
                    "where threads and tasks were started",
                    lambda: creations(hooks, shared.thread_starts, shared.places, shared.clock()),
                ),
                loops=self._part(_ACTIVITY, lambda: activity.finish(shared.wall, shared.places)),
            )
        finally:
            activity.stop()

    def _task_not_seen(self, error: Exception) -> None:
        self._shared.notes.add("waits", f"what some tasks wait for is not known: {error!r}", error)

    def _part(self, name: str, make: Callable[[], list[_Part]]) -> list[_Part]:
        """Return a part of an answer. Empty, with a note, from its first fault on."""
        notes = self._shared.notes
        if name in notes:
            return []
        try:
            return make()
        except Exception as error:
            notes.add(name, f"not shown any more: {name}: {error!r}", error)
            return []

    def _wall_time(self, session: Session) -> WallTime | None:
        waits = self._shared.waits
        moment = read_moment(self._builder.loops, self._shared.clock)
        if waits is None or not all(times_steps(loop.ledger) for loop, _, _ in moment.loops):
            return None
        delays = {loop.name: loop.hook.delays.available for loop, _, _ in moment.loops}
        return wall_time(
            session,
            moment.now,
            busy=moment.busy_of(session),
            delays_known=delays.get(session.loop or "", any(delays.values())),
            passed=waits.passed,
        )

    def _now(self) -> float:
        return self._shared.wall.at(self._shared.clock())
