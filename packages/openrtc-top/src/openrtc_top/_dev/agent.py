"""An agent as the pool knows it: whatever its file defines as a session starts."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from openrtc_top._dev.entrypoint import Entrypoint
from openrtc_top._dev.files import load

if TYPE_CHECKING:
    import anyio

    from openrtc_introspect_core import PoolSession


class FileAgent:
    """The pool's entrypoint of one agent; the real one changes with its file.

    Pickled for another process, it takes along the file's path, and the file is imported there.
    """

    def __init__(self, path: Path, name: str, entrypoint: Entrypoint | None = None) -> None:
        self.path = path
        self.name = name
        self.entrypoint = entrypoint
        """None: it is not imported in this process, or its file no longer has it."""
        self.scope: anyio.CancelScope | None = None
        """The scope of its sessions. None: it has none."""
        self.restart = False
        """The agent starts anew once its sessions have ended."""

    async def __call__(self, session: PoolSession) -> None:
        entrypoint = self.entrypoint or load(self.path)[self.name]
        await entrypoint(session)

    def __reduce__(self) -> tuple[Any, ...]:
        return FileAgent, (self.path.resolve(), self.name)
