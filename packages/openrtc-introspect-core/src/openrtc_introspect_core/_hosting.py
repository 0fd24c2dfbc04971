"""What a pool hosts: sessions, and the place where they run.

A place runs one session to its end and answers for what all of them use: `InLoop` runs it as a task
of the pool's own loop, `_processes.InProcesses` in a process of its own.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Mapping
from contextlib import nullcontext
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, NamedTuple, Protocol

import anyio
import psutil

from ._errors import ArgumentTypeError, SessionFailed
from ._introspector import Introspector
from ._sessions import MIB

Entrypoint = Callable[["PoolSession"], Awaitable[Any]]
State = Literal["waiting", "running", "done", "errored", "cancelled"]


class PoolSession:
    """One session of a pool: what its entrypoint is given, and what `start_session` returns.

    With isolation="process" these are two objects: the entrypoint's lives in its process and has the
    id, the agent's name and a copy of the metadata.
    """

    def __init__(self, session_id: str, agent_name: str, metadata: Mapping[str, Any]) -> None:
        self.session_id = session_id
        self.agent_name = agent_name
        self.metadata = metadata
        self.state: State = "waiting"
        self.error: Exception | None = None
        """What its entrypoint raised, or SessionFailed; None otherwise."""
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


def check_entrypoint(agent: str, entrypoint: object) -> None:
    """Raises ArgumentTypeError where it is no async function, or object that is called like one."""
    called = entrypoint if inspect.isroutine(entrypoint) else getattr(entrypoint, "__call__", entrypoint)  # noqa: B004
    if not (inspect.iscoroutinefunction(entrypoint) or inspect.iscoroutinefunction(called)):
        raise ArgumentTypeError(
            f"entrypoint of agent {agent!r} must be an async function of the session, got {entrypoint!r}"
        )


class Place(Protocol):
    """Where a pool's sessions run. Entered while the pool serves."""

    async def __aenter__(self) -> Place: ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None: ...

    @property
    def socket_path(self) -> Path | None: ...

    def check(self, agent: str, entrypoint: Entrypoint) -> None:
        """Raises ArgumentError where sessions of it cannot run here."""

    def check_metadata(self, metadata: Mapping[str, Any]) -> None:
        """Likewise."""

    async def run(self, session: PoolSession, entrypoint: Entrypoint) -> None:
        """To its end. Raises what it ended with."""

    def rss_mb(self) -> float:
        """MiB of memory that the pool's limit counts."""

    def drain(self) -> None:
        """Show that no new sessions are taken."""

    def note(self, topic: str, text: str | None) -> None:
        """Show a line; None takes it away."""


class InLoop:
    """As tasks of this loop, measured by the introspector, if there is one."""

    def __init__(self, introspector: Introspector | None) -> None:
        self._introspector = introspector

    async def __aenter__(self) -> InLoop:
        if self._introspector is not None:
            await self._introspector.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._introspector is not None:
            await self._introspector.__aexit__(kind, error, traceback)

    @property
    def socket_path(self) -> Path | None:
        return self._introspector.socket_path if self._introspector is not None else None

    def check(self, agent: str, entrypoint: Entrypoint) -> None:
        check_entrypoint(agent, entrypoint)

    def check_metadata(self, metadata: Mapping[str, Any]) -> None:
        pass

    async def run(self, session: PoolSession, entrypoint: Entrypoint) -> None:
        scope: Any = nullcontext()
        if self._introspector is not None:
            scope = self._introspector.session(
                session.session_id, agent_name=session.agent_name, metadata=session.metadata
            )
        with scope:
            try:
                await entrypoint(session)
            except SystemExit as error:  # it would end the process, and all other sessions with it
                if error.code:
                    raise SessionFailed(f"SystemExit: {error.code}") from None

    def rss_mb(self) -> float:
        return float(psutil.Process().memory_info().rss / MIB)

    def drain(self) -> None:
        if self._introspector is not None:
            self._introspector.draining = True

    def note(self, topic: str, text: str | None) -> None:
        if self._introspector is not None:
            self._introspector.note(topic, text)
