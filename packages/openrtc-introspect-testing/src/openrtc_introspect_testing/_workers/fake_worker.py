"""A worker that measures nothing and serves what a test has written.

It keeps to the wire protocol, or breaks it in one way.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from openrtc_introspect_core import __version__
from openrtc_introspect_core._service.worker_service import WorkerService
from openrtc_introspect_core.wire import (
    CAPABILITIES,
    PROTOCOL_MAJOR,
    PROTOCOL_MINOR,
    Block,
    Hello,
    Limits,
    Snapshot,
    TaskInfo,
    Tasks,
    ThreadStack,
    Waits,
)

from .listening import listening
from .misbehaviour import MISBEHAVIOURS, Misbehaviour
from .raw_server import RawServer
from .scripted_source import ScriptedSource

_END_WITHIN_S = 5.0


class FakeWorker(ScriptedSource):
    """A worker that serves a script on a private socket.

    It serves while the `with` block lasts:

        with FakeWorker([snapshot]) as worker:
            assert read_snapshot(worker.path) == snapshot

    The core's own server answers, so every request type is there. A message that a later version adds is served like
    the blocks: from an argument of this class, through a method of `ScriptedSource`.

    snapshots: the answers, one after the other; the last one stays. An exception among them is raised inside the
        server, as a worker's own failure would be.
    blocks: the history, oldest first.
    tasks: the tasks of each session, by its id, alone or in a whole answer; a session that is not among them is not
        found.
    stacks: the threads.
    waits: what the tasks wait for. None: nothing.
    name, path: where to serve; by default in a directory of its own, removed at the end.
    limits: the limits that clients are held to; by default a real worker's.
    misbehave: how to break the protocol, for tests of clients; a key of `MISBEHAVIOURS`. None: not at all.

    Raises ValueError for no snapshots or an unknown misbehaviour, EndpointError if it cannot serve.
    """

    def __init__(
        self,
        snapshots: Iterable[Snapshot | Exception],
        *,
        blocks: Sequence[Block] = (),
        tasks: Mapping[str, Sequence[TaskInfo] | Tasks] | None = None,
        stacks: Sequence[ThreadStack] = (),
        waits: Waits | None = None,
        name: str = "fake",
        limits: Limits | None = None,
        path: Path | None = None,
        misbehave: Misbehaviour | None = None,
    ) -> None:
        if misbehave is not None and misbehave not in MISBEHAVIOURS:
            raise ValueError(f"misbehave must be one of {', '.join(MISBEHAVIOURS)}, got {misbehave!r}")
        super().__init__(blocks, tasks, stacks, waits)
        self._script = list(snapshots)
        if not self._script:
            raise ValueError("a worker needs at least one snapshot to serve")
        self._raw: RawServer | None = None
        self._serving = ExitStack()
        self.name = name
        self.limits = limits if limits is not None else Limits()
        self.path = path
        self.misbehave = misbehave
        self.snapshots_taken = 0
        self.faults: list[tuple[str, Exception]] = []
        """What failed in the service thread, as (part, error)."""

    def __enter__(self) -> FakeWorker:
        with ExitStack() as serving:
            listener, self.path = serving.enter_context(listening(self.name, self.path))
            hello = Hello(
                protocol=f"{PROTOCOL_MAJOR}.{PROTOCOL_MINOR}",
                worker=self.name,
                pid=os.getpid(),
                epoch="fake",
                version=__version__,
                capabilities=list(CAPABILITIES),
                limits=self.limits,
            )
            if self.misbehave is not None:
                self._raw = serving.enter_context(RawServer(listener, hello, self, MISBEHAVIOURS[self.misbehave]))
            else:
                service = WorkerService(
                    listener=listener,
                    source=self,
                    hello=hello,
                    clock=time.perf_counter,
                    interval_s=3600.0,
                    idle=lambda: False,
                    tick=lambda now: None,
                    on_fault=lambda part, error: self.faults.append((part, error)),
                )
                service.start()
                serving.callback(_end, service)
            self._serving = serving.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._serving.close()

    @property
    def heard(self) -> list[list[bytes]]:
        """The lines that each connection sent to a misbehaving worker.

        A well-behaved worker keeps none.
        """
        return self._raw.heard if self._raw is not None else []

    def then(self, *snapshots: Snapshot | Exception) -> None:
        """Serve these snapshots from now on."""
        self._script = list(snapshots)

    def snapshot(self) -> Snapshot:
        self.snapshots_taken += 1
        script = self._script
        found = script.pop(0) if len(script) > 1 else script[0]
        if isinstance(found, Exception):
            raise found
        return found


def _end(service: WorkerService) -> None:
    service.stop()
    service.join(_END_WITHIN_S)
    if service.is_alive():
        raise TimeoutError(f"the service thread did not end within {_END_WITHIN_S:g} s")
