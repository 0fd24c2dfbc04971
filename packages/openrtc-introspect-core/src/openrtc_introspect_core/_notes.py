"""What the reader of the numbers must know: probes that are switched off, and why."""

from __future__ import annotations

import logging

logger = logging.getLogger("openrtc.introspect")


class Notes:
    """One note for each probe, logged when it is made. From any thread."""

    def __init__(self, worker: str) -> None:
        self._worker = worker
        self._notes: dict[str, str] = {}

    def __contains__(self, probe: str) -> bool:
        return probe in self._notes

    def add(self, probe: str, problem: str) -> None:
        """The first problem of a probe is told, once."""
        if probe not in self._notes:
            self._notes[probe] = problem
            logger.warning("introspection of %s: %s", self._worker, problem)

    def told(self) -> list[str]:
        return list(self._notes.values())
