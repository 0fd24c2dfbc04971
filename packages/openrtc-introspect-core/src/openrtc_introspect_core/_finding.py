"""A finding: something that is wrong with a worker, what it was seen by, and what to do about it."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from .wire._messages import Location

Severity = Literal["critical", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("critical", "warning", "note")
"""The worst first. "critical": calls suffer now; "warning": some do, or will; "note": worth a look."""


class Finding(Struct, frozen=True, kw_only=True):
    """What one rule found. Its texts are English, a line each, and may hold session ids and function
    names as the host's program made them: a terminal must be protected from those."""

    code: str
    """Which rule: one of those that docs/diagnosis.md lists."""
    severity: Severity
    title: str
    """What is wrong."""
    seen: str
    """The evidence, with its figures."""
    threshold: str
    """From where on it is a finding."""
    fix: str
    """What most likely helps."""
    runbook: str
    """The runbook to read: `openrtc runbook NAME`."""
    section: str
    """The heading in it."""
    value: float
    """The figure that the threshold is about, in `unit`."""
    limit: float
    """The threshold's own figure, in `unit`."""
    unit: str
    """"ms", "%", "blocks", "min", "h", "tasks"."""
    session_id: str | None = None
    """The session whose fault it is, or the one with the most part in it. None: no session's."""
    agent_name: str | None = None
    tenant: str | None = None
    location: Location | None = None
    """The line of code. None: it is not about one."""
