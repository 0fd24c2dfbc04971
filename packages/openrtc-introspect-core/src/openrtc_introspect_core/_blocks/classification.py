"""Why the loop was held: from measurements and stall samples to a cause.

`_diagnosis/cause` has the table of causes, docs/decisions/0005-how-a-cause-is-judged.md the order of the rules.
Without a GIL no thread keeps it, and C code, imports and Python code look alike: instead of `native` and `import` the
cause is `cpu`, and `gil-contention` is never named.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from .._accounting.account import Account
from .._accounting.collection_log import Asked
from .._diagnosis.cause import CAUSES, UNATTRIBUTED, UNLOCATED, Culprit
from .._os.thread_usage import Usage
from .._sessions.session import session_of
from .rival_threads import Rival
from .stall_samples import MAJORITY, Place, StallSamples

NEGLIGIBLE = 0.1
"""Threads that computed for less than this share of a block count as not computing."""


@dataclass(slots=True)
class Facts:
    """The measurements and stall samples of one block."""

    start: float
    """Clock reading."""
    end: float
    in_step: bool
    """Whether it is a task's step; else it is an iteration of the loop."""
    limit: float
    """The threshold in seconds."""
    stall: StallSamples | None
    """The stall samples, up to `end`. None: there are none, and no sample was late."""
    after: Usage | None
    """The usage of the loop's thread at `end`. None: unknown."""
    idle_after: float | None = None
    """The loop's idle seconds so far, at `end`. None: this loop does not report them."""
    gc_s: float = 0.0
    """Seconds of garbage collections on the loop's thread."""
    gc_generation: int = 0
    """The oldest generation that was collected."""
    gc_objects: int | None = None
    """The most objects that one of these collections went through. None: not known, as before Python 3.15."""
    gc_asked: Asked | None = None
    """The call of `gc.collect()` that most of these seconds are of. None: they are not, or it is not known."""
    gc_elsewhere_s: float = 0.0
    """Seconds of collections on other threads."""
    steps: Mapping[Account, float] = field(default_factory=dict)
    """Seconds of notable steps by holder, if it is an iteration."""
    keeper: Rival | None = None
    """The other thread that kept the GIL. None: none did, or it is not known."""
    gil: bool = True
    """Whether there is a GIL. Without one lateness does not say who ran, and a collection stops all threads."""

    @property
    def duration(self) -> float:
        """The length of the block in seconds."""
        return self.end - self.start


@dataclass(frozen=True, slots=True)
class Classification:
    """A cause, and what more there is to say of it."""

    cause: str | None
    """None: too little was seen."""
    detail: str | None = None

    @property
    def culprit(self) -> Culprit:
        """Which session the block names, if it is known."""
        return CAUSES[self.cause].culprit if self.cause is not None else "session"

    @property
    def unattributed(self) -> bool:
        """Whether the session whose step the block fell into is not to be blamed."""
        return self.cause in UNATTRIBUTED

    @property
    def located(self) -> bool:
        """Whether it is worth saying at which line the loop was."""
        return self.cause not in UNLOCATED


def classify(facts: Facts) -> Classification:
    """Return the cause of a block."""
    duration = facts.duration
    if facts.gc_s >= MAJORITY * duration:
        objects = f", {facts.gc_objects:,} objects" if facts.gc_objects else ""
        detail = f"{1000 * facts.gc_s:.0f} ms of it{objects}"
        if facts.gc_asked is not None:
            return Classification("explicit-gc", f"gc.collect(), {detail}")
        return Classification("gc", f"generation {facts.gc_generation}, {detail}")
    run_delay = _share(facts, "run_delay_s")
    if run_delay is not None and run_delay >= MAJORITY:
        run_delay_s = min(run_delay, 1.0) * duration
        detail = f"run delay {1000 * run_delay_s:.0f} ms"
        if duration - run_delay_s <= facts.limit:
            return Classification("descheduled", detail)
        # The rest is longer than the threshold, so it would be a block without the run delay.
        classification = _without_host(facts, run_delay)
        return (
            classification
            if classification.unattributed
            else replace(classification, detail=classification.detail or detail)
        )
    return _without_host(facts, run_delay)


def _without_host(facts: Facts, run_delay: float | None) -> Classification:
    duration = facts.duration
    stall = facts.stall
    if stall is None:
        return Classification(None) if facts.in_step else _of_iteration(facts)
    cpu = _share(facts, "cpu_s")
    starved = facts.gil and stall.starved
    if _handles_signal(stall.places):
        return Classification("signal")
    # On a crowded machine a thread waits for its processor in between: what counts is what it did in the rest.
    computing = cpu is not None and cpu >= MAJORITY * (1.0 - (run_delay or 0.0))
    if starved and cpu is not None and not computing and not stall.kept_by_loop:
        whose = "another thread's collection" if facts.gc_elsewhere_s >= MAJORITY * duration else "another thread"
        detail = f"{whose} kept the GIL"
        if (all_threads := _share(facts, "process_s")) is not None and all_threads < NEGLIGIBLE:
            detail = "none of the process's threads computed: it was stopped, or one that waited kept the GIL"
        return Classification("gil-contention", detail)
    if not facts.gil and not computing and facts.gc_elsewhere_s >= MAJORITY * duration:
        return Classification("gc", f"on another thread, {1000 * facts.gc_elsewhere_s:.0f} ms of it")
    if not facts.in_step:
        return _of_iteration(facts)
    module = _imported(stall.places)
    if module is not None:
        return Classification("import", module or None)
    if cpu is None:
        return Classification("native" if starved else None)
    if computing:
        return Classification(
            "native" if facts.gil and stall.is_only_c(facts.gc_s, (run_delay or 0.0) * duration) else "cpu"
        )
    if starved:
        return Classification("native", "its C code waited while it kept the GIL")
    return Classification("sync-call")


def others_computed(facts: Facts) -> bool:
    """Return whether the process's other threads computed for a notable part of a block."""
    all_threads, own = _share(facts, "process_s"), _share(facts, "cpu_s")
    return all_threads is not None and own is not None and all_threads - own >= NEGLIGIBLE


def _handles_signal(places: Mapping[Place, float]) -> bool:
    """Return whether a signal handler ran for most of the time."""
    seconds = sum(each for (_, running), each in places.items() if running is not None and running.signal is not None)
    return seconds > 0.0 and seconds >= MAJORITY * sum(places.values())


def _of_iteration(facts: Facts) -> Classification:
    in_steps = sum(facts.steps.values())
    if in_steps < MAJORITY * facts.duration:
        return Classification("callback" if facts.stall is not None else None)
    shares: dict[str, float] = {}
    for holder, seconds in facts.steps.items():
        session = session_of(holder.session)
        name = session.session_id if session is not None else "untagged tasks"
        shares[name] = shares.get(name, 0.0) + seconds
    top = sorted(shares.items(), key=lambda share: -share[1])[:3]
    return Classification("burst", ", ".join(f"{name} {1000 * seconds:.0f} ms" for name, seconds in top))


def _share(facts: Facts, field: Literal["cpu_s", "run_delay_s", "process_s"]) -> float | None:
    """Return the share of the block that a figure of the usage takes.

    None: it is not known.

    The usage up to the first stall sample counts from the tick before it, a little ahead of the block. The block is
    charged the same fraction as it has of the interval, or more, if there was less time for it ahead. While the loop
    was idle it did not compute. But the end of its idle time may be a run delay: of the thread that was to wake up.
    """
    stall = facts.stall
    if stall is None or facts.after is None:
        return None
    before, first = stall.usage_before, stall.usage_after_first or facts.after
    values = [getattr(usage, field) for usage in (before, first, facts.after)]
    if None in values:
        return None
    until_first, since_first = values[1] - values[0], values[2] - values[1]
    span, inside = first.when - before.when, max(0.0, first.when - facts.start)
    used = until_first * min(1.0, inside / span) if span > 0.0 else 0.0
    if facts.idle_after is not None and stall.idle_before is not None:
        idle_s = facts.idle_after - stall.idle_before if field != "run_delay_s" else 0.0
        ahead_s = max(0.0, span - inside - idle_s)
        used = min(inside, max(used, until_first - ahead_s))
    return float((used + since_first) / facts.duration)


def _imported(places: Mapping[Place, float]) -> str | None:
    """Return the module that was being imported for most of the time, the outermost.

    Returns "" if its name is not known, and None if mostly none was.
    """
    found: dict[str, float] = {}
    for (calls, _), seconds in places.items():
        module = next((call.module for call in reversed(calls) if call.module is not None), None)
        if module is not None:
            found[module] = found.get(module, 0.0) + seconds
    if not found or sum(found.values()) < MAJORITY * sum(places.values()):
        return None
    return max(found, key=lambda module: (module != "", found[module]))
