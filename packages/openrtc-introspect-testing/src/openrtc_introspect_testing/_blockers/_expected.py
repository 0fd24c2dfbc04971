"""What a block really was, and how a report of it differs."""

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
    """The truth about one block, measured around it, to hold a `Block` against."""

    kind: str
    started_at: float
    """Unix time, seconds."""
    duration_s: float
    causes: tuple[str, ...]
    """The likeliest first; more than one where the machine decides."""
    session_id: str | None
    """Whose it is. None: nobody's, or no session was bound."""
    locations: tuple[Location, ...]
    """The lines that block, any of which is right, with absolute file names. Empty: no one line does."""
    waited_s: float = 0.0
    """Seconds that the system did not let the thread run, though it could have. 0 too where it does not tell."""

    @property
    def ended_at(self) -> float:
        return self.started_at + self.duration_s

    def mismatches(self, block: Block, *, within_ms: float | None = 2.0) -> dict[str, str]:
        """What is wrong with `block` as a report of this, a sentence by "cause", "session", "location" and "duration".

        within_ms: how far its duration may be off. None: it is not looked at.
        """
        wrong: dict[str, str] = {}
        if block.cause not in self.causes:
            wrong["cause"] = f"cause: expected {' or '.join(self.causes)}, the block says {block.cause}"
        # Where the system's part in it is near a half, it is nobody's just as well.
        nobodys = block.session_id is None and block.cause == "descheduled" and "descheduled" in self.causes
        if block.session_id != self.session_id and not nobodys:
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


def _same(expected: Location, told: Location | None) -> bool:
    """A block tells files from a root or the working directory on."""
    if told is None or (told.line, told.function) != (expected.line, expected.function):
        return False
    return expected.file == told.file or expected.file.endswith(os.sep + told.file)


def is_users(file: str, roots: Sequence[str | os.PathLike[str]] | None = None) -> bool:
    """Whether a file is the user's own code: in `roots`, or neither the standard library's nor a package's."""
    path = os.path.abspath(file)
    if roots is not None:
        return any(path.startswith(os.path.join(os.path.abspath(root), "")) for root in roots)
    return not file.startswith("<") and not path.startswith(_others())


@lru_cache(maxsize=1)
def _others() -> tuple[str, ...]:
    import openrtc_introspect_core

    paths = sysconfig.get_paths()
    folders = {paths[key] for key in ("stdlib", "platstdlib", "purelib", "platlib")}
    folders |= {*site.getsitepackages(), site.getusersitepackages(), os.path.dirname(os.__file__)}
    folders.add(os.path.dirname(openrtc_introspect_core.__file__))
    return tuple(os.path.join(os.path.abspath(folder), "") for folder in folders)
