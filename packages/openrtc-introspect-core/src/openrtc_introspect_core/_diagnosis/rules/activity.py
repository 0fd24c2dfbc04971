"""Rules about what a loop does beside steps: callbacks that spin, flood or get lost."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from statistics import median

from ...wire._messages import CallbackGroup, LoopActivity, Waiter, Waits, WorkerInfo
from ..evidence import Evidence
from ..finding import Finding
from ..waiting import MIN_ANSWERS, SAME_S, same_callback
from .waiting import loop_is_busy
from .wording import at, count, finding, owner, span, who

SPINS_PER_S = 4000.0
BESIDE_PCT = 50.0
ALWAYS = 0.95
"""On a loop that does not count its iterations: percent of a core beside steps, and the share of the samples in which a
file is ready that keeps the loop from waiting."""
STEPS_PCT = 10.0
"""A loop that has so many iterations a second, and steps in less than a tenth of them."""
FLOOD = 200
"""Callbacks of one function in the queue."""
FLOOD_PER_S = 20_000.0
"""Callbacks of one function a second: they cost some 4 % of the loop, whatever they do."""
ASLEEP_S = 0.5
READY_S = 0.9
"""A task that stays ready from one answer to the next one, so long at least, is not woken."""
LOST_ANSWERS = 2

_FILES = {"reader", "writer"}


def spinning_loop(evidence: Evidence, found: Sequence[Finding]) -> Iterator[Finding]:
    """Report a loop that goes round and round without running steps."""
    yield from _spins_uncounted(evidence)
    for series in evidence.waiting.loops:
        if not all(_spins(loop) for _, loop in series) or _flood(series) is not None:
            continue
        rate = median(loop.iterations_per_s or 0.0 for _, loop in series)
        steps = median(loop.steps_per_s or 0.0 for _, loop in series)
        always = [group for group in series[-1][1].callbacks if _in_all(group, series)]
        worst = max(always, key=lambda group: (group.source in _FILES, group.count), default=None)
        seen = [_callback(worst)] if worst else ["no callback was seen that is always ready"]
        seen += [f"{steps:,.0f} steps a second"]
        yield finding(
            "spinning-loop",
            "warning",
            None if worst is None or worst.source in _FILES else "spinning-loop/callback",
            title=f"the loop spins: {rate:,.0f} iterations a second, and nearly no steps",
            seen=", ".join(seen),
            threshold=f"{SPINS_PER_S:,.0f} iterations a second, and steps in {STEPS_PCT:g} % of them or less, in all "
            f"of the last {len(series)} answers",
            value=rate,
            limit=SPINS_PER_S,
            unit="iterations/s",
            location=worst.location if worst else None,
            **(owner(worst) if worst else {}),
        )


def _spins_uncounted(evidence: Evidence) -> Iterator[Finding]:
    """Report a spinning loop that does not count its iterations, as uvloop: by the processor time beside steps."""
    beside = evidence.median(_beside_steps_pct)
    steps = evidence.median(_steps_pct)
    for series in evidence.waiting.loops:
        if series[-1][1].iterations_per_s is not None or beside is None or beside < BESIDE_PCT:
            continue
        always = [group for group in series[-1][1].callbacks if _always(group, series)]
        worst = max(always, key=lambda group: (group.source in _FILES, group.count), default=None)
        if worst is None or steps is None or steps > STEPS_PCT:
            continue
        yield finding(
            "spinning-loop",
            "warning",
            None if worst.source in _FILES else "spinning-loop/callback",
            title=f"the loop spins: it takes {beside:.0f} % of a core beside steps",
            seen=f"{_callback(worst)}, ready in each answer; steps take {steps:.0f} % of the loop",
            threshold=f"{BESIDE_PCT:g} % of a core beside steps, {STEPS_PCT:g} % in steps or less, and a callback that "
            f"is always ready, in all of the last {len(series)} answers",
            value=beside,
            limit=BESIDE_PCT,
            unit="%",
            location=worst.location,
            **owner(worst),
        )


def _beside_steps_pct(worker: WorkerInfo) -> float | None:
    """Return the processor time of the loop's thread beside steps, in percent of a core. None: it is not known."""
    used, others, steps = worker.host.process_cpu_pct, worker.host.other_threads_pct, _steps_pct(worker)
    if used is None or others is None or steps is None or worker.loops:
        return None
    return used - others - steps - (worker.loop_time.gc_pct or 0.0) - (worker.introspection_pct or 0.0)


def _steps_pct(worker: WorkerInfo) -> float | None:
    time = worker.loop_time
    return None if time.sessions_pct is None or time.untagged_pct is None else time.sessions_pct + time.untagged_pct


def _always(group: CallbackGroup, series: Sequence[tuple[Waits, LoopActivity]]) -> bool:
    """Return whether a file was ready in nearly all samples of all answers, or a callback in each answer's queue."""
    if group.source == "ready":
        return _in_all(group, series)
    return group.source in _FILES and all(
        any(
            same_callback(group, other) and other.count >= ALWAYS * (loop.sampled or math.inf)
            for other in loop.callbacks
        )
        for _, loop in series
    )


def _spins(loop: LoopActivity) -> bool:
    rate = loop.iterations_per_s or 0.0
    return rate >= SPINS_PER_S and (loop.steps_per_s or 0.0) <= 0.01 * STEPS_PCT * rate


def callback_flood(evidence: Evidence, found: Sequence[Finding]) -> Iterator[Finding]:
    """Report callbacks of one function that are added without end."""
    for series in evidence.waiting.loops:
        worst = _flood(series)
        if worst is None:
            continue
        queued, rate = median(_counts(worst, series)), median(_rates(worst, series))
        by_queue = queued >= FLOOD
        many = f"{count(round(queued), 'callback')} in its queue" if by_queue else f"{rate:,.0f} a second"
        yield finding(
            "callback-flood",
            "critical",
            title=f"{worst.function or 'one function'} floods the loop with callbacks: {many}",
            seen=f"{_callback(worst)}, {queued:,.0f} in the queue in half of the last {len(series)} answers"
            + (f", {rate:,.0f} a second" if rate else ""),
            threshold=f"{FLOOD} callbacks of one function in the queue, or {FLOOD_PER_S:,.0f} a second that another "
            f"thread adds, in half of the last {len(series)} answers, and some in all",
            value=float(queued if by_queue else rate),
            limit=float(FLOOD if by_queue else FLOOD_PER_S),
            unit="callbacks" if by_queue else "callbacks/s",
            location=worst.location,
            **owner(worst),
        )


def _flood(series: Sequence[tuple[Waits, LoopActivity]]) -> CallbackGroup | None:
    """Return the callbacks that come in too great a number. None: there are none."""
    for group in series[-1][1].callbacks:
        if group.source != "ready" or not _in_all(group, series):
            continue
        if median(_counts(group, series)) >= FLOOD:
            return group
        # A callback that adds itself comes as often, but no thread adds it: that loop spins.
        if group.thread is not None and median(_rates(group, series)) >= FLOOD_PER_S:
            return group
    return None


def _counts(group: CallbackGroup, series: Sequence[tuple[Waits, LoopActivity]]) -> list[int]:
    """Return the callbacks of a group in the queue, in each answer."""
    return [sum(each.count for each in loop.callbacks if same_callback(group, each)) for _, loop in series]


def _rates(group: CallbackGroup, series: Sequence[tuple[Waits, LoopActivity]]) -> list[float]:
    """Return the callbacks of a group that run in a second, in each answer; 0 if iterations are not seen."""
    iterations = [loop.iterations_per_s or 0.0 for _, loop in series]
    return [number * each for number, each in zip(_counts(group, series), iterations, strict=True)]


def lost_wakeup(evidence: Evidence, found: Sequence[Finding]) -> Iterator[Finding]:
    """Report what is in the queue of a loop that sleeps: nothing has woken it."""
    yield from _never_run(evidence, found)
    for series in evidence.waiting.loops:
        slept = [each for each in series if _asleep_s(*each) >= ASLEEP_S and _lost(each[1])]
        if len(slept) < LOST_ANSWERS:
            continue
        longest_s = max(_asleep_s(*each) for each in slept)
        answer, loop = slept[-1]
        callback = next((group for group in loop.callbacks if group.source == "lost"), None)
        task = next((waiter for group in answer.groups if group.kind == "ready" for waiter in group.waiters), None)
        if callback is not None:
            what, seen, location, whose = "a callback is ready", _callback(callback), callback.location, owner(callback)
        elif task is not None:
            where = f"{who(task, f'task {task.task_name}')}{at(task.location)}"
            what, seen, location, whose = "a task is ready", where, task.location, owner(task)
        else:
            what, seen, location, whose = "its queue is not empty", count(loop.ready or 0, "callback"), None, {}
        yield finding(
            "lost-wakeup",
            "critical",
            title=f"the loop sleeps though {what}, for up to {span(longest_s)}",
            seen=f"{seen}, in {count(len(slept), 'answer')} of the last {len(series)}",
            threshold=f"something in the queue of a loop that has slept for {ASLEEP_S:g} s, in {LOST_ANSWERS} of the "
            "last answers",
            value=longest_s,
            limit=ASLEEP_S,
            unit="s",
            location=location,
            **whose,
        )


def _never_run(evidence: Evidence, found: Sequence[Finding]) -> Iterator[Finding]:
    """Report a task that stays ready though its loop is free, on a loop that does not show whether it sleeps."""
    answers = evidence.waiting.answers
    if not evidence.waiting.enough or any(each.iterations_per_s is not None for each in answers[-1].loops):
        return
    if loop_is_busy(evidence, found):
        return
    for waiter in _ready(answers[-1]):
        seen = [answers[-1].taken_at]
        for answer in reversed(answers[:-1]):
            if not any(_same_wait(waiter, other) for other in _ready(answer)):
                break
            seen.append(answer.taken_at)
        if seen[0] - seen[-1] < READY_S:
            continue
        yield finding(
            "lost-wakeup",
            "critical",
            title=f"the loop does not run a task that is ready, for {span(seen[0] - seen[-1])} at least",
            seen=f"{who(waiter, f'task {waiter.task_name}')}{at(waiter.location)}, in the last "
            f"{count(len(seen), 'answer')} of {len(answers)}; the loop was free",
            threshold=f"a task that is ready and takes no step for {READY_S:g} s, while the loop is free",
            value=seen[0] - seen[-1],
            limit=READY_S,
            unit="s",
            location=waiter.location,
            **owner(waiter),
        )
        return


def _ready(answer: Waits) -> list[Waiter]:
    return [waiter for group in answer.groups if group.kind == "ready" for waiter in group.waiters]


def _same_wait(one: Waiter, other: Waiter) -> bool:
    if one.since is None or other.since is None or abs(one.since - other.since) >= SAME_S:
        return False
    return (one.session_id, one.task_name) == (other.session_id, other.task_name)


def _lost(loop: LoopActivity) -> bool:
    return bool(loop.ready) or any(group.source == "lost" for group in loop.callbacks)


def _asleep_s(answer: Waits, loop: LoopActivity) -> float:
    return 0.0 if loop.asleep_since is None else answer.taken_at - loop.asleep_since


def _in_all(group: CallbackGroup, series: Sequence[tuple[Waits, LoopActivity]]) -> bool:
    return len(series) >= MIN_ANSWERS and all(_counts(group, series))


def _callback(group: CallbackGroup) -> str:
    kind = f"{group.source} " if group.source in _FILES else ""
    text = f"{kind}{group.function or 'a callback'}{at(group.location)} of {who(group, 'no session')}"
    text += f", fd {group.fd}" if group.fd is not None else ""
    text += f", {group.peer}" if group.peer else ""
    return text + (f", from thread {group.thread}" if group.thread else "")
