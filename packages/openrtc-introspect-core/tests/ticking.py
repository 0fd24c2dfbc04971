"""An introspector whose ticks a test calls."""

from __future__ import annotations

from typing import Any

from openrtc_introspect_core import Introspector, Snapshot
from openrtc_introspect_core._introspector import parts_of
from openrtc_introspect_testing._loops.backends import Backend


class Ticking:
    """An introspector on virtual time whose ticks the test calls: the service thread samples nothing."""

    def __init__(self, backend: Backend, **arguments: Any) -> None:
        self.backend = backend
        self.introspector = Introspector(socket_path=False, clock=backend.clock, **arguments)
        self._tick = parts_of(self.introspector).tick
        parts_of(self.introspector).tick = lambda now: None  # type: ignore[method-assign]

    async def __aenter__(self) -> Ticking:
        await self.introspector.__aenter__()
        return self

    async def __aexit__(self, *error: Any) -> None:
        await self.introspector.__aexit__(*error)

    def tick(self) -> None:
        """Do what is due, as the service thread would."""
        self._tick(self.backend.clock())

    def snapshot(self) -> Snapshot:
        """Return a snapshot of now."""
        return self.introspector.snapshot()
