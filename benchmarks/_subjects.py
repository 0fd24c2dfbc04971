"""The subjects: no introspection, this project, the public openrtc package.

Each is imported only when it starts, so that a case pays for its own subject and for no other. The peer is used as its
own worker uses it: its pool's runtime runs on the loop, sessions are registered with its registry and bound in its
context variable, and tasks are created inside.
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
    """A subject, attached to the running loop between `start` and `close`."""

    protocol = ""
    """The protocol of its socket, see _client.py."""
    socket: Path | None = None

    @abstractmethod
    async def start(self) -> None: ...

    @abstractmethod
    async def close(self) -> None: ...

    async def register(self, session_id: str) -> None:  # noqa: B027
        """Register a session, if the subject needs that beside `bind`."""

    async def unregister(self, session_id: str) -> None:  # noqa: B027
        """Remove the session at its end, if the subject needs that."""

    @abstractmethod
    def bind(self, session_id: str) -> Any:
        """Make the running context the session's. Return the argument for `unbind`."""

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
        """Return each session's share of the loop in percent, as the view shows it."""
        return {}

    def held(self) -> dict[str, float]:
        """Return the seconds that each session has held the loop.

        The result is empty if the subject reports only shares.
        """
        return {}


class Bare(Subject):
    """No introspection."""

    async def start(self) -> None: ...

    async def close(self) -> None: ...

    def bind(self, session_id: str) -> Any:
        return None

    def unbind(self, bound: Any) -> None: ...


class Core(Subject):
    """openrtc-introspect-core with its defaults. cpu: "heap" is "exact" with the memory of each session."""

    protocol = "core"

    def __init__(self, cpu: Any, budget_pct: float = 1.0) -> None:
        self.cpu = cpu
        self.budget_pct = budget_pct
        self.introspector: Any = None

    async def start(self) -> None:
        from openrtc_introspect_core import Introspector

        heap = self.cpu == "heap"
        self.introspector = Introspector(
            name="bench",
            cpu="exact" if heap else self.cpu,
            memory="heap" if heap else "share",
            budget_pct=self.budget_pct,
        )
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
    """Return the subject "bare", "exact", "heap", "sampled" or "peer".

    `budget_pct` applies to those of ours.
    """
    if name == "bare":
        return Bare()
    return Peer() if name == "peer" else Core(name, budget_pct)
