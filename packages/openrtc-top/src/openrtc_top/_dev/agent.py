"""An agent as the pool knows it: what its file says when a session starts."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from openrtc_top._dev.files import Entrypoint, load

if TYPE_CHECKING:
    import anyio

    from openrtc_introspect_core import PoolSession


class FileAgent:
    """The pool's entrypoint of one agent, whose real one may be replaced as its file changes.

    Sent to another process, it takes along where the file is, and the file is imported there.
    """

    def __init__(self, path: Path, name: str, entrypoint: Entrypoint | None = None) -> None:
        self.path = path
        self.name = name
        self.entrypoint = entrypoint
        """None: not imported in this process, or its file has it no more."""
        self.scope: anyio.CancelScope | None = None
        """Of its sessions; None while it has none."""
        self.again = False
        """It is to start anew once its sessions have ended."""

    async def __call__(self, session: PoolSession) -> None:
        entrypoint = self.entrypoint or load(self.path)[self.name]
        await entrypoint(session)

    def __reduce__(self) -> tuple[Any, ...]:
        return FileAgent, (self.path.resolve(), self.name)
