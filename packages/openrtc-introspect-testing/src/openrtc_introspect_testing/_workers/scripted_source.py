"""The snapshots, blocks, tasks and stacks that a scripted worker serves."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

from msgspec.structs import replace

from openrtc_introspect_core.wire import (
    Block,
    Snapshot,
    Stacks,
    StacksRequest,
    TaskInfo,
    Tasks,
    TasksRequest,
    ThreadStack,
    Waits,
    WaitsRequest,
)


class ScriptedSource(ABC):
    """A source that a test has written.

    The core's server asks it as it asks a real worker, on the server's own thread, and so does a RawServer.

    history: the blocks, oldest first. tasks: by session id, alone or in a whole answer; a session that is not among
    them is not found.
    stacks: the threads. waits: what the tasks wait for; None: nothing.
    """

    def __init__(
        self,
        history: Sequence[Block] = (),
        tasks: Mapping[str, Sequence[TaskInfo] | Tasks] | None = None,
        stacks: Sequence[ThreadStack] = (),
        waits: Waits | None = None,
    ) -> None:
        self.history = list(history)
        self._tasks = dict(tasks or {})
        self._stacks = list(stacks)
        self._waits = waits if waits is not None else Waits(id=0)

    @abstractmethod
    def snapshot(self) -> Snapshot:
        """Return the next snapshot, or raise as a worker's own failure would."""

    def blocks(self, since: int) -> list[Block]:
        return [block for block in self.history if block.seq > since]

    def tasks(self, request: TasksRequest) -> Tasks | None:
        tasks = self._tasks.get(request.session_id)
        if tasks is None:
            return None
        if isinstance(tasks, Tasks):
            return replace(tasks, id=request.id, session_id=request.session_id)
        return Tasks(id=request.id, session_id=request.session_id, taken_at=time.time(), tasks=list(tasks))

    def stacks(self, request: StacksRequest) -> Stacks:
        return Stacks(id=request.id, taken_at=time.time(), threads=self._stacks)

    def waits(self, request: WaitsRequest) -> Waits:
        return replace(self._waits, id=request.id)
