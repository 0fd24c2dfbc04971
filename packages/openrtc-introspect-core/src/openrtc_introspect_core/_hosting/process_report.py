"""The report of a worker in process mode, with the figures of its processes.

Nothing inside of the processes is measured. The service thread samples their processor time and memory once a second
and for each snapshot; the loop's thread only adds and removes sessions.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import platform
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import psutil

from .._accounting.account import Account
from .._base import fork
from .._base.clock import WallTime, perf_counter
from .._base.notes import Notes
from .._base.units import MIB
from .._os.host_vitals import CGROUP_UNREAD, HostVitals
from .._service.own_socket import OwnSocket, until_ended
from .._service.worker_service import WorkerService
from .._service.worker_source import hello
from .._sessions.registry import SessionRegistry
from .._sessions.session import Session
from .._sessions.settings import Settings
from ..wire._endpoint import sockets_available
from ..wire._messages import (
    Block,
    SessionRow,
    Snapshot,
    Stacks,
    StacksRequest,
    Status,
    Tasks,
    TasksRequest,
    Waits,
    WaitsRequest,
    WorkerInfo,
)

_INTERVAL_S = 1.0


@dataclass(slots=True)
class Hosted:
    """A session's process, and its latest sample."""

    session: Session
    process: psutil.Process | None = None
    """None: it has not started, or ended at once."""
    rss_mb: float = 0.0
    cpu_s: float = 0.0
    """Processor time in seconds."""
    marks: tuple[tuple[float, float], tuple[float, float]] = field(init=False)
    """(clock reading, cpu_s) of the last two samples, the older first."""

    def __post_init__(self) -> None:
        self.marks = ((self.session.started, 0.0),) * 2

    def attach(self, pid: int) -> None:
        """Sample the process of this id from now on."""
        with contextlib.suppress(psutil.Error):  # it has ended already
            self.process = psutil.Process(pid)

    def sample(self, now: float) -> None:
        """Update memory and processor time. now: clock reading."""
        if self.process is None:
            return
        with contextlib.suppress(psutil.Error):  # it has ended
            self.rss_mb = self.process.memory_info().rss / MIB
            times = self.process.cpu_times()
            self.cpu_s = times.user + times.system
        self.session.peak_mb = max(self.session.peak_mb, self.rss_mb)
        self.marks = self.marks[1], (now, self.cpu_s)

    def cpu_pct(self) -> float:
        """Return the use of one processor between the last two samples, in percent."""
        (before, spent_before), (now, spent) = self.marks
        return 100.0 * max(0.0, spent - spent_before) / (now - before) if now > before else 0.0


class ProcessReport:
    """The socket of a worker in process mode, and the samples of its processes."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._wall = WallTime(perf_counter)
        self._hosted: dict[str, Hosted] = {}
        self._notes = Notes(settings.name)
        self._host = HostVitals(psutil.Process(), partial(self._notes.add, "cgroup", CGROUP_UNREAD))
        self._own_mb = 0.0
        self._sessions = SessionRegistry(settings.name, perf_counter, self._notes)
        self._epoch = uuid.uuid4().hex[:16]
        self._sequence = itertools.count(1)
        self._started = perf_counter()
        self._loop = ""
        self._service: WorkerService | None = None
        self._socket: OwnSocket | None = None
        self.draining = False

    @property
    def name(self) -> str:
        """The worker's name."""
        return self._settings.name

    @property
    def socket_path(self) -> Path | None:
        """The path of its socket. None: it has none now."""
        return self._socket.path if self._socket is not None else None

    def note(self, topic: str, text: str | None) -> None:
        """Set the note on a topic; None removes it."""
        self._notes.of_host(topic, text)

    def open(self, loop: str) -> None:
        """Serve from now on. Raises EndpointError if the socket cannot be made safely.

        loop: the kind of loop that snapshots name.
        """
        self._loop = loop
        if self._settings.socket_path is not False and sockets_available():
            self._socket = OwnSocket(self.name, self._settings.path)
        self._service = WorkerService(
            listener=self._socket.listener if self._socket is not None else None,
            source=self,
            hello=hello(self.name, self._epoch, without=("tasks", "stacks", "waits")),
            clock=perf_counter,
            interval_s=_INTERVAL_S,
            idle=lambda: not self._sessions.live,
            tick=self.tick,
            on_fault=lambda probe, error: self._notes.add(probe, f"{probe} is switched off: {error!r}", error),
        )
        self.tick(perf_counter())
        self._service.start()
        fork.attached.add(self)

    async def aclose(self) -> None:
        """Remove the socket and end the thread, for which it waits at most two seconds."""
        fork.attached.discard(self)
        if self._service is None:
            return
        self._service.stop()
        own, self._socket = self._socket, None
        if own is not None:
            own.remove()
        await until_ended([self._service])

    def abandon_after_fork(self) -> None:
        """Forget the thread and the socket in a forked child; both are the parent's."""
        self._service = None
        if self._socket is not None:
            self._socket.listener.close()

    @contextlib.contextmanager
    def session(self, session_id: str, agent_name: str, metadata: Mapping[str, Any]) -> Iterator[Hosted]:
        """Report a session while the `with` block lasts.

        An exception that leaves the block is its error.
        """
        session = Session(session_id, agent_name, metadata, perf_counter())
        self._sessions.add(session)
        hosted = self._hosted[session_id] = Hosted(session)
        failure: Exception | None = None
        try:
            yield hosted
        except Exception as error:
            failure = error
            raise
        finally:
            del self._hosted[session_id]
            spent = Account()
            spent.busy = hosted.cpu_s
            session.accounts.append(spent)
            session.ended_at = perf_counter()
            self._sessions.remove(session, error=failure)

    # --- the service thread's ---------------------------------------------------------------------

    def tick(self, now: float) -> None:
        """Sample the host and each process, and forget old failures. now: clock reading."""
        self._host.sample(now)
        self._own_mb = psutil.Process().memory_info().rss / MIB
        for hosted in list(self._hosted.values()):
            hosted.sample(now)
        self._sessions.retire()
        self._sessions.failures.forget(now)

    def blocks(self, since: int) -> list[Block]:
        """Return no blocks: loops are not measured."""
        return []

    def tasks(self, request: TasksRequest) -> Tasks | None:
        return None  # not offered: the hello leaves this request out

    def stacks(self, request: StacksRequest) -> Stacks:
        return Stacks(id=request.id)  # not offered either

    def waits(self, request: WaitsRequest) -> Waits:
        return Waits(id=request.id)  # nor this

    def snapshot(self) -> Snapshot:
        """Return the worker and its sessions; old samples are renewed first."""
        now = perf_counter()
        errored = self._sessions.failures.shown(now, self._sessions.live)
        hosted = list(self._hosted.values())
        for each in hosted:
            if now - each.marks[1][0] >= _INTERVAL_S / 2:
                each.sample(now)
        status: Status = "draining" if self.draining else "active"
        rows = [
            SessionRow(
                session_id=each.session.session_id,
                agent_name=each.session.agent_name,
                tenant=each.session.tenant,
                started_at=self._wall.at(each.session.started),
                duration_s=max(0.0, now - each.session.started),
                cpu_pct=each.cpu_pct(),
                cpu_s=each.cpu_s,
                tasks=None,
                mem_mb=each.rss_mb,
                peak_mb=each.session.peak_mb,
                status=status,
            )
            for each in hosted
        ]
        rows += [
            SessionRow(
                session_id=session.session_id,
                agent_name=session.agent_name,
                tenant=session.tenant,
                started_at=self._wall.at(session.started),
                duration_s=ended_at - session.started,
                cpu_pct=0.0,
                cpu_s=session.busy,
                tasks=None,
                peak_mb=session.peak_mb,
                status="errored",
                error=error,
            )
            for session, ended_at, error in errored
        ]
        return Snapshot(
            seq=next(self._sequence),
            taken_at=self._wall.at(now),
            worker=WorkerInfo(
                name=self.name,
                pid=os.getpid(),
                epoch=self._epoch,
                loop=self._loop,
                python=platform.python_version(),
                isolation="process",
                started_at=self._wall.at(self._started),
                uptime_s=now - self._started,
                cpu="off",
                slow_session_threshold_ms=self._settings.slow_session_threshold_ms,
                sessions=len(hosted),
                max_sessions=self._settings.max_sessions,
                started=self._sessions.started,
                errored=self._sessions.errored,
                draining=self.draining,
                rss_mb=self._own_mb + sum(each.rss_mb for each in hosted),
                memory_limit_mb=self._settings.memory_limit_mb,
                host=self._host.now(),
                cgroup=self._host.cgroup,
                notes=self._notes.lines(),
            ),
            sessions=rows,
        )
