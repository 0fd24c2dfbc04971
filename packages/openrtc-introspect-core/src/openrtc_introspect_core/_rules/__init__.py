"""The rules of a diagnosis, in the order in which they are asked.

Each is a function of the evidence and of what the rules before it found. What explains others comes
first: a rule says nothing of what an earlier finding explains, so that one fault is one finding.
docs/diagnosis.md has the formulas and the thresholds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from .._evidence import Evidence
from .._finding import Finding
from ._blocks import blocked_now, bursts, gc_pauses, gil_contention, host_throttled, slow_sessions
from ._loop import hot_session, many_small_steps, saturated_loop, tagging_lost, untagged_work
from ._memory import left_behind, memory_limit, memory_trend, old_session, tasks_grow

Rule = Callable[[Evidence, Sequence[Finding]], Iterable[Finding]]

RULES: tuple[Rule, ...] = (
    host_throttled,
    blocked_now,
    gil_contention,
    slow_sessions,
    bursts,
    gc_pauses,
    tagging_lost,
    many_small_steps,
    hot_session,
    untagged_work,
    saturated_loop,
    memory_limit,
    memory_trend,
    left_behind,
    tasks_grow,
    old_session,
)

__all__ = ["RULES", "Rule"]
