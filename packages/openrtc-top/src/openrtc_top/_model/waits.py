"""The waits of workers' tasks: their answers, and the groups of several workers as one list."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from openrtc_introspect_core._diagnosis.wait_kind import WAIT_KINDS

if TYPE_CHECKING:
    from openrtc_introspect_core.wire import (
        CallbackGroup,
        Creation,
        ExecutorInfo,
        Holder,
        LoopActivity,
        ThreadCallGroup,
        Waiter,
        WaitGroup,
        Waits,
    )

KINDS = tuple(WAIT_KINDS)
MANY = 40
"""So many live threads or tasks that were started at one line are worth a word: a default pool has 32 threads."""
MANY_OF_A_SESSION = 5
"""So many tasks that were started at one line, for each session there is, are worth a word."""

MOMENT_S = 1.0
"""A wait for another that is shorter is no news: a lock that is free again at once."""

GroupId = tuple[str, str, str, str, int]
"""A worker's key, then kind, description and place of a group, and its number among those that are equal in all."""


class Survey(NamedTuple):
    """A worker's answer to the question what its tasks wait for."""

    waits: Waits | None
    problem: str = ""
    """The reason why there is no answer, in one line."""


class Entry(NamedTuple):
    """One group, and the worker that it is in."""

    identity: GroupId
    """The key by which a selection stays with its group from one answer to the next."""
    name: str
    """The worker's name."""
    taken_at: float
    group: WaitGroup


@dataclass(frozen=True, slots=True)
class Choice:
    """A choice of groups. None: no condition.

    A group is of an agent or tenant if one of those that it names is: a waiter or a holder.
    """

    kind: str | None = None
    agent: str | None = None
    tenant: str | None = None

    def __bool__(self) -> bool:
        return not (self.kind is self.agent is self.tenant is None)

    def accepts(self, group: WaitGroup) -> bool:
        named: list[Waiter | Holder] = [*group.waiters, *group.holders]
        return (
            (self.kind is None or group.kind == self.kind)
            and (self.agent is None or any(each.agent_name == self.agent for each in named))
            and (self.tenant is None or any(each.tenant == self.tenant for each in named))
        )


def entries(worker: str, name: str, waits: Waits) -> list[Entry]:
    """Return a worker's groups, in its order."""
    seen: Counter[tuple[str, str, str]] = Counter()
    found = []
    for group in waits.groups:
        about = (group.kind, group.what, str(group.location))
        found.append(Entry((worker, *about, seen[about]), name, waits.taken_at, group))
        seen[about] += 1
    return found


def most_first(found: Iterable[Entry]) -> list[Entry]:
    """Return the groups of several workers as one list: those with the most sessions first, then the oldest."""
    return sorted(found, key=lambda entry: (-entry.group.sessions, entry.group.since or entry.taken_at))


def waited_s(since: float | None, taken_at: float) -> float | None:
    """Return for how long something has lasted. None: not known."""
    return None if since is None else max(0.0, taken_at - since)


def is_calm(group: WaitGroup, taken_at: float) -> bool:
    """Return whether nobody waits for another in this group, or only for a moment.

    Its tasks wait for things from outside, each for its own, or nobody else waits for the same.
    """
    long_s = waited_s(group.since, taken_at)
    if long_s is not None and long_s < MOMENT_S:
        return True
    kind = WAIT_KINDS.get(group.kind)
    return not group.holders and (not group.shared or group.tasks < 2 or (kind is not None and kind.idle))


def has_queue(executor: ExecutorInfo) -> bool:
    """Return whether calls wait for a thread for longer than a moment."""
    long_s = executor.longest_queued_s
    return executor.queued > 0 and (long_s is None or long_s >= MOMENT_S)


class FunctionCalls(NamedTuple):
    """The calls of one function in a pool's threads and queue, of all sessions together."""

    calls: ThreadCallGroup
    """Their sum; the session is that of the most calls, the line that of the longest that runs."""
    sessions: int
    """The number of sessions, with no session as one of them."""


def calls_by_function(executor: ExecutorInfo) -> list[FunctionCalls]:
    """Return the calls of a pool by function, in the worker's order: those that have the most threads first."""
    from msgspec import structs

    by_function: dict[str, list[ThreadCallGroup]] = {}
    for calls in executor.calls:
        by_function.setdefault(calls.function, []).append(calls)

    def longest(values: Iterable[float | None]) -> float | None:
        return max((value for value in values if value is not None), default=None)

    return [
        FunctionCalls(
            structs.replace(
                max(groups, key=lambda each: each.longest_running_s or 0.0),
                session_id=groups[0].session_id,
                running=sum(each.running for each in groups),
                queued=sum(each.queued for each in groups),
                longest_running_s=longest(each.longest_running_s for each in groups),
                longest_queued_s=longest(each.longest_queued_s for each in groups),
            ),
            len({each.session_id for each in groups}),
        )
        for groups in by_function.values()
    ]


def odd_loops(waits: Waits) -> list[LoopActivity]:
    """Return the loops that spin, are flooded by callbacks, or sleep though a callback is ready."""
    from openrtc_introspect_core._diagnosis.rules.activity import ALWAYS, ASLEEP_S, FLOOD, SPINS_PER_S, STEPS_PCT

    def always_ready(group: CallbackGroup, loop: LoopActivity) -> bool:
        return group.fd is not None and bool(loop.sampled) and group.count >= ALWAYS * (loop.sampled or 0)

    def is_odd(loop: LoopActivity) -> bool:
        rate, asleep_s = loop.iterations_per_s or 0.0, waited_s(loop.asleep_since, waits.taken_at) or 0.0
        return (
            (rate >= SPINS_PER_S and (loop.steps_per_s or 0.0) <= 0.01 * STEPS_PCT * rate)
            or (loop.iterations_per_s is None and any(always_ready(group, loop) for group in loop.callbacks))
            or (loop.ready or 0) >= FLOOD
            or any(group.source == "ready" and group.count >= FLOOD for group in loop.callbacks)
            or (asleep_s >= ASLEEP_S and any(group.source == "lost" for group in loop.callbacks))
        )

    return [loop for loop in waits.loops if is_odd(loop)]


def many_alive(waits: Waits) -> list[Creation]:
    """Return the lines that started more live tasks or threads than a healthy worker has of one line.

    Each session may have a few tasks of one line.
    """
    crowd = {"task": max(MANY, MANY_OF_A_SESSION * waits.sessions)}
    return [creation for creation in waits.creations if creation.alive >= crowd.get(creation.kind, MANY)]


def all_calm(waits: Waits) -> bool:
    """Return whether nothing in the answer needs a look."""
    return (
        all(is_calm(group, waits.taken_at) for group in waits.groups)
        and not any(map(has_queue, waits.executors))
        and not odd_loops(waits)
        and not many_alive(waits)
    )
