"""The attribution of a block: from the facts to its cause, its culprit, a detail and its line."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from .._accounting.gc_monitor import GcMonitor
from .._accounting.thread_calls import ThreadCalls
from .._base.log import handled_within
from .._loops.hook import LoopHook
from .._loops.sampler import Sampler
from .._os.stacks import Places
from .._os.thread_usage import HostPressure, ThreadUsage
from .._sessions.session import OUTLIVED_AFTER_S, Session, session_of
from .classification import Classification, Facts, classify, others_computed
from .location import Located, describe_unseen, locate
from .rival_threads import Rivals, alike, keeper_of
from .stall_sampler import StallSampler
from .stall_samples import MAJORITY
from .waits_of_blocks import WaitsOfBlocks

_HANDLER_LOCKS = {
    (code.co_filename, code.co_qualname) for code in (logging.Handler.handle.__code__, logging.Handler.acquire.__code__)
}
"""The calls in which a thread that logs waits for a handler at work on another thread's record."""


@dataclass(slots=True)
class Probes:
    """The probes that a detector asks about a block of its loop."""

    usage: ThreadUsage
    """Of the thread that the loop runs on."""
    gc_monitor: GcMonitor
    pressure: HostPressure
    thread_calls: ThreadCalls
    stalls: StallSampler | None
    """None: no watchdog runs."""
    waits: WaitsOfBlocks
    """What the loop's thread was seen waiting for."""
    sampler: Sampler | None


class Attribution:
    """Says of the blocks of one loop what held it. From any thread."""

    def __init__(self, hook: LoopHook, places: Places, probes: Probes) -> None:
        self._hook = hook
        self._places = places
        self._probes = probes

    def of(
        self, facts: Facts, owner: Session | None, callback: str | None = None
    ) -> tuple[Classification, Session | None, str | None]:
        """Return (the cause, the culprit, the detail) of a block. From any thread.

        owner: the session whose step or callback it was. callback: what is known of a connection's callback.
        """
        classification = classify(facts)
        detail = classification.detail
        if classification.cause == "gc" and facts.gc_s and owner is not None:
            detail = f"{detail}, in a {'step' if facts.in_step else 'callback'} of session {owner.session_id}"
        if classification.unattributed:
            owner = None
        if classification.culprit == "thread-call":
            owner, detail = self._keeper(facts, detail)
            detail = self._collection_elsewhere(facts) or detail
        if classification.cause == "explicit-gc" and facts.gc_asked is not None:
            owner = session_of(facts.gc_asked.owner)
        if classification.cause == "callback" and callback is not None:
            detail = callback
        elif classification.cause == "callback" and owner is None and not (self._hook.iterations.timed and facts.gil):
            detail = "whose it is cannot be known on this loop"
        if classification.cause == "descheduled" and (evidence := self._probes.pressure.describe()):
            detail = joined(detail, evidence)
        if classification.cause == "native" and (unseen := describe_unseen(facts.stall)):
            detail = joined(detail, unseen)
        ago_s = facts.start - owner.ended_at if owner is not None else 0.0
        if owner is not None and ago_s >= OUTLIVED_AFTER_S and classification.culprit == "session":
            lives_on = f"a task of session {owner.session_id} lives on, which ended {ago_s:.0f} s before"
            owner, detail = None, joined(detail, lives_on)
        if owner is not None and self._waits_for_our_records(facts):
            owner, detail = None, "waits for a log handler that is at work on a record of introspection"
        return classification, owner, detail

    def _keeper(self, facts: Facts, detail: str | None) -> tuple[Session | None, str | None]:
        """Return the session whose call in a thread kept the GIL, and the detail. Note the thread in the facts."""
        calls, rivals = self._probes.thread_calls, self._rivals(facts)
        facts.keeper = keeper = keeper_of(rivals, facts.duration)
        if keeper is None:
            owner = calls.culprit(facts.start, facts.end)
            if owner is not None:
                call = calls.call_in(facts.start, facts.end, session=owner)
                return session_of(owner), f"its call {call.function if call else ''} in a thread kept the GIL"
            names = alike(rivals, facts.duration)
            return None, f"threads {', '.join(map(repr, names))} kept the GIL" if names else detail
        thread = f"thread {keeper.name!r}" if keeper.name else "a thread that has ended"
        call = calls.call_in(facts.start, facts.end, thread_id=keeper.thread_id)
        if call is None:
            return None, f"{thread} kept the GIL"
        return session_of(call.session), f"its call {call.function} in {thread} kept the GIL"

    def _rivals(self, facts: Facts) -> Rivals:
        """Return what the other threads have used in a block, up to its end."""
        stalls = self._probes.stalls
        if facts.stall is None or stalls is None:
            return {}
        for sample in stalls.rivals_at_end(facts.stall.since):
            sample.add_to(facts.stall.rivals, facts.stall.since, facts.stall.usage_before)
        return facts.stall.rivals

    def _collection_elsewhere(self, facts: Facts) -> str | None:
        """Return the call of `gc.collect()` on another thread that took most of a block. None: there was none."""
        least_s = MAJORITY * facts.duration
        asked = self._probes.gc_monitor.asked(facts.start, facts.end, None, least_s) if facts.gc_elsewhere_s else None
        call = self._places.innermost(asked.calls) if asked is not None else None
        return f"gc.collect() on another thread kept the GIL, called at {self._places.location(call)}" if call else None

    def _waits_for_our_records(self, facts: Facts) -> bool:
        """Return whether most of a block was spent waiting for our own log records.

        That is: before the lock of a handler that our log thread was at work in meanwhile.
        """
        if facts.stall is None:
            return False
        innermost = [(calls[0], seconds) for (calls, _), seconds in facts.stall.places.items() if calls]
        waits = sum(seconds for call, seconds in innermost if (call.file, call.function) in _HANDLER_LOCKS)
        handled = handled_within(facts.start, facts.end)
        return 2 * waits > sum(facts.stall.places.values()) and 2 * handled > facts.duration

    def location(self, facts: Facts, classification: Classification) -> Located:
        """Return the line of a block and a stack with it, if one line held the loop."""
        if classification.cause == "explicit-gc" and facts.gc_asked is not None:
            calls = facts.gc_asked.calls
            call = self._places.innermost(calls)
            return Located(self._places.location(call) if call is not None else None, self._places.stack(calls))
        if facts.stall is None or not classification.located:
            return Located()
        if facts.keeper is not None:
            call = self._places.innermost(facts.keeper.calls)
            location = self._places.location(call) if call is not None else None
            return Located(location, self._places.stack(facts.keeper.calls))
        if classification.culprit == "thread-call" and others_computed(facts):
            return Located()  # one of them kept the GIL: the line of the loop's thread is innocent
        return locate(facts.stall, self._places)


def joined(detail: str | None, more: str | None) -> str | None:
    """Return what two details say together. None: neither says anything."""
    return f"{detail}; {more}" if detail and more else detail or more
