"""A worker that measures nothing and serves what it is told to, over the real protocol or against it."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from openrtc_introspect_core import __version__
from openrtc_introspect_core._service import Service
from openrtc_introspect_core.wire import (
    CAPABILITIES,
    PROTOCOL_MAJOR,
    PROTOCOL_MINOR,
    Block,
    Hello,
    Limits,
    Snapshot,
    Stacks,
    StacksRequest,
    TaskInfo,
    Tasks,
    TasksRequest,
    ThreadStack,
)
from openrtc_introspect_core.wire._endpoint import open_listener

from ._misbehaviour import MISBEHAVIOURS, Misbehaviour
from ._rawserver import ANSWERED, RawServer

_END_WITHIN_S = 5.0


class FakeWorker:
    """Serves scripted snapshots and blocks on a private socket, while the `with` block lasts.

        with FakeWorker([snapshot]) as worker:
            assert read_snapshot(worker.path) == snapshot

    It answers each request type that the core's server does, with that same server. A message that a later
    version adds is served like blocks are: from a list given here, through a method of the server's `Source`.

    snapshots: what is answered, one after the other; the last one stays. An exception is raised
        inside the server instead, as a worker's own failure would be.
    blocks: the history, oldest first.
    tasks: what each session's tasks are; a session that is not named here is not found.
    stacks: where the threads are.
    name, path: where to serve; by default in a directory of its own, removed at the end.
    limits: what clients are held to; by default what a worker's are.
    misbehave: how to break the protocol, or a client's heart, for tests of clients; see `MISBEHAVIOURS`.
        None: not at all.

    Raises ValueError for no snapshots or an unknown misbehaviour, EndpointError where it cannot serve.
    """

    def __init__(
        self,
        snapshots: Iterable[Snapshot | Exception],
        *,
        blocks: Sequence[Block] = (),
        tasks: Mapping[str, Sequence[TaskInfo]] | None = None,
        stacks: Sequence[ThreadStack] = (),
        name: str = "fake",
        limits: Limits | None = None,
        path: Path | None = None,
        misbehave: Misbehaviour | None = None,
    ) -> None:
        if misbehave is not None and misbehave not in MISBEHAVIOURS:
            raise ValueError(f"misbehave must be one of {', '.join(MISBEHAVIOURS)}, got {misbehave!r}")
        self._script = list(snapshots)
        if not self._script:
            raise ValueError("a worker needs at least one snapshot to serve")
        self._blocks = list(blocks)
        self._tasks = {session_id: list(infos) for session_id, infos in (tasks or {}).items()}
        self._stacks = list(stacks)
        self._own_directory: str | None = None
        self._raw: RawServer | None = None
        self.name = name
        self.limits = limits if limits is not None else Limits()
        self.path = path
        self.misbehave = misbehave
        self.snapshots_taken = 0
        self.faults: list[tuple[str, Exception]] = []
        """What went wrong in the service thread, as (part, error)."""

    def __enter__(self) -> FakeWorker:
        path = self.path
        if path is None:
            # Not in $TMPDIR: it may be too long for a socket's path.
            self._own_directory = tempfile.mkdtemp(prefix="openrtc-fake-", dir="/tmp")
            path = Path(self._own_directory) / f"{self.name}-{os.getpid()}.sock"
        listener, self.path = open_listener(self.name, path)
        hello = Hello(
            protocol=f"{PROTOCOL_MAJOR}.{PROTOCOL_MINOR}",
            worker=self.name,
            pid=os.getpid(),
            epoch="fake",
            version=__version__,
            capabilities=list(CAPABILITIES if self.misbehave is None else ANSWERED),
            limits=self.limits,
        )
        if self.misbehave is not None:
            conversation = MISBEHAVIOURS[self.misbehave]
            self._listener = listener
            self._raw = RawServer(
                listener, hello, self.snapshot, self._blocks, conversation, tasks=self._tasks, stacks=self._stacks
            ).__enter__()
            return self
        self._service = Service(
            listener=listener,
            source=self,
            hello=hello,
            clock=time.perf_counter,
            interval_s=3600.0,
            idle=lambda: False,
            tick=lambda now: None,
            on_fault=lambda part, error: self.faults.append((part, error)),
        )
        self._service.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._raw is not None:
            self._raw.__exit__()
            self._listener.close()
        else:
            self._service.stop()
            self._service.join(_END_WITHIN_S)
        assert self.path is not None
        self.path.unlink(missing_ok=True)
        if self._own_directory is not None:
            shutil.rmtree(self._own_directory)
        if self._raw is None and self._service.is_alive():
            raise TimeoutError(f"the service thread did not end within {_END_WITHIN_S:g} s")

    @property
    def heard(self) -> list[list[bytes]]:
        """The lines that each connection sent, where it misbehaves; a well-behaved one keeps none."""
        return self._raw.heard if self._raw is not None else []

    def then(self, *snapshots: Snapshot | Exception) -> None:
        """Serve these from now on."""
        self._script = list(snapshots)

    # --- what the server asks, on its own thread -------------------------------------------------

    def snapshot(self) -> Snapshot:
        self.snapshots_taken += 1
        script = self._script
        found = script.pop(0) if len(script) > 1 else script[0]
        if isinstance(found, Exception):
            raise found
        return found

    def blocks(self, since: int) -> list[Block]:
        return [block for block in self._blocks if block.seq > since]

    def tasks(self, request: TasksRequest) -> Tasks | None:
        tasks = self._tasks.get(request.session_id)
        if tasks is None:
            return None
        return Tasks(id=request.id, session_id=request.session_id, taken_at=time.time(), tasks=tasks)

    def stacks(self, request: StacksRequest) -> Stacks:
        return Stacks(id=request.id, taken_at=time.time(), threads=self._stacks)
