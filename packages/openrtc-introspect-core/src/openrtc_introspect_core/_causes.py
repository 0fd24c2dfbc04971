"""Why the loop was held: from what was measured and seen to one of a few causes.

    gc            a collection took most of it                              nobody's
    descheduled   the thread was ready to run and was not let               nobody's
    gil-contention  another thread kept the GIL: the session's whose call in a thread did, else nobody's
    import        a module was being imported
    native        C code computed, or kept the GIL
    cpu           Python code computed
    sync-call     it waited in a call: the thread used little processor time
    burst         many steps, each within the threshold, in one iteration
    callback      a callback of the loop, not a task

Without a GIL there is no gil-contention, `native` is not told from `cpu`, nor either from `import`: all
three are `cpu`.

Nobody's: the session whose step it fell into did nothing wrong, and is not named.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from statistics import median
from typing import Literal

from ._ledger import Span
from ._stacks import Call
from ._usage import Usage
from ._watchdog import Incident

MOST = 0.5
"""What takes this share of a block is its cause."""

NEXT_TO_NOTHING = 0.1
"""Who has computed for this share of a block at the most has not computed."""

GIL_IS_FREE_S = 0.002
"""Python code gives the GIL to another thread after 5 ms (sys.getswitchinterval), C code that has
let go of it at once: a watchdog that is not even this late has met the latter."""


@dataclass(slots=True)
class Facts:
    """What is known of one block."""

    start: float
    end: float
    in_step: bool
    """A task's step; else an iteration of the loop."""
    limit: float
    """Seconds that make a block."""
    incident: Incident | None
    after: Usage | None
    """The loop thread's, at the end."""
    idle_after: float | None = None
    """The loop's idle seconds at the end; None where the loop does not tell."""
    gc_s: float = 0.0
    gc_generation: int = 0
    gc_elsewhere_s: float = 0.0
    """Seconds of it in which other threads collected."""
    steps: Sequence[Span] = field(default=())
    """The notable steps of the iteration, where it is one."""
    gil: bool = True
    """Whether there is a GIL. Without one a late look says nothing of who ran, and collections stop all threads."""

    @property
    def duration(self) -> float:
        return self.end - self.start


@dataclass(frozen=True, slots=True)
class Judgement:
    """A cause, what more is to be said of it, and whether it is nobody's fault."""

    cause: str | None
    detail: str | None = None
    nobodys: bool = False


def judge(facts: Facts) -> Judgement:
    """The cause of a block; None where too little was seen."""
    duration = facts.duration
    if facts.gc_s >= MOST * duration:
        told = f"generation {facts.gc_generation}, {1000 * facts.gc_s:.0f} ms of it"
        return Judgement("gc", told, nobodys=True)
    waited = _share(facts, "waited_s")
    if waited is not None and waited >= MOST:
        waited_s = min(waited, 1.0) * duration
        told = f"ready to run, and not let, for {1000 * waited_s:.0f} ms"
        if duration - waited_s <= facts.limit:
            return Judgement("descheduled", told, nobodys=True)
        # What it held the loop for besides is a block in its own right, whatever the host did to it.
        judgement = _without_host(facts, waited)
        return judgement if judgement.nobodys else replace(judgement, detail=judgement.detail or told)
    return _without_host(facts, waited)


def _without_host(facts: Facts, waited: float | None) -> Judgement:
    duration = facts.duration
    incident = facts.incident
    if incident is None:
        return Judgement(None) if facts.in_step else _of_iteration(facts)
    cpu = _share(facts, "cpu_s")
    starved = facts.gil and incident.starved(facts.end)
    # On a crowded machine a thread that computes waits for its processor in between.
    computing = cpu is not None and cpu + (waited or 0.0) >= MOST
    if starved and cpu is not None and not computing:
        whose = "another thread's collection" if facts.gc_elsewhere_s >= MOST * duration else "another thread"
        told = f"{whose} kept the GIL"
        if (all_threads := _share(facts, "process_s")) is not None and all_threads < NEXT_TO_NOTHING:
            told = "none of the process's threads computed: it was stopped, or one that waited kept the GIL"
        return Judgement("gil-contention", told, nobodys=True)
    if not facts.gil and not computing and facts.gc_elsewhere_s >= MOST * duration:
        return Judgement("gc", f"on another thread, {1000 * facts.gc_elsewhere_s:.0f} ms of it", nobodys=True)
    if not facts.in_step:
        return _of_iteration(facts)
    module = _imported(incident.looks)
    if module is not None:
        return Judgement("import", module)
    if cpu is None:
        return Judgement("native" if starved else None)
    if computing:
        gil_free = facts.gil and len(incident.late) > 2 and median(incident.late[1:]) < GIL_IS_FREE_S
        return Judgement("native" if starved or gil_free else "cpu")
    return Judgement("sync-call")


def _of_iteration(facts: Facts) -> Judgement:
    in_steps = sum(span.end - span.start for span in facts.steps)
    if in_steps < MOST * facts.duration:
        return Judgement("callback" if facts.incident is not None else None)
    shares: dict[str, float] = {}
    for span in facts.steps:
        session = span.holder.session
        name = session.session_id if session is not None else "untagged tasks"
        shares[name] = shares.get(name, 0.0) + span.end - span.start
    top = sorted(shares.items(), key=lambda share: -share[1])[:3]
    return Judgement("burst", ", ".join(f"{name} {1000 * seconds:.0f} ms" for name, seconds in top))


def _share(facts: Facts, field: Literal["cpu_s", "waited_s", "process_s"]) -> float | None:
    """The share of the block that the thread's usage says, or the process's; None where it is not told.

    What was used up to the first look began at the tick before it, a little ahead of the block. What
    the loop was idle for in that time it did not compute; of the rest, as much is the block's as of
    the time is.
    """
    incident = facts.incident
    if incident is None or facts.after is None:
        return None
    before, first = incident.before, incident.first or facts.after
    values = [getattr(usage, field) for usage in (before, first, facts.after)]
    if None in values:
        return None
    until_first, since_first = values[1] - values[0], values[2] - values[1]
    span, inside = first.when - before.when, max(0.0, first.when - facts.start)
    used = until_first * min(1.0, inside / span) if span > 0.0 else 0.0
    if facts.idle_after is not None and incident.idle_before is not None:
        busy_ahead = max(0.0, span - inside - (facts.idle_after - incident.idle_before))
        used = min(inside, max(used, until_first - busy_ahead))
    return float((used + since_first) / facts.duration)


def _imported(looks: Sequence[Sequence[Call]]) -> str | None:
    """The module whose import most looks found in progress: the outermost, which the user asked for."""
    outermost = [next((call.module for call in reversed(calls) if call.module), None) for calls in looks]
    found = [module for module in outermost if module]
    return max(found, key=found.count) if found and len(found) >= MOST * len(looks) else None
