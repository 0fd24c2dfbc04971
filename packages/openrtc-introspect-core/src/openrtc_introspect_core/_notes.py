"""What the reader of the numbers must know: what a probe cannot see, and which are switched off, and why."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

from ._log import QueuedLogger

logger = QueuedLogger("openrtc.introspect")


class Notes:
    """One note for each probe. From any thread."""

    def __init__(self, worker: str) -> None:
        self._worker = worker
        self._notes: dict[str, str] = {}
        self._limits: dict[str, str] = {}
        self._of_host: dict[str, str] = {}

    def __contains__(self, probe: str) -> bool:
        return probe in self._notes

    def limit(self, probe: str, blind_to: str) -> None:
        """What a probe that works cannot see. Not logged; told until there is a problem with it."""
        self._limits[probe] = blind_to

    def of_host(self, topic: str, text: str | None) -> None:
        """What the host has to say of a topic, until it says something else; None: nothing any more. Not logged."""
        others = {each: said for each, said in self._of_host.items() if each != topic}
        self._of_host = others if text is None else {**others, topic: text}

    def add(self, probe: str, problem: str, error: BaseException | None = None) -> None:
        """Note the first problem of a probe and log it once, with the error's traceback where there is one."""
        if probe not in self._notes:
            self._notes[probe] = problem
            with suppress(Exception):  # it is the last that is done about a fault
                logger.warning("introspection of %s: %s", self._worker, problem, exc_info=error)

    @contextmanager
    def letting_go(self, whose: str) -> Iterator[ExitStack]:
        """Let go of parts of `whose`, the last added first, each whatever the others raise.

        What they raise is noted with its traceback, and raised no further.
        """
        try:
            with ExitStack() as parts:
                yield parts
        except Exception as error:
            self.add("detach", f"{whose} could not be let go of altogether: {error!r}", error)

    def told(self) -> list[str]:
        limits = (text for probe, text in self._limits.items() if probe not in self._notes)
        return [*self._of_host.values(), *self._notes.values(), *limits]
