"""What a worker in process mode serves: its sessions' processes, as the operating system accounts for them.

Nothing inside of them is measured. Their processor time and memory are looked at by the service thread, once a
second and when it is asked; what the loop's thread writes is who is there.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import platform
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from . import _fork
from ._clock import WallTime, perf_counter
from ._failures import Failures
from ._host import HostVitals
from ._notes import Notes
from ._service import Service, hello
from ._serving import OwnSocket, until_ended
from ._sessions import MIB, Account, Session, SessionTable
from ._settings import Settings
from .wire._endpoint import sockets_available
from .wire._messages import Block, SessionRow, Snapshot, Stacks, StacksRequest, Status, Tasks, TasksRequest, WorkerInfo

_INTERVAL_S = 1.0


@dataclass(slots=True)
class Hosted:
    """A session's process, and what it had when it was last looked at."""

    session: Session
    process: psutil.Process | None = None
    """None: it is about to be started."""
    rss_mb: float = 0.0
    cpu_s: float = 0.0
    """Seconds of processor time."""
    marks: tuple[tuple[float, float], tuple[float, float]] = field(init=False)
    """(when, cpu_s) at the last look but one, and at the last."""

    def __post_init__(self) -> None:
        self.marks = ((self.session.started, 0.0),) * 2

    def attach(self, pid: int) -> None:
        """Its process runs."""
        with contextlib.suppress(psutil.Error):  # it has ended already
            self.process = psutil.Process(pid)

    def look(self, now: float) -> None:
        if self.process is None:
            return
        with contextlib.suppress(psutil.Error):  # it has ended
            self.rss_mb = self.process.memory_info().rss / MIB
            times = self.process.cpu_times()
            self.cpu_s = times.user + times.system
        self.session.peak_mb = max(self.session.peak_mb, self.rss_mb)
        self.marks = self.marks[1], (now, self.cpu_s)

    def cpu_pct(self) -> float:
        """Percent of one processor between the last two looks, half a second to two seconds apart."""
        (before, spent_before), (now, spent) = self.marks
        return 100.0 * max(0.0, spent - spent_before) / (now - before) if now > before else 0.0


class ProcessReport:
    """The socket of a worker in process mode, and a look at each process once a second."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._wall = WallTime(perf_counter)
        self._sessions = SessionTable()
        self._failures = Failures()
        self._hosted: dict[str, Hosted] = {}
        self._host = HostVitals(psutil.Process())
        self._own_mb = 0.0
        self._notes = Notes(settings.name)
        self._epoch = uuid.uuid4().hex[:16]
        self._sequence = itertools.count(1)
        self._started = perf_counter()
        self._loop = ""
        self._service: Service | None = None
        self._socket: OwnSocket | None = None
        self.draining = False

    @property
    def name(self) -> str:
        return self._settings.name

    @property
    def socket_path(self) -> Path | None:
        """Where it serves; None before and after, and where it serves nowhere."""
        return self._socket.path if self._socket is not None else None

    def note(self, topic: str, text: str | None) -> None:
        """Shows a line among the notes, until it is replaced; None takes it away."""
        self._notes.of_host(topic, text)

    def open(self, loop: str) -> None:
        """Serves from now on. Raises EndpointError where the socket cannot be made safely."""
        self._loop = loop
        if self._settings.socket_path is not False and sockets_available():
            self._socket = OwnSocket(self.name, self._settings.path)
        self._service = Service(
            listener=self._socket.listener if self._socket is not None else None,
            source=self,
            hello=hello(self.name, self._epoch, without=("tasks", "stacks")),
            clock=perf_counter,
            interval_s=_INTERVAL_S,
            idle=lambda: not self._sessions.live,
            tick=self.tick,
            on_fault=lambda probe, error: self.note(probe, f"{probe} is switched off: {error!r}"),
        )
        self.tick(perf_counter())
        self._service.start()
        _fork.attached.add(self)

    async def aclose(self) -> None:
        """Leaves no thread and no socket. Waits for the thread, at most two seconds."""
        _fork.attached.discard(self)
        if self._service is None:
            return
        self._service.stop()
        own, self._socket = self._socket, None
        if own is not None:
            own.remove()
        await until_ended([self._service])

    def abandon_after_fork(self) -> None:
        """In a forked child there are no threads, and the socket is the parent's."""
        self._service = None
        if self._socket is not None:
            self._socket.listener.close()

    @contextlib.contextmanager
    def session(self, session_id: str, agent_name: str, metadata: Mapping[str, Any]) -> Iterator[Hosted]:
        """The session lives while the block lasts. An exception that leaves it is its error."""
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
            self._sessions.remove(session, errored=failure is not None)
            if failure is not None:
                self._failures.add(session, perf_counter(), failure)

    # --- the service thread's ---------------------------------------------------------------------

    def tick(self, now: float) -> None:
        """Looks at each process."""
        self._host.sample(now)
        self._own_mb = psutil.Process().memory_info().rss / MIB
        for hosted in list(self._hosted.values()):
            hosted.look(now)
        self._sessions.retire()
        self._failures.forget(now)

    def blocks(self, since: int) -> list[Block]:
        return []

    def tasks(self, request: TasksRequest) -> Tasks | None:
        return None  # nobody is let ask: the hello leaves it out

    def stacks(self, request: StacksRequest) -> Stacks:
        return Stacks(id=request.id)  # likewise

    def snapshot(self) -> Snapshot:
        now = perf_counter()
        errored = self._failures.shown(now, self._sessions.live)
        hosted = list(self._hosted.values())
        for each in hosted:
            if now - each.marks[1][0] >= _INTERVAL_S / 2:
                each.look(now)
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
                notes=self._notes.told(),
            ),
            sessions=rows,
        )
