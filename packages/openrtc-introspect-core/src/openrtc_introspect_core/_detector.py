"""The block detector: from what overran and what was seen of it to one Block, recorded once.

A block is found by the step that overran, or by an iteration of the loop that was long beyond the
steps that did. It is the session's that held most of it, unless it is nobody's (see _causes.py);
what cannot be known is not guessed.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Container, Iterable
from typing import TYPE_CHECKING, Any, Literal

from ._blocks import BlockLog
from ._causes import MOST, Facts, Judgement, judge
from ._gil import copied, has_gil
from ._ledger import Overrun, Span, Standing
from ._log import handled_within
from ._sessions import Session
from ._stacks import Call, Places
from ._usage import HostPressure, ThreadUsage
from ._victims import charge
from .wire._messages import MAX_DELAYED, Block, Location

if TYPE_CHECKING:
    from ._clock import WallTime
    from ._collections import Collections
    from ._hook import LoopHook
    from ._sampler import Sampler
    from ._threadwork import ThreadWork
    from ._watchdog import Incident, Watch


_HANDLER_LOCKS = (logging.Handler.handle.__code__, logging.Handler.acquire.__code__)
"""Where whoever logs waits for a handler that is at work on another thread's record."""


class Detector:
    """Of one loop. All but `in_progress` runs on the loop's thread."""

    def __init__(
        self,
        *,
        hook: LoopHook,
        log: BlockLog,
        wall: WallTime,
        places: Places,
        usage: ThreadUsage,
        collections: Collections,
        pressure: HostPressure,
        thread_work: ThreadWork,
        watch: Watch | None,
        sampler: Sampler | None,
    ) -> None:
        self._hook = hook
        self.told_loop: str | None = None
        """The loop's name, while the worker has several."""
        self._ledger = hook.ledger
        self._log = log
        self._wall = wall
        self._places = places
        self.usage = usage
        self._collections = collections
        self._pressure = pressure
        self._thread_work = thread_work
        self._watch = watch
        self._sampler = sampler
        self._reported: deque[tuple[float, float]] = deque(maxlen=64)

    def step_overran(self, overrun: Overrun) -> None:
        """A task's step took longer than the threshold."""
        start, end = overrun.start, overrun.end
        self._reported.append((start, end))
        facts = Facts(
            start=start,
            end=end,
            limit=self._ledger.limit,
            in_step=True,
            incident=self._incident("step", start, end),
            after=self.usage.read(),
            idle_after=self._ledger.idle,
            gc_s=overrun.shares.get(self._ledger.gc, 0.0),
            gc_elsewhere_s=self._collections.elsewhere(start, end, self._hook.thread_id),
            gc_generation=self._collections.generation(start, end, self._hook.thread_id),
            gil=has_gil(),
        )
        holder = overrun.holder.session if overrun.holder is not None else None
        self._record(facts, holder, self._hook.task_name())

    def loop_stalled(self, start: float, end: float) -> None:
        """The loop got to nothing new from `start` to `end`; steps that overran have reported their part."""
        inside = [(since, until) for since, until in self._reported if until > start and since < end]
        reported = sum(min(end, until) - max(start, since) for since, until in inside)
        if end - start - reported <= self._ledger.limit:
            return
        spans = copied(self._ledger.steps)  # a collection while they are looked at adds itself to them
        steps = [span for span in spans if span.end > start and not _within(span, inside)]
        incident = self._incident("iteration", start, end)
        owner, task = self._found_running(incident)
        facts = Facts(
            start=start + reported,
            end=end,
            limit=self._ledger.limit,
            in_step=task is not None,
            incident=incident,
            after=self.usage.read(),
            idle_after=self._ledger.idle,
            gc_s=sum(span.end - span.start for span in steps if span.holder is self._ledger.gc),
            gc_elsewhere_s=self._collections.elsewhere(start, end, self._hook.thread_id),
            gc_generation=self._collections.generation(start, end, self._hook.thread_id),
            steps=[span for span in steps if span.holder is not self._ledger.gc],
            gil=has_gil(),
        )
        if self._sampler is not None and owner is None:
            owner = self._sampler.owner(self._hook, start, end)
        held = self._record(facts, owner, task)
        if held and task is not None and self._ledger.one_in > 1:  # a step that was left out
            self._ledger.account_of(owner).busy += facts.duration

    def _incident(self, kind: Literal["step", "iteration"], since: float, end: float) -> Incident | None:
        """What the watchdog saw of the span that began at `since`, or what its not having seen anything says."""
        if self._watch is None:
            return None
        incident: Incident | None = getattr(self._watch, kind)
        return incident if incident is not None and incident.since == since else self._watch.unseen(since, end)

    def _record(self, facts: Facts, owner: Session | None, task_name: str | None) -> bool:
        """Whether it is the block of the task, or the callback, that ran."""
        judgement = judge(facts)
        if judgement.nobodys or judgement.cause == "burst":
            owner = None
        detail = judgement.detail
        if judgement.cause == "gil-contention":
            owner = self._thread_work.culprit(facts.start, facts.end)
            if owner is not None:
                detail = "its call in a thread kept the GIL"
        if judgement.cause == "callback" and owner is None and not (self._hook.times_iterations and facts.gil):
            detail = "whose it is cannot be known on this loop"
        if judgement.cause == "descheduled" and (evidence := self._pressure.told()):
            detail = f"{detail}; {evidence}"
        if owner is not None and self._waits_for_our_records(facts):
            owner, detail = None, "waits for a log handler that is at work on a record of introspection"
        location, stack = self._seen(facts, judgement)
        delayed = None
        waits: dict[Session, float] = {}
        victims = self._hook.victims
        if victims.known:
            waits = victims.waiting(facts.duration)
            delayed = charge(waits, owner)
        block = self._log.record(
            owner,
            facts.start,
            facts.end,
            loop=self.told_loop,
            task_name=task_name,
            cause=judgement.cause,
            detail=detail,
            location=location,
            stack=stack,
            delayed=delayed,
            logged=detail is None or "a record of introspection" not in detail,  # it would make the next one
        )
        if delayed is not None:
            self._hook.after_block = lambda events: self._ready_after(events, block, facts.duration, owner, waits)
        return not judgement.nobodys and judgement.cause != "burst"

    def _waits_for_our_records(self, facts: Facts) -> bool:
        """Whether most of it was spent before a handler's lock that our log thread had meanwhile."""
        looks = facts.incident.looks if facts.incident is not None else []
        waits = sum(bool(calls) and calls[0].code in _HANDLER_LOCKS for calls in looks)
        return 2 * waits > len(looks) > 0 and 2 * handled_within(facts.start, facts.end) > facts.end - facts.start

    def _ready_after(
        self, events: Any, block: Block, seconds: float, culprit: Session | None, booked: Container[Session]
    ) -> None:
        """What the selector finds ready right after a block became so during it, nobody knows when."""
        assert block.delayed is not None
        waits = {s: seconds for s in self._hook.victims.ready(events) if s not in booked}
        block.delayed.extend(charge(waits, culprit, exact=False)[: MAX_DELAYED - len(block.delayed)])

    def _seen(self, facts: Facts, judgement: Judgement) -> tuple[Location | None, list[Location]]:
        """Where it was: the place that most looks found, of the user's own where there is one."""
        if facts.incident is None or judgement.cause in ("gc", "burst"):
            return None, []
        return self._place(facts.incident.looks)

    def _place(self, looks: list[list[Call]]) -> tuple[Location | None, list[Location]]:
        found = [(call, calls) for calls in looks if (call := self._places.innermost(calls)) is not None]
        if not found:
            return None, []
        places = [(call.code, call.line) for call, _ in found]
        most = max(places, key=places.count)
        call, calls = found[places.index(most)]
        return self._places.location(call), self._places.stack(calls)

    def _found_running(self, incident: Incident | None) -> tuple[Session | None, str | None]:
        """(session, task's name) of what most looks found running outside of metered steps."""
        if incident is None or not incident.running:
            return None, None
        owners = list(incident.running)
        most = max(owners, key=owners.count)
        return most if owners.count(most) >= MOST * len(owners) else (None, None)

    # --- from any thread -------------------------------------------------------------------------

    def in_progress(self, standing: Standing) -> Block | None:
        """The block that goes on now, growing. None: nothing has been held past the threshold."""
        running, since, now = standing.running, standing.since, standing.now
        incident = None
        if running is not None:
            session = running.session
            task_name = self._hook.task_name()
            if self._watch is not None:
                incident = self._watch.step
        else:
            stuck = self._hook.stuck_since(now)
            if stuck is None:
                return None
            # A step of this iteration that overran is over, and in the history.
            since = max(stuck, self._reported[-1][1]) if self._reported else stuck
            if self._watch is not None:
                incident = self._watch.iteration
            incident = incident if incident is not None and incident.since == since else None
            session, task_name = self._found_running(incident)
            if session is None and self._sampler is not None:
                session = self._sampler.owner(self._hook, since, now)
        if now - since <= self._ledger.limit:
            return None
        location, stack = None, list[Location]()
        if incident is not None and incident.since == since:
            location, stack = self._place(incident.looks[-1:])
        started_at = self._wall.at(since)
        return Block(
            seq=0,
            session_id=session.session_id if session is not None else None,
            agent_name=session.agent_name if session is not None else None,
            tenant=session.tenant if session is not None else None,
            loop=self.told_loop,
            task_name=task_name,
            started_at=started_at,
            duration_ms=1000.0 * (now - since),
            in_progress=True,
            running_since=started_at,
            location=location,
            stack=stack,
        )


def _within(span: Span, reported: Iterable[tuple[float, float]]) -> bool:
    return any(since <= span.start and span.end <= until for since, until in reported)
