"""Whose the time of a long iteration was: what the stall samples say, and what is known of steps that were not sampled.

A stall sample stands for a span, and knows what ran at its end. Where scopes opened or closed in a step, the time from
the first of them to the step's end is known by parts, and goes before the samples.
"""

from __future__ import annotations

from collections.abc import Iterable

from .._accounting.step_sampling import UnsampledPart
from .._loops.hook import Running
from .._sessions.session import Session, session_of
from .stall_samples import MAJORITY, StallSamples

Shares = dict[Running, float]
"""Seconds by what ran outside of metered steps."""


def shares_of(
    stall: StallSamples | None, parts: Iterable[UnsampledPart], start: float, end: float, *, reported: float = 0.0
) -> Shares:
    """Return the seconds of each task, and of each session in it, between two clock readings.

    The first part of a step has no beginning: it began after the part before it, and is as long as samples of its task
    are left over. reported: seconds of blocks in between that were reported.
    """
    shares: Shares = {}
    for (_, running), seconds in stall.places.items() if stall is not None else ():
        if running is not None:
            shares[running] = shares.get(running, 0.0) + seconds
    known: Shares = {}
    firsts: list[tuple[Running, float]] = []
    before = start
    for part in parts:
        running = Running(session_of(part.holder.session), part.task)
        since, until = before if part.start is None else max(part.start, start), min(part.end, end)
        if until <= start or since >= end:
            continue
        if part.start is None:
            firsts.append((running, max(0.0, until - since)))
            known.setdefault(running, 0.0)
        else:
            known[running] = known.get(running, 0.0) + until - since
        before = until
    return _corrected(shares, known, firsts, end - start - reported) if known else shares


def _corrected(shares: Shares, known: Shares, firsts: list[tuple[Running, float]], duration: float) -> Shares:
    sampled = {running: shares.pop(running) for running in known if running in shares}
    left = sum(sampled.values()) - sum(known.values())
    result = dict(known)
    for running, most in firsts:
        seconds = max(0.0, min(left, most))
        result[running] += seconds
        left -= seconds
    if left > 0.0:  # of other steps of the same name
        seen = max(sampled, key=sampled.__getitem__)
        result[seen] += left
    others, rest = sum(shares.values()), max(0.0, duration - sum(result.values()))
    scale = min(1.0, rest / others) if others else 0.0
    result |= {running: scale * seconds for running, seconds in shares.items()}
    if not sampled:  # no sample says that the rest was of these steps
        result[Running()] = max(0.0, duration - sum(result.values())) + result.get(Running(), 0.0)
    return result


def most_of(shares: Shares) -> Running:
    """Return what ran for most of an iteration; without a session if no session had most of the task.

    Empty: nothing did.
    """
    groups: Shares = {}
    for running, seconds in shares.items():
        group = running._replace(session=None)
        groups[group] = groups.get(group, 0.0) + seconds
    group = max(groups, key=groups.__getitem__, default=Running())
    if group not in groups or groups[group] < MAJORITY * sum(shares.values()):
        return Running()
    session, share = max(sessions_of(shares, group).items(), key=lambda each: each[1])
    most = group._replace(session=session if share >= MAJORITY else None)
    return most._replace(session=most.search.user) if most.search is not None else most


def sessions_of(shares: Shares, running: Running) -> dict[Session | None, float]:
    """Return the share that each session has of what ran: of a task, for example. Together they are 1."""
    seconds = {
        each.session: share for each, share in shares.items() if each._replace(session=running.session) == running
    }
    total = sum(seconds.values())
    return {session: each / total if total else 1.0 / len(seconds) for session, each in seconds.items()}
