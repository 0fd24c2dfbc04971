"""AgentPool: many sessions in one worker, where the failure of one ends no other.

pool = AgentPool(slow_session_threshold_ms=50)
pool.add("restaurant", entrypoint)           # async def entrypoint(session): ...
await pool.start_session("restaurant", metadata={"tenant": "acme"})
await pool.serve()                           # or pool.run(), with a loop and signals of its own
"""

from __future__ import annotations

import signal
import threading
import uuid
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import anyio.abc

from .._base import validation
from .._base.errors import ArgumentError, SessionFailed, StateError
from .._base.log import QueuedLogger
from .._base.validation import check_metadata, check_text
from .._introspector import Introspector, parts_of
from .._service.own_socket import until_ended
from .._sessions.settings import StallLog
from ..wire._messages import Isolation
from .hosted import Agent, Entrypoint, InLoop, Place, PoolSession
from .limits import end_on_signals, keep_memory_limit, sessions

logger = QueuedLogger("openrtc.pool")


class AgentPool:
    """A pool that hosts the sessions of agents and introspects them.

    isolation: "coroutine": sessions are tasks of one loop. "process": each is a process of its own, and introspection
        is skipped; entrypoints and metadata must be picklable.
    enable_introspection: False starts no thread and no socket, and replaces no method; only log lines still come from
        a thread of their own.
    slow_session_threshold_ms: see Introspector.
    memory_limit_mb: the RSS in MB at which the pool drains, with a warning at 80 %; 0: no limit. In process mode it
        is the sum over all processes.
    max_sessions: how many sessions may run at once; 0: no limit.
    drain_timeout_s: seconds that a draining pool waits for its sessions before it cancels them. None: no timeout.
    stop_grace_s: seconds that the process of a cancelled session has before it is killed.
    name: the worker's name, in `openrtc top` and in the file name of its socket.
    black_box, stall_log: see Introspector. In process mode there is neither.
    introspection: further arguments of the Introspector, such as {"cpu": "sampled"}. In process mode only socket_path
        has an effect.

    Raises ArgumentError if the value of an argument is not accepted.
    """

    def __init__(
        self,
        *,
        isolation: Isolation = "coroutine",
        enable_introspection: bool = True,
        slow_session_threshold_ms: float = 50.0,
        memory_limit_mb: float = 0.0,
        max_sessions: int = 0,
        drain_timeout_s: float | None = None,
        stop_grace_s: float = 5.0,
        name: str = "worker",
        black_box: bool = True,
        stall_log: StallLog = "stderr",
        introspection: Mapping[str, Any] | None = None,
    ) -> None:
        validation.one_of("isolation", isolation, ("coroutine", "process"))
        self.name = name
        self._max_sessions = validation.whole("max_sessions", max_sessions)
        self._memory_limit_mb = validation.number("memory_limit_mb", memory_limit_mb, least=0)
        if drain_timeout_s is not None:
            validation.number("drain_timeout_s", drain_timeout_s, least=0)
        self._drain_timeout_s = drain_timeout_s
        validation.number("stop_grace_s", stop_grace_s, least=0)
        # Made even if it will not be started, so that wrong arguments are reported in either case.
        introspector = Introspector(
            name=name,
            slow_session_threshold_ms=slow_session_threshold_ms,
            memory_limit_mb=memory_limit_mb,
            max_sessions=max_sessions,
            black_box=black_box,
            stall_log=stall_log,
            **dict(introspection or {}),
        )
        self.introspector: Introspector | None = None
        """The introspector of its sessions. None: introspection is off, or the pool is in process mode."""
        self._place: Place
        if isolation == "process":
            from .process_report import ProcessReport
            from .processes import InProcesses

            self._place = InProcesses(
                ProcessReport(parts_of(introspector).shared.settings) if enable_introspection else None, stop_grace_s
            )
        else:
            self.introspector = introspector if enable_introspection else None
            self._place = InLoop(self.introspector)
        self.isolation = isolation
        self._agents: dict[str, Agent] = {}
        self._active: dict[str, PoolSession] = {}
        self._group: anyio.abc.TaskGroup | None = None
        self._served = False
        self._changed = anyio.Event()
        self._draining = False
        self.started = 0
        """How many sessions' entrypoints were called, or processes started."""
        self.failed = 0
        """How many sessions ended with an error."""
        self.ended_by: signal.Signals | None = None
        """The second signal, which stopped the pool. None: there was none."""

    @property
    def active(self) -> int:
        """How many sessions wait to start or run now."""
        return len(self._active)

    @property
    def draining(self) -> bool:
        """Whether the pool takes no new sessions."""
        return self._draining

    @property
    def socket_path(self) -> Path | None:
        """The path of the worker's socket. None: it has none now."""
        return self._place.socket_path

    def add(
        self, name: str, entrypoint: Entrypoint, *, sessions: int = 0, metadata: Mapping[str, Any] | None = None
    ) -> None:
        """Add an agent.

        entrypoint: an async function that takes a PoolSession.
        sessions: how many sessions start when the pool begins to serve; `start_session` starts more.
        metadata: the metadata of those sessions.

        Raises ArgumentError if the name is taken, the entrypoint is not an async function, the metadata is no mapping,
        or, in process mode, one of the two cannot be pickled.
        """
        check_text("agent name", name)
        if name in self._agents:
            raise ArgumentError(f"agent {name!r} is in this pool already: choose another name")
        self._place.check(name, entrypoint)
        metadata = check_metadata(metadata)
        self._place.check_metadata(metadata)
        self._agents[name] = Agent(entrypoint, validation.whole("sessions", sessions), metadata)

    async def start_session(
        self, agent: str, *, metadata: Mapping[str, Any] | None = None, session_id: str | None = None
    ) -> PoolSession:
        """Start a session of an agent and return it.

        It starts at once or as soon as the pool serves; its end is not waited for. session_id: None makes one up.

        Raises ArgumentError for an unknown agent, an id in use, or metadata that is no mapping or, in process mode,
        cannot be pickled; StateError if the pool is full, draining or done.
        """
        checked = check_metadata(metadata)
        self._place.check_metadata(checked)
        return self._start(agent, checked, session_id)

    def _start(self, agent: str, metadata: Mapping[str, Any], session_id: str | None) -> PoolSession:
        if agent not in self._agents:
            known = ", ".join(map(repr, self._agents)) or "none: add one first"
            raise ArgumentError(f"agent {agent!r} is not in this pool; it has {known}")
        if self._draining:
            raise StateError(f"pool {self.name!r} takes no new sessions: it is draining or done")
        self._check_room(1)
        session_id = check_text("session_id", session_id) if session_id is not None else f"job-{uuid.uuid4().hex[:8]}"
        if session_id in self._active:
            raise ArgumentError(f"session id {session_id!r} is live already: an id can be used again once it has ended")
        session = PoolSession(session_id, agent, metadata)
        self._active[session_id] = session
        if self._group is not None:
            self._group.start_soon(self._host, session, name=f"{agent} {session_id}")
        return session

    def _check_room(self, more: int) -> None:
        if self._max_sessions and more and len(self._active) + more > self._max_sessions:
            raise StateError(f"pool {self.name!r} is full: max_sessions is {self._max_sessions}")

    async def serve(
        self, *, handle_signals: bool = False, task_status: anyio.abc.TaskStatus[None] = anyio.TASK_STATUS_IGNORED
    ) -> None:
        """Run sessions until `stop`, or until `drain` and the end of the last one.

        A pool serves once.

        handle_signals: the first SIGINT or SIGTERM drains the pool, the second stops it, a third ends the process.
            This needs the main thread.
        task_status: that of a task group's `start`, which returns once the socket exists.

        Raises StateError if the pool has served before or would start more sessions than max_sessions, EndpointError
        if the socket cannot be made.
        """
        if self._served:
            raise StateError(f"pool {self.name!r} has served already: make a new one to serve again")
        if handle_signals and threading.current_thread() is not threading.main_thread():
            raise StateError("signals reach the main thread only: serve there, or without handle_signals")
        self._check_room(sum(agent.sessions for agent in self._agents.values()))
        self._served = True
        try:
            async with self._place:
                await self._serve(handle_signals, task_status)
        finally:
            self._draining = True
            self._abandon_waiting()
        await until_ended(())  # its log records are handled before the caller continues

    async def _serve(self, handle_signals: bool, task_status: anyio.abc.TaskStatus[None]) -> None:
        async with anyio.create_task_group() as watchers:
            if handle_signals:
                await watchers.start(end_on_signals, self, self._drain_timeout_s, self._end_by)
            if self._memory_limit_mb:
                place = self._place
                watchers.start_soon(keep_memory_limit, self, self._memory_limit_mb, place.rss_mb, place.note)
            async with anyio.create_task_group() as self._group:
                try:
                    task_status.started()
                    for session in list(self._active.values()):
                        self._group.start_soon(self._host, session, name=f"{session.agent_name} {session.session_id}")
                    for name, agent in self._agents.items():
                        for _ in range(0 if self._draining else agent.sessions):
                            self._start(name, agent.metadata, None)
                    while not self._draining:
                        await self._wait_for_change()
                    # A pool that drained before it served has not shown it so far.
                    self._place.drain()
                    with anyio.move_on_after(self._drain_timeout_s) as waiting:
                        while self._active:
                            await self._wait_for_change()
                    if waiting.cancelled_caught:
                        logger.warning(
                            "pool %s cancels %s, which did not end within %g s",
                            self.name, sessions(self.active), self._drain_timeout_s,
                        )  # fmt: skip
                        self.stop()
                finally:
                    self._group, group = None, self._group
                    self._draining = True
                    del group
            watchers.cancel_scope.cancel()

    async def _wait_for_change(self) -> None:
        await self._changed.wait()
        self._changed = anyio.Event()

    async def _host(self, session: PoolSession) -> None:
        try:
            with anyio.CancelScope() as session._scope:
                if session._cancelled:
                    return
                session.state = "running"
                self.started += 1
                await self._place.run(session, self._agents[session.agent_name].entrypoint)
                session.state = "done"
        except Exception as error:
            session.state = "errored"
            session.error = error
            self.failed += 1
            self._log_failure(session, error)
        finally:
            if session.state not in ("done", "errored"):
                session.state = "cancelled"
            del self._active[session.session_id]
            session._ended.set()
            self._changed.set()

    def _log_failure(self, session: PoolSession, error: Exception) -> None:
        line = "session %s of agent %s failed"
        if isinstance(error, SessionFailed):
            reported = f"\n{error.traceback.rstrip()}" if error.traceback else ""
            logger.error(line + ": %s%s", session.session_id, session.agent_name, error, reported)
        else:
            traceback = error.__traceback__  # without the outer frames, which are this package's
            while traceback is not None and traceback.tb_frame.f_globals.get("__package__") == __package__:
                traceback = traceback.tb_next
            logger.error(line, session.session_id, session.agent_name, exc_info=(type(error), error, traceback))

    def drain(self) -> None:
        """Take no new sessions. `serve` returns when the running ones have ended.

        Those that have not after `drain_timeout_s` are cancelled.
        """
        self._draining = True
        self._place.drain()
        self._changed.set()

    def stop(self) -> None:
        """Drain, and cancel the running sessions.

        An entrypoint that awaits while it cleans up must do so in `anyio.CancelScope(shield=True)`.
        """
        self.drain()
        for session in list(self._active.values()):
            session.cancel()

    def run(self) -> None:
        """Serve on a new event loop until a signal and the end of the last session.

        The signal is SIGINT or SIGTERM. A second signal cancels the sessions. Once they have cleaned up, this raises
        SystemExit with 128 plus the signal's number, as shells expect. A third signal ends the process at once.
        """
        anyio.run(partial(self.serve, handle_signals=True))
        if self.ended_by is not None:
            raise SystemExit(128 + self.ended_by)

    def _end_by(self, number: signal.Signals) -> None:
        self.ended_by = number

    def _abandon_waiting(self) -> None:
        for session in list(self._active.values()):
            session.state = "cancelled"
            session._ended.set()
        self._active.clear()
