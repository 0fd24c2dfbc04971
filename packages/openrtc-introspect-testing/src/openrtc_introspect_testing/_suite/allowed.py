"""The allow-list: `slow_sessions_allow` in pytest's settings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from .finding import Finding

_ACCEPTED = "path:function or path:line, both with * for any text, and a reason after #"


@dataclass(frozen=True, slots=True)
class Allowed:
    """One entry, such as `agents/legacy_*.py:load_menu  # until it is async`."""

    path: str
    """The file, relative to pytest's root directory; `*` stands for any text, `/` included."""
    place: str
    """A line number, or the name of a function, qualified or not; `*` stands for any text."""
    reason: str
    text: str
    """The entry as it was written."""

    @classmethod
    def parse(cls, line: str) -> Allowed:
        """Read one entry. Raises ValueError if the line is none."""
        pattern, _, reason = line.partition("#")
        path, _, place = pattern.strip().rpartition(":")
        if not path or not place:
            raise ValueError(f"slow_sessions_allow has {line!r}; accepted: {_ACCEPTED}")
        return cls(path, place, reason.strip(), line.strip())

    def matches(self, found: Finding) -> bool:
        if found.file is None or not fnmatchcase(found.file, self.path):
            return False
        if self.place.isdigit():
            return found.line == int(self.place)
        function = found.function or ""
        return any(fnmatchcase(name, self.place) for name in (function, function.rpartition(".")[2]))


def allowing(entries: Sequence[Allowed], found: Finding) -> str | None:
    """Return the text of the first entry that matches; None if none does."""
    return next((entry.text for entry in entries if entry.matches(found)), None)
