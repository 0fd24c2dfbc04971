"""The block detector: from overruns and samples to one Block, recorded once.

A block is found by the step that overran, or by an iteration of the loop that was long beyond the
steps that did. Its culprit is the session that held most of it, unless its cause has none (see classification.py);
what cannot be known is not guessed.
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import replace
from typing import Any, Literal

from .._accounting.account import Account
from .._accounting.span_log import Seconds
from .._accounting.spans import LedgerReading, Overrun
from .._base.clock import WallTime
from .._base.gil import has_gil
from .._loops.delays import charge_delays
from .._loops.hook import LoopHook
from .._os.stacks import Places
from .._sessions.session import Session, session_of
from ..wire._messages import MAX_DELAYED, Block
from .attribution import Attribution, Probes, joined
from .classification import Facts
from .history import BlockHistory
from .iteration_shares import most_of, sessions_of, shares_of
from .span_sum import SpanSum
from .stall_samples import MAJORITY


class Detector:
    """Finds the blocks of one loop. Only `in_progress` and `report_hold` run on other threads than the loop's."""

    def __init__(self, hook: LoopHook, history: BlockHistory, wall: WallTime, places: Places, probes: Probes) -> None:
        self._hook = hook
        self._ledger = hook.ledger
        self._history = history
        self._wall = wall
        self._places = places
        self._probes = probes
        self._attribution = Attribution(hook, places, probes)
        self.loop_name: str | None = None
        """The loop's name, while the worker has several."""
        self._reported = SpanSum()
        """What overran since the last iteration that was reported, or in the one under way."""
        self._hold_logged: float | None = None
        """When the block in progress that was logged last began."""
        if probes.stalls is not None:
            probes.stalls.on_mark = self.report_hold
            probes.stalls.on_held = probes.waits.see

    def step_overran(self, overrun: Overrun) -> None:
        """Record a task's step that took longer than the threshold."""
        start, end = overrun.start, overrun.end
        self._reported.add(start, end)
        facts = self._facts("step", start, end)
        facts.gc_s = overrun.shares.get(self._ledger.gc, 0.0)
        holder, task_name = self._of_step(facts, overrun.shares)
        self._record(facts, holder, task_name, start)

    def _of_step(self, facts: Facts, shares: Mapping[Account, float]) -> tuple[Session | None, str | None]:
        """Return the session and the name of the task that held most of a step but for collections. From any thread.

        None: nobody held half of it. Other sessions' samples are taken out of the facts.

        shares: the seconds of the step by holder.
        """
        holders = {holder: seconds for holder, seconds in shares.items() if holder is not self._ledger.gc}
        task_name = self._hook.task_name()
        holder = max(holders, key=holders.__getitem__)
        session = session_of(holder.session)
        if len(holders) > 1:
            if max(holders[holder], facts.gc_s) < MAJORITY * facts.duration:
                return None, task_name
            if facts.stall is not None:
                facts.stall = facts.stall.held_by(session)
        # An eager task of the same session may have held it.
        return session, most_of(shares_of(facts.stall, (), facts.start, facts.end)).task or task_name

    def loop_stalled(self, start: float, end: float) -> None:
        """Record an iteration that was longer than the threshold.

        The steps in it that overran have reported their part, which does not count again.
        """
        reported = self._reported.within(start, end)
        steps = self._ledger.spans.take_iteration()
        self._reported.forget(end)
        if end - start - reported <= self._ledger.limit:
            return
        facts = self._facts("iteration", start, end)
        shares = shares_of(facts.stall, self._ledger.sampling.parts_until(end), start, end, reported=reported)
        running = most_of(shares)
        owner, task = running.session, running.task
        facts = self._of_iteration(facts, task, steps)
        facts.start += reported
        if self._probes.sampler is not None and owner is None:
            owner = self._probes.sampler.owner(self._hook, start, end)
        held = self._record(facts, owner, task, start, running.callback)
        if held and task is not None and self._ledger.sampling.period > 1:  # a step that was not sampled
            for session, share in sessions_of(shares, running).items():
                self._ledger.account_of(session).busy += share * facts.duration

    def _facts(self, kind: Literal["step", "iteration"], start: float, end: float) -> Facts:
        """Return the facts about a step, or what is known of an iteration as of a step. From any thread."""
        gc_monitor, thread_id = self._probes.gc_monitor, self._hook.thread_id
        stalls = self._probes.stalls
        stall = stalls.read(kind, start, end) if stalls is not None else None
        gc_s = gc_monitor.here(start, end, thread_id)
        return Facts(
            start=start,
            end=end,
            limit=self._ledger.limit,
            in_step=True,
            stall=stall,
            after=self._probes.usage.read_held(),
            idle_after=self._ledger.idle,
            gc_s=gc_s,
            gc_asked=gc_monitor.asked(start, end, thread_id, MAJORITY * gc_s) if gc_s else None,
            gc_elsewhere_s=gc_monitor.elsewhere(start, end, thread_id),
            gc_generation=gc_monitor.generation(start, end, thread_id),
            gc_objects=gc_monitor.objects(start, end, thread_id),
            gil=has_gil(),
        )

    def _of_iteration(self, facts: Facts, task: str | None, steps: Seconds) -> Facts:
        """Return the facts about an iteration. From any thread.

        task: the name of the task that held most of it. None: none did. steps: its notable steps, but for those that
        overran, and its collections.
        """
        return replace(facts, in_step=task is not None, gc_s=steps.pop(self._ledger.gc, 0.0), steps=steps)

    def _record(
        self, facts: Facts, owner: Session | None, task_name: str | None, since: float, callback: str | None = None
    ) -> bool:
        """Record a block of the step, or the iteration, that began at `since`.

        Return whether the task, or the callback, that ran is its culprit.
        """
        classification, owner, detail = self._attribution.of(facts, owner, callback)
        located = self._attribution.location(facts, classification)
        detail = joined(detail, located.detail)
        wait = self._probes.waits.of(since, classification.cause, over=True)
        delayed = None
        waits: dict[Session, float] = {}
        delays = self._hook.delays
        if delays.available:
            waits = delays.waiting(facts.duration)
            delayed = charge_delays(waits, owner)
        block = self._history.record(
            owner,
            facts.start,
            facts.end,
            loop=self.loop_name,
            task_name=task_name,
            cause=classification.cause,
            detail=detail,
            location=located.location,
            stack=list(located.stack),
            waiting_on=wait.waiting_on,
            holder=wait.holder,
            delayed=delayed,
            logged=detail is None or "a record of introspection" not in detail,  # it would make the next one
        )
        if delayed is not None:
            self._hook.iterations.after_block = lambda events: self._ready_after(
                events, block, facts.duration, owner, waits
            )
        return not classification.unattributed

    def _ready_after(
        self, events: Any, block: Block, seconds: float, culprit: Session | None, charged: Container[Session]
    ) -> None:
        """Charge the sessions of what the selector finds ready right after a block.

        It became ready at some unknown moment of the block.
        """
        assert block.delayed is not None
        waits = {s: seconds for s in self._hook.delays.ready(events) if s not in charged}
        block.delayed.extend(charge_delays(waits, culprit, exact=False)[: MAX_DELAYED - len(block.delayed)])

    # --- from any thread -------------------------------------------------------------------------

    def in_progress(self, reading: LedgerReading) -> Block | None:
        """Return the block that goes on now, growing, with the cause that it has by now.

        None: the loop is not held past the threshold.
        """
        holder, since, now = reading.holder, reading.holder_since, reading.now
        began = since
        if holder is None:
            stuck = self._hook.iterations.stuck_since(now)
            if stuck is None:
                return None
            # A step of this iteration that overran is over, and in the history.
            began, since = stuck, max(stuck, self._reported.until)
        if now - since <= self._ledger.limit:
            return None
        if holder is not None:
            callback = None
            facts = self._facts("step", since, now)
            session, task_name = self._of_step(facts, reading.shares)
        else:
            facts = self._facts("iteration", since, now)
            shares = shares_of(facts.stall, self._ledger.sampling.parts_until(now), since, now)
            session, task_name, callback, *_ = most_of(shares)
            if session is None and self._probes.sampler is not None:
                session = self._probes.sampler.owner(self._hook, since, now)
            facts = self._of_iteration(facts, task_name, dict(self._ledger.spans.steps))
        classification, session, detail = self._attribution.of(facts, session, callback)
        located = self._attribution.location(facts, classification)
        stack = list(located.stack)
        samples = facts.stall if classification.culprit != "thread-call" else None
        if samples is not None and samples.latest is not None and samples.latest[0]:
            stack = self._places.stack(samples.latest[0])
        wait = self._probes.waits.of(began, classification.cause, over=False)
        started_at = self._wall.at(since)
        return Block(
            seq=0,
            session_id=session.session_id if session is not None else None,
            agent_name=session.agent_name if session is not None else None,
            tenant=session.tenant if session is not None else None,
            loop=self.loop_name,
            task_name=task_name,
            started_at=started_at,
            duration_ms=1000.0 * (now - since),
            in_progress=True,
            running_since=started_at,
            cause=classification.cause,
            detail=joined(detail, located.detail),
            location=located.location,
            stack=stack,
            waiting_on=wait.waiting_on,
            holder=wait.holder,
        )

    def report_hold(self) -> None:
        """Log what has held the loop for a second or more. What had may have ended a moment ago."""
        block = self.in_progress(self._ledger.read())
        if block is not None and block.duration_ms >= 1000.0:
            self._history.log_hold(block, stack=block.running_since != self._hold_logged)
            self._hold_logged = block.running_since
