"""What is measured, behind one face: nothing at all, this project, and the public openrtc package.

Each is imported only when it starts, so that a case pays for its own subject and for no other.
The peer is used as its own worker uses it: the runtime that its pool starts on the loop, sessions
told to its registry and bound in its context variable, tasks created inside.
"""

from __future__ import annotations

import asyncio
import os
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any


class Subject(ABC):
    """Attached to the running loop between `start` and `close`."""

    protocol = ""
    """How its socket is asked, see _client.py."""
    socket: Path | None = None

    @abstractmethod
    async def start(self) -> None: ...

    @abstractmethod
    async def close(self) -> None: ...

    async def register(self, session_id: str) -> None:  # noqa: B027
        """Tells of a session, where that is a step of its own."""

    async def unregister(self, session_id: str) -> None:  # noqa: B027
        """The same at its end."""

    @abstractmethod
    def bind(self, session_id: str) -> Any:
        """Makes the running context the session's. Returns what `unbind` wants."""

    @abstractmethod
    def unbind(self, bound: Any) -> None: ...

    @asynccontextmanager
    async def session(self, session_id: str) -> AsyncIterator[None]:
        await self.register(session_id)
        bound = self.bind(session_id)
        try:
            yield
        finally:
            self.unbind(bound)
            await self.unregister(session_id)

    def shares(self) -> dict[str, float]:
        """Each session's share of the loop's time as its view shows it, percent."""
        return {}

    def held(self) -> dict[str, float]:
        """Seconds that each session has held the loop; empty where only shares are told."""
        return {}


class Bare(Subject):
    """No introspection."""

    async def start(self) -> None: ...

    async def close(self) -> None: ...

    def bind(self, session_id: str) -> Any:
        return None

    def unbind(self, bound: Any) -> None: ...


class Core(Subject):
    """openrtc-introspect-core as it comes."""

    protocol = "core"

    def __init__(self, cpu: Any, budget_pct: float = 1.0) -> None:
        self.cpu = cpu
        self.budget_pct = budget_pct
        self.introspector: Any = None

    async def start(self) -> None:
        from openrtc_introspect_core import Introspector

        self.introspector = Introspector(name="bench", cpu=self.cpu, budget_pct=self.budget_pct)
        self.introspector.attach()
        self.socket = self.introspector.socket_path

    async def close(self) -> None:
        await self.introspector.aclose()

    def bind(self, session_id: str) -> Any:
        scope = self.introspector.session(session_id, agent_name="bench", metadata={"tenant": "acme"})
        scope.__enter__()
        return scope

    def unbind(self, bound: Any) -> None:
        bound.__exit__(None, None, None)

    def shares(self) -> dict[str, float]:
        return {row.session_id: row.cpu_pct for row in self.introspector.snapshot().sessions}

    def held(self) -> dict[str, float]:
        return {row.session_id: row.cpu_s for row in self.introspector.snapshot().sessions}


class Peer(Subject):
    """The public openrtc package's introspection."""

    protocol = "peer"

    def __init__(self) -> None:
        self.runtime: Any = None
        self._infos: dict[str, Any] = {}

    async def start(self) -> None:
        from openrtc.observability.introspection_runtime import IntrospectionRuntime

        self.socket = Path(os.environ["OPENRTC_RUNTIME_DIR"]) / "peer.sock"
        self.runtime = IntrospectionRuntime(socket_path=self.socket)
        await self.runtime.start(asyncio.get_running_loop())

    async def close(self) -> None:
        await self.runtime.aclose()

    async def register(self, session_id: str) -> None:
        from openrtc import SessionInfo

        info = SessionInfo("bench", "room", session_id, {}, started_at=time.time(), tenant="acme")
        self._infos[session_id] = info
        await self.runtime.registry.on_session_start(info, None)

    async def unregister(self, session_id: str) -> None:
        await self.runtime.registry.on_session_end(self._infos.pop(session_id), None)

    def bind(self, session_id: str) -> Any:
        from openrtc.observability.session_context import set_session_id

        return set_session_id(session_id)

    def unbind(self, bound: Any) -> None:
        from openrtc.observability.session_context import reset_session_id

        reset_session_id(bound)

    def shares(self) -> dict[str, float]:
        return {row.session_id: row.cpu_pct for row in self.runtime.snapshot()}


def make(name: str, budget_pct: float = 1.0) -> Subject:
    """bare, exact, sampled or peer. `budget_pct`: the core's, where steps are timed."""
    if name == "bare":
        return Bare()
    return Peer() if name == "peer" else Core(name, budget_pct)
