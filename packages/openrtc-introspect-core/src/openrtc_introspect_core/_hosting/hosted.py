"""The sessions of a pool, and the places where they can run.

A place runs a session to its end, and knows the memory that all of them use: `InLoop` runs it as a task of the pool's
own loop, `processes.InProcesses` in a process of its own.
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

from .._base.errors import ArgumentTypeError, SessionFailed
from .._base.units import MIB
from .._introspector import Introspector

Entrypoint = Callable[["PoolSession"], Awaitable[Any]]
State = Literal["waiting", "running", "done", "errored", "cancelled"]


class PoolSession:
    """One session of a pool: the entrypoint gets it, and `start_session` returns it.

    With isolation="process" these are two objects: the entrypoint's is in the session's process, and has the id, the
    agent's name and a copy of the metadata.
    """

    def __init__(self, session_id: str, agent_name: str, metadata: Mapping[str, Any]) -> None:
        self.session_id = session_id
        self.agent_name = agent_name
        self.metadata = metadata
        self.state: State = "waiting"
        self.error: Exception | None = None
        """The exception of its entrypoint, or SessionFailed. None: it has not failed."""
        self._scope: anyio.CancelScope | None = None
        self._cancelled = False
        self._ended = anyio.Event()

    def __repr__(self) -> str:
        return f"<PoolSession {self.session_id!r} agent_name={self.agent_name!r} {self.state}>"

    def cancel(self) -> None:
        """Cancel the entrypoint, now or as soon as it starts."""
        self._cancelled = True
        if self._scope is not None:
            self._scope.cancel()

    async def wait(self) -> None:
        """Wait until the session has ended; `state` and `error` then say how."""
        await self._ended.wait()


class Agent(NamedTuple):
    """An agent of a pool."""

    entrypoint: Entrypoint
    sessions: int
    """How many sessions start when the pool begins to serve."""
    metadata: Mapping[str, Any]
    """The metadata of those sessions."""


def check_entrypoint(agent: str, entrypoint: object) -> None:
    """Raise ArgumentTypeError unless calling the entrypoint gives a coroutine."""
    called = entrypoint if inspect.isroutine(entrypoint) else getattr(entrypoint, "__call__", entrypoint)  # noqa: B004
    if not (inspect.iscoroutinefunction(entrypoint) or inspect.iscoroutinefunction(called)):
        raise ArgumentTypeError(
            f"entrypoint of agent {agent!r} must be an async function of the session, got {entrypoint!r}"
        )


class Place(Protocol):
    """A place where a pool's sessions run.

    It is an async context that is entered while the pool serves.
    """

    async def __aenter__(self) -> Place: ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None: ...

    @property
    def socket_path(self) -> Path | None:
        """The path of the worker's socket. None: it has none now."""

    def check(self, agent: str, entrypoint: Entrypoint) -> None:
        """Raise ArgumentError if sessions of this entrypoint cannot run here."""

    def check_metadata(self, metadata: Mapping[str, Any]) -> None:
        """Raise ArgumentError if sessions with this metadata cannot run here."""

    async def run(self, session: PoolSession, entrypoint: Entrypoint) -> None:
        """Run the session to its end. Raises the exception that it ended with."""

    def rss_mb(self) -> float:
        """Return the memory that the pool's limit counts, in MB."""

    def drain(self) -> None:
        """Show in snapshots that the pool takes no new sessions."""

    def note(self, topic: str, text: str | None) -> None:
        """Set the note on a topic; None removes it."""


class InLoop:
    """The pool's own loop, on which sessions are tasks.

    introspector: measures them. None: introspection is off.
    """

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
            except SystemExit as error:  # it would end the process and all other sessions
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
