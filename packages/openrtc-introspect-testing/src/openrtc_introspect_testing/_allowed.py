"""The blocks that a suite puts up with: `slow_sessions_allow` in pytest's settings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from ._findings import Finding

_ACCEPTED = "path:function or path:line, both with * where they vary, and a reason after #"


@dataclass(frozen=True, slots=True)
class Allowed:
    """One entry: `agents/legacy_*.py:load_menu  # until the menu service has an async client`."""

    path: str
    """Of the file, from pytest's root directory; `*` stands for any text, `/` included."""
    place: str
    """A line's number, or a function's name, qualified or not; `*` stands for any text."""
    reason: str
    text: str
    """As it was written."""

    @classmethod
    def parse(cls, line: str) -> Allowed:
        """Raises ValueError where it is not one."""
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
    """The text of the first entry that matches; None where none does."""
    return next((entry.text for entry in entries if entry.matches(found)), None)
