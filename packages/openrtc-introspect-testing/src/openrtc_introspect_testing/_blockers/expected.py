"""The truth about a block, and how a report of it differs."""

from __future__ import annotations

import os
import site
import sysconfig
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from openrtc_introspect_core.wire import Block, Location


@dataclass(frozen=True, slots=True)
class Expected:
    """The truth about one block, measured around it, to compare a `Block` with."""

    kind: str
    started_at: float
    """When the block began, in seconds of Unix time."""
    duration_s: float
    causes: tuple[str, ...]
    """The possible causes, the likeliest first; more than one if the machine decides."""
    session_id: str | None
    """The culprit. None: the block is unattributed, or no session was bound."""
    locations: tuple[Location, ...]
    """The lines that block, any of which is right, with absolute file names. Empty: no single line blocks."""
    waited_s: float = 0.0
    """The thread's run delay during the block, in seconds. 0 also if the operating system does not report it."""

    @property
    def ended_at(self) -> float:
        return self.started_at + self.duration_s

    def mismatches(self, block: Block, *, within_ms: float | None = 2.0) -> dict[str, str]:
        """Return a sentence for each difference of `block`.

        The keys are "cause", "session", "location" and "duration".

        within_ms: by how many milliseconds the duration may differ. None: the duration is not compared.
        """
        wrong: dict[str, str] = {}
        if block.cause not in self.causes:
            wrong["cause"] = f"cause: expected {' or '.join(self.causes)}, the block says {block.cause}"
        # If the run delay is near a half of the block, it is right to leave the block unattributed, too.
        descheduled = block.session_id is None and block.cause == "descheduled" and "descheduled" in self.causes
        if block.session_id != self.session_id and not descheduled:
            wrong["session"] = f"session: expected {self.session_id}, the block says {block.session_id}"
        if self.locations and not any(_same(place, block.location) for place in self.locations):
            places = " or ".join(map(str, self.locations))
            wrong["location"] = f"location: expected {places}, the block says {block.location}"
        length = 1000.0 * self.duration_s
        if within_ms is not None and abs(block.duration_ms - length) > within_ms:
            wrong["duration"] = (
                f"duration: expected {length:.1f} ms within {within_ms:g} ms, the block says {block.duration_ms:.1f} ms"
            )
        return wrong


def _same(expected: Location, reported: Location | None) -> bool:
    """Return whether both are one line.

    The file of a block is relative to a root or to the working directory.
    """
    if reported is None or (reported.line, reported.function) != (expected.line, expected.function):
        return False
    return expected.file == reported.file or expected.file.endswith(os.sep + reported.file)


def is_users(file: str, roots: Sequence[str | os.PathLike[str]] | None = None) -> bool:
    """Return whether a file is the user's own code.

    With roots, it is if it is in one of them; without, if it is neither the standard library's nor installed.

    It decides as core does, and apart from core: tests compare the two.
    """
    path = os.path.abspath(file)
    if roots is not None:
        return any(path.startswith(os.path.join(os.path.abspath(root), "")) for root in roots)
    return not file.startswith("<") and not path.startswith(_library_folders())


@lru_cache(maxsize=1)
def _library_folders() -> tuple[str, ...]:
    import openrtc_introspect_core

    paths = sysconfig.get_paths()
    folders = {paths[key] for key in ("stdlib", "platstdlib", "purelib", "platlib")}
    folders |= {*site.getsitepackages(), site.getusersitepackages(), os.path.dirname(os.__file__)}
    folders.add(os.path.dirname(openrtc_introspect_core.__file__))
    return tuple(os.path.join(os.path.abspath(folder), "") for folder in folders)
