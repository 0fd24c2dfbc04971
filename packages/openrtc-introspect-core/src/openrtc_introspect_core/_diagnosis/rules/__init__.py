"""The rules of a diagnosis, in the order in which they are asked.

Each rule is a function of the evidence and of the findings so far. Rules that explain others come first, and a rule
does not report what an earlier finding explains, so one fault is one finding. docs/diagnosis.md has the formulas and
the thresholds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from ..evidence import Evidence
from ..finding import Finding
from .activity import callback_flood, lost_wakeup, spinning_loop
from .blocks import (
    blocked_now,
    bursts,
    gil_contention,
    host_throttled,
    long_blocks,
    signal_handler,
    slow_sessions,
)
from .collections import explicit_gc, gc_pauses
from .growth import stale_sessions, tasks_grow, threads_grow
from .locks import lock_held_across_await
from .loop import (
    first_caller_pays,
    hot_session,
    loop_full,
    many_small_steps,
    saturated_loop,
    tagging_lost,
    untagged_work,
)
from .memory import left_behind, memory_limit, memory_trend, old_session
from .waiting import deadlock, executor_full, lock_convoy, waiting_together

Rule = Callable[[Evidence, Sequence[Finding]], Iterable[Finding]]

RULES: tuple[Rule, ...] = (
    host_throttled,
    lock_held_across_await,
    blocked_now,
    gil_contention,
    slow_sessions,
    loop_full,
    bursts,
    explicit_gc,
    signal_handler,
    gc_pauses,
    long_blocks,
    callback_flood,
    spinning_loop,
    lost_wakeup,
    tagging_lost,
    many_small_steps,
    hot_session,
    first_caller_pays,
    untagged_work,
    saturated_loop,
    executor_full,
    deadlock,
    lock_convoy,
    waiting_together,
    stale_sessions,
    tasks_grow,
    threads_grow,
    memory_limit,
    memory_trend,
    left_behind,
    old_session,
)

__all__ = ["RULES", "Rule"]
