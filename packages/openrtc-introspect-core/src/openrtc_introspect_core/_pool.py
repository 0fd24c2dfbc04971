"""AgentPool: many sessions as tasks of one loop, each one's failure its own.

pool = AgentPool(slow_session_threshold_ms=50)
pool.add("restaurant", entrypoint)           # async def entrypoint(session): ...
await pool.start_session("restaurant", metadata={"tenant": "acme"})
await pool.serve()                           # or pool.run(), which brings loop and signals
"""

from __future__ import annotations

import inspect
import logging
import os
import signal
import uuid
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, nullcontext
from typing import Any, Literal, NamedTuple

import anyio
import anyio.abc
import psutil

from . import _checks
from ._errors import ArgumentError, ArgumentTypeError, StateError
from ._introspector import Introspector
from ._sessions import MIB, check_metadata, check_text

logger = logging.getLogger("openrtc.pool")

Entrypoint = Callable[["PoolSession"], Awaitable[Any]]
State = Literal["waiting", "running", "done", "errored", "cancelled"]

_MEMORY_CHECK_S = 1.0


class PoolSession:
    """One session of a pool: what its entrypoint is given, and what `start_session` returns."""

    def __init__(self, session_id: str, agent_name: str, metadata: Mapping[str, Any]) -> None:
        self.session_id = session_id
        self.agent_name = agent_name
        self.metadata = metadata
        self.state: State = "waiting"
        self.error: Exception | None = None
        """What its entrypoint raised; None otherwise."""
        self._scope: anyio.CancelScope | None = None
        self._cancelled = False
        self._ended = anyio.Event()

    def __repr__(self) -> str:
        return f"<PoolSession {self.session_id!r} agent_name={self.agent_name!r} {self.state}>"

    def cancel(self) -> None:
        """Cancels the entrypoint, now or as soon as it starts."""
        self._cancelled = True
        if self._scope is not None:
            self._scope.cancel()

    async def wait(self) -> None:
        """Until it has ended; `state` and `error` then say how."""
        await self._ended.wait()


class Agent(NamedTuple):
    """What a pool knows of an agent."""

    entrypoint: Entrypoint
    sessions: int
    """How many are started when the pool begins to serve."""
    metadata: Mapping[str, Any]
    """Theirs."""


class AgentPool:
    """Hosts agents' sessions as tasks of one loop, introspected.

    isolation: "coroutine", the only one there is.
    enable_introspection: False starts no thread, no socket, no task factory.
    slow_session_threshold_ms: see Introspector.
    memory_limit_mb: MiB of RSS over which the pool drains; 0: none.
    max_sessions: how many may run at once; 0: no limit.
    introspection: further arguments of the Introspector, such as {"cpu": "sampled"}.

    Raises ArgumentError for a value outside of what it accepts.
    """

    def __init__(
        self,
        *,
        isolation: Literal["coroutine"] = "coroutine",
        enable_introspection: bool = True,
        slow_session_threshold_ms: float = 50.0,
        memory_limit_mb: float = 0.0,
        max_sessions: int = 0,
        name: str = "worker",
        introspection: Mapping[str, Any] | None = None,
    ) -> None:
        _checks.one_of("isolation", isolation, ("coroutine",))
        self.name = name
        self._max_sessions = _checks.whole("max_sessions", max_sessions)
        self._memory_limit_mb = _checks.number("memory_limit_mb", memory_limit_mb, least=0)
        # Made even where it will not be started, so that wrong arguments are told in either case.
        introspector = Introspector(
            name=name,
            slow_session_threshold_ms=slow_session_threshold_ms,
            memory_limit_mb=memory_limit_mb,
            max_sessions=max_sessions,
            **dict(introspection or {}),
        )
        self.introspector: Introspector | None = introspector if enable_introspection else None
        """None where introspection is off."""
        self._agents: dict[str, Agent] = {}
        self._active: dict[str, PoolSession] = {}
        self._group: anyio.abc.TaskGroup | None = None
        self._served = False
        self._changed = anyio.Event()
        self._draining = False
        self.started = 0
        """Sessions whose entrypoint was called."""
        self.failed = 0
        """Sessions whose entrypoint raised."""

    @property
    def active(self) -> int:
        """Sessions that wait to start or run now."""
        return len(self._active)

    @property
    def draining(self) -> bool:
        """Whether no new sessions are taken."""
        return self._draining

    def add(
        self, name: str, entrypoint: Entrypoint, *, sessions: int = 0, metadata: Mapping[str, Any] | None = None
    ) -> None:
        """Registers an agent: `entrypoint` is an async function that is given a PoolSession.

        `sessions` of them, with this metadata, are started when the pool begins to serve; more can be
        with `start_session`. Raises ArgumentError where the name is taken, the entrypoint is not an
        async function or the metadata no mapping.
        """
        check_text("agent name", name)
        if name in self._agents:
            raise ArgumentError(f"agent {name!r} is in this pool already: choose another name")
        called = entrypoint if inspect.isroutine(entrypoint) else getattr(entrypoint, "__call__", entrypoint)  # noqa: B004
        if not (inspect.iscoroutinefunction(entrypoint) or inspect.iscoroutinefunction(called)):
            raise ArgumentTypeError(
                f"entrypoint of agent {name!r} must be an async function of the session, got {entrypoint!r}"
            )
        self._agents[name] = Agent(entrypoint, _checks.whole("sessions", sessions), check_metadata(metadata))

    async def start_session(
        self, agent: str, *, metadata: Mapping[str, Any] | None = None, session_id: str | None = None
    ) -> PoolSession:
        """Starts a session of an agent, at once or as soon as the pool serves. Does not wait for its end.

        `session_id` is made up where it is None. Raises ArgumentError for an unknown agent, an id
        in use or metadata that is no mapping, StateError where the pool is full, draining or done.
        """
        return self._start(agent, check_metadata(metadata), session_id)

    def _start(self, agent: str, metadata: Mapping[str, Any], session_id: str | None) -> PoolSession:
        if agent not in self._agents:
            known = ", ".join(map(repr, self._agents)) or "none: add one first"
            raise ArgumentError(f"agent {agent!r} is not in this pool; it has {known}")
        if self._draining:
            raise StateError(f"pool {self.name!r} takes no new sessions: it is draining or done")
        if self._max_sessions and len(self._active) >= self._max_sessions:
            raise StateError(f"pool {self.name!r} is full: max_sessions is {self._max_sessions}")
        session_id = check_text("session_id", session_id) if session_id is not None else f"job-{uuid.uuid4().hex[:8]}"
        if session_id in self._active:
            raise ArgumentError(f"session id {session_id!r} is live already: an id can be used again once it has ended")
        session = PoolSession(session_id, agent, metadata)
        self._active[session_id] = session
        if self._group is not None:
            self._group.start_soon(self._host, session, name=f"{agent} {session_id}")
        return session

    async def serve(self) -> None:
        """Runs sessions until `stop`, or `drain` and the end of the last one. Once for each pool.

        Raises StateError where it served before, EndpointError where the socket cannot be made.
        """
        if self._served:
            raise StateError(f"pool {self.name!r} has served already: make a new one to serve again")
        self._served = True
        try:
            async with AsyncExitStack() as stack:
                if self.introspector is not None:
                    await stack.enter_async_context(self.introspector)
                await self._serve()
        finally:
            self._draining = True
            self._abandon_waiting()

    async def _serve(self) -> None:
        async with anyio.create_task_group() as watchers:
            if self._memory_limit_mb:
                watchers.start_soon(self._watch_memory)
            async with anyio.create_task_group() as self._group:
                try:
                    for session in list(self._active.values()):
                        self._group.start_soon(self._host, session, name=f"{session.agent_name} {session.session_id}")
                    for name, agent in self._agents.items():
                        for _ in range(agent.sessions):
                            self._start(name, agent.metadata, None)
                    while not (self._draining and not self._active):
                        await self._changed.wait()
                        self._changed = anyio.Event()
                finally:
                    self._group, group = None, self._group
                    self._draining = True
                    del group
            watchers.cancel_scope.cancel()

    async def _host(self, session: PoolSession) -> None:
        scope: Any = nullcontext()
        try:
            if self.introspector is not None:
                scope = self.introspector.session(
                    session.session_id, agent_name=session.agent_name, metadata=session.metadata
                )
            with anyio.CancelScope() as session._scope:
                if session._cancelled:
                    return
                session.state = "running"
                self.started += 1
                with scope:
                    await self._agents[session.agent_name].entrypoint(session)
                session.state = "done"
        except Exception as error:
            session.state = "errored"
            session.error = error
            self.failed += 1
            logger.exception("session %s of agent %s failed", session.session_id, session.agent_name)
        finally:
            if session.state not in ("done", "errored"):
                session.state = "cancelled"
            del self._active[session.session_id]
            session._ended.set()
            self._changed.set()

    def drain(self) -> None:
        """Takes no new sessions; `serve` returns when those that run have ended."""
        self._draining = True
        if self.introspector is not None:
            self.introspector.draining = True
        self._changed.set()

    def stop(self) -> None:
        """Drains, and cancels the sessions that run.

        An entrypoint that awaits while it cleans up does so in `anyio.CancelScope(shield=True)`.
        """
        self.drain()
        for session in list(self._active.values()):
            session.cancel()

    def run(self) -> None:
        """Serves on an event loop of its own until SIGINT or SIGTERM, which stops it; then returns."""
        anyio.run(self._run)

    async def _run(self) -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(self._stop_on_signal)
            await self.serve()
            group.cancel_scope.cancel()

    async def _stop_on_signal(self) -> None:
        with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
            async for number in signals:
                logger.info("pool %s stops: %s", self.name, signal.Signals(number).name)
                self.stop()

    async def _watch_memory(self) -> None:
        process = psutil.Process(os.getpid())
        while not self._draining:
            rss_mb = process.memory_info().rss / MIB
            if rss_mb > self._memory_limit_mb:
                logger.warning(
                    "pool %s drains: RSS is %.0f MiB, memory_limit_mb is %.0f",
                    self.name,
                    rss_mb,
                    self._memory_limit_mb,
                )
                self.drain()
            await anyio.sleep(_MEMORY_CHECK_S)

    def _abandon_waiting(self) -> None:
        for session in list(self._active.values()):
            session.state = "cancelled"
            session._ended.set()
        self._active.clear()
