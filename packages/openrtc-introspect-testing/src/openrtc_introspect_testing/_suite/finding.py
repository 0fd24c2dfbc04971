"""A block as a test suite reports it.

It has the session, the duration, the cause, the line, and the fix.
"""

from __future__ import annotations

import itertools
import linecache
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from .fixes import fix_of

if TYPE_CHECKING:
    from openrtc_introspect_core import Block, Location

_MAX_PLACES = 5
"""Places that one failure lists."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One block.

    It has plain values only, and so travels from a worker of pytest-xdist to the controller, which reports it.
    """

    session_id: str | None
    agent_name: str | None
    task_name: str | None
    duration_ms: float
    cause: str | None
    detail: str | None
    file: str | None
    """Relative to pytest's root directory if it is inside; None if the place is not known."""
    line: int | None
    function: str | None
    source: str
    """The text of the line; empty if it cannot be read."""
    fix: str
    allowed: str | None = None
    """The entry of the allow-list that allows it."""

    @property
    def counts(self) -> bool:
        """Whether it counts against the test.

        It does if code under test is the cause and the line is known.
        """
        # Imported here: a suite that does not use the plugin loads nothing of the core.
        from openrtc_introspect_core._base.gil import has_gil
        from openrtc_introspect_core._diagnosis.cause import NOT_LOOP_CODE, UNLOCATED

        if self.allowed is not None or self.cause in NOT_LOOP_CODE:
            return False

        if not has_gil():  # then no line is known: a thread that reads another's frames would crash the interpreter
            return self.cause is not None
        return self.file is not None or self.cause in UNLOCATED

    @property
    def where(self) -> str:
        return f"{self.file}:{self.line} in {self.function}" if self.file else "no single place"

    @property
    def who(self) -> str:
        if self.session_id is not None:
            return f"session {self.session_id} ({self.agent_name})"
        return f"no session (task {self.task_name})" if self.task_name else "no session"

    @property
    def why(self) -> str:
        return f"{self.cause or 'cause unknown'}{f': {self.detail}' if self.detail else ''}"


def finding_of(block: Block, *, folder: Path, root: Path, on_trio: bool) -> Finding:
    """Describe a block for the report.

    folder: what the block's file is relative to. root: what the finding's file is to be relative to.
    """
    place = block.location
    file, source = None, ""
    if place is not None:
        path = folder / place.file
        source = linecache.getline(str(path), place.line).strip()
        file = path.relative_to(root).as_posix() if path.is_relative_to(root) else place.file
        if not path.exists():
            file = place.file
    return Finding(
        session_id=block.session_id,
        agent_name=block.agent_name,
        task_name=block.task_name,
        duration_ms=block.duration_ms,
        cause=block.cause,
        detail=block.detail,
        file=file,
        line=place.line if place is not None else None,
        function=place.function if place is not None else None,
        source=source,
        fix=fix_of(block.cause, _called_from(place, block.stack), source, on_trio=on_trio),
    )


def _called_from(place: Location | None, stack: Sequence[Location]) -> list[str]:
    """Return the files of the calls further in than `place`.

    `stack` has the innermost call last.
    """
    inner = itertools.takewhile(lambda each: each != place, reversed(stack))
    return [each.file for each in inner]


def by_place(findings: Iterable[Finding]) -> list[list[Finding]]:
    """Group by line and cause.

    The longest comes first in each group, and the group with the longest of all comes first.
    """
    groups: dict[tuple[object, ...], list[Finding]] = {}
    for found in findings:
        groups.setdefault((found.file, found.line, found.function, found.cause), []).append(found)
    sorted_groups = [sorted(group, key=lambda found: -found.duration_ms) for group in groups.values()]
    return sorted(sorted_groups, key=lambda group: -group[0].duration_ms)


def failure_text(findings: Sequence[Finding], threshold_ms: float) -> str:
    """Return the text that a failing test prints."""
    lines = [f"the event loop was blocked for more than {threshold_ms:g} ms"]
    groups = by_place(findings)
    for group in groups[:_MAX_PLACES]:
        worst = group[0]
        times = f", the worst of {len(group)}" if len(group) > 1 else ""
        lines += ["", f"{worst.who} blocked it for {worst.duration_ms:.0f} ms{times}: {worst.why}"]
        if worst.file:
            lines.append(f"    {worst.where}")
        if worst.source:
            lines.append(f"        {worst.source}")
        lines.append(f"    fix: {worst.fix}")
    if len(groups) > _MAX_PLACES:
        lines += ["", f"and at {len(groups) - _MAX_PLACES} more places"]
    return "\n".join(lines)
