"""A finding: what is wrong with a worker, the evidence, and what to do."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from ..wire._messages import Location

Severity = Literal["critical", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("critical", "warning", "note")
"""The worst first. "critical": calls suffer now; "warning": some do, or will; "note": worth checking."""


class Finding(Struct, frozen=True, kw_only=True):
    """The finding of one rule.

    Its texts are in English, one line each. They may contain session ids and function names of the host's program,
    which may hold control characters: escape them before they reach a terminal.
    """

    code: str
    """The rule: one of the codes in docs/diagnosis.md."""
    severity: Severity
    title: str
    """What is wrong."""
    seen: str
    """The evidence, with figures."""
    threshold: str
    """The threshold above which it is a finding."""
    fix: str
    """What most likely helps."""
    runbook: str
    """The runbook that says more: `openrtc runbook NAME`."""
    section: str
    """The heading in that runbook."""
    value: float
    """The figure that the threshold applies to, in `unit`."""
    limit: float
    """The figure of the threshold, in `unit`."""
    unit: str
    """"ms", "s", "min", "h", "%", "MB", "blocks", "sessions", "tasks", "threads", "callbacks", "callbacks/s",
    "iterations/s", "processes"."""
    session_id: str | None = None
    """The session that is at fault, or has the largest part in it. None: no session is."""
    agent_name: str | None = None
    tenant: str | None = None
    location: Location | None = None
    """The line of code. None: the finding is not about a line."""
