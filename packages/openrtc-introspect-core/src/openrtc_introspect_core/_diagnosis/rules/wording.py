"""Building findings, and writing figures and counts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ...wire._messages import (
    Block,
    CallbackGroup,
    Creation,
    Holder,
    LeftBehind,
    Location,
    Outlived,
    SessionRow,
    ThreadCallGroup,
    Waiter,
)
from ..advice import ADVICE
from ..finding import Finding, Severity

Owned = SessionRow | Outlived | LeftBehind | Waiter | Holder | ThreadCallGroup | CallbackGroup | Creation | Block
"""The messages that name a session, its agent and its tenant."""


def finding(code: str, severity: Severity, advice: str | None = None, **fields: Any) -> Finding:
    """Return a finding with the advice of its code.

    advice: the key of another advice.
    """
    fix, runbook, section = ADVICE[advice or code]
    return Finding(code=code, severity=severity, fix=fix, runbook=runbook, section=section, **fields)


def owner(row: Owned) -> dict[str, str | None]:
    """Return the fields that name the session of a finding."""
    return {"session_id": row.session_id, "agent_name": row.agent_name, "tenant": row.tenant}


def who(each: Owned, otherwise: str) -> str:
    """Return a session and its agent, or `otherwise` if there is none."""
    if each.session_id is None:
        return otherwise
    return f"{each.session_id} ({each.agent_name})" if each.agent_name else each.session_id


def holder_of(block: Block) -> str:
    """Return whose step or callback held the loop: a session and its agent, a task, or code of no session."""
    return who(block, f"task {block.task_name}" if block.task_name else "code of no session")


def at(location: Location | None) -> str:
    """Return " at " and the place; "" if it is not known."""
    return f" at {location}" if location else ""


def ms(milliseconds: float) -> str:
    """Return a duration such as 71 ms or 3.2 s."""
    return f"{milliseconds:.0f} ms" if milliseconds < 999.5 else f"{milliseconds / 1000.0:.1f} s"


def span(seconds: float) -> str:
    """Return a span of time such as 4.5 s, 58 s, 12 min or 3.5 h."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    if seconds < 120.0:
        return f"{seconds:.0f} s"
    return f"{seconds / 60.0:.0f} min" if seconds < 7200.0 else f"{seconds / 3600.0:.1f} h"


def count(number: int, noun: str, plural: str = "s") -> str:
    """Return a count such as 1 session or 7 sessions. plural: what several of them have at the end."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}{plural}"


def others(number: int) -> str:
    """Return " and 3 more" for the rest of a list that shows its first item.

    Returns "" for 0.
    """
    return f" and {number} more" if number else ""


def times(number: int) -> str:
    """Return "once" or a number of times."""
    return "once" if number == 1 else f"{number} times"


def the_longest(blocks: Sequence[Block]) -> str:
    """Return the length of the longest block, such as "the longest 320 ms"."""
    return f"the longest {ms(max(block.duration_ms for block in blocks))}"


def throttled_pct(found: Sequence[Finding]) -> float:
    """Return the percent of the time with run delay, if that is a finding; else 0.

    Blocks that take less than that may be an effect of it, as short steps look long on such a host.
    """
    return sum(other.value for other in found if other.code == "host-throttled")
