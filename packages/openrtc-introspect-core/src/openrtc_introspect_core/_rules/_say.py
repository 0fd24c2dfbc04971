"""How findings are put together and figures written."""

from __future__ import annotations

from typing import Any

from .._advice import ADVICE
from .._finding import Finding, Severity
from ..wire._messages import LeftBehind, SessionRow


def finding(code: str, severity: Severity, advice: str | None = None, **told: Any) -> Finding:
    """A finding with the advice for its code, or for `advice`."""
    fix, runbook, section = ADVICE[advice or code]
    return Finding(code=code, severity=severity, fix=fix, runbook=runbook, section=section, **told)


def owner(row: SessionRow | LeftBehind) -> dict[str, str | None]:
    """The fields that say whose finding it is."""
    return {"session_id": row.session_id, "agent_name": row.agent_name, "tenant": row.tenant}


def ms(milliseconds: float) -> str:
    """71 ms, 3.2 s."""
    return f"{milliseconds:.0f} ms" if milliseconds < 999.5 else f"{milliseconds / 1000.0:.1f} s"


def span(seconds: float) -> str:
    """4.5 s, 58 s, 12 min, 3.5 h."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    if seconds < 120.0:
        return f"{seconds:.0f} s"
    return f"{seconds / 60.0:.0f} min" if seconds < 7200.0 else f"{seconds / 3600.0:.1f} h"


def count(number: int, noun: str) -> str:
    """1 session, 7 sessions."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def others(number: int) -> str:
    """What is behind the first one of several: nothing, or " and 3 more"."""
    return f" and {number} more" if number else ""
