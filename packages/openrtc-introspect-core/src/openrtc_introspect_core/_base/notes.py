"""Notes for readers of the numbers: what probes cannot see, and which are off."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

from .log import QueuedLogger

logger = QueuedLogger("openrtc.introspect")


class Notes:
    """The notes of one worker, at most one for each probe. Used from any thread."""

    def __init__(self, worker: str) -> None:
        self._worker = worker
        self._notes: dict[str, str] = {}
        self._limits: dict[str, str] = {}
        self._of_host: dict[str, str] = {}

    def __contains__(self, probe: str) -> bool:
        return probe in self._notes

    def limit(self, probe: str, missing: str) -> None:
        """Note what a working probe cannot see.

        It is not logged, and hidden once the probe has a problem.
        """
        self._limits[probe] = missing

    def of_host(self, topic: str, text: str | None) -> None:
        """Set the host's note on a topic, which replaces the one before; None removes it.

        It is not logged.
        """
        others = {each: said for each, said in self._of_host.items() if each != topic}
        self._of_host = others if text is None else {**others, topic: text}

    def add(self, probe: str, problem: str, error: BaseException | None = None) -> None:
        """Note and log the first problem of a probe, with the traceback of `error`."""
        if probe not in self._notes:
            self._notes[probe] = problem
            with suppress(Exception):  # noting a fault must not become a fault
                logger.warning("introspection of %s: %s", self._worker, problem, exc_info=error)

    @contextmanager
    def releasing(self, whose: str) -> Iterator[ExitStack]:
        """Release the parts that are added to the stack, even if some of them raise.

        An exception is noted with its traceback and not raised. whose: the name for that note.
        """
        try:
            with ExitStack() as parts:
                yield parts
        except Exception as error:
            self.add("detach", f"{whose} could not be released completely: {error!r}", error)

    def lines(self) -> list[str]:
        """Return all notes: the host's topics first, then problems, then limits."""
        limits = (text for probe, text in self._limits.items() if probe not in self._notes)
        return [*self._of_host.values(), *self._notes.values(), *limits]
