from __future__ import annotations

from contextvars import ContextVar

from openrtc_introspect_core._accounting.account import Account
from openrtc_introspect_core._accounting.ledger import Ledger, times_steps
from openrtc_introspect_core._accounting.spans import Overrun
from openrtc_introspect_core._sessions.session import Session
from openrtc_introspect_testing._loops.fake_clock import FakeClock


class ObservedLedger:
    """A ledger on a fake clock, with the overruns that it reported."""

    def __init__(self, limit: float = 0.05) -> None:
        self.clock = FakeClock(0.0)
        self.overruns: list[Overrun] = []
        self.ledger = Ledger(ContextVar("binding"), self.clock, limit, self.overruns.append)
        self.one, self.two = Account(), Account()

    def pass_time(self, seconds: float) -> None:
        self.clock.advance(seconds)


def session() -> Session:
    return Session("job-1", "a", {}, started=0.0)


def test_a_step_is_charged_to_its_holder() -> None:
    """The charge begins and ends with the step."""
    observed = ObservedLedger()
    observed.pass_time(1)
    outside, start = observed.ledger.begin(observed.one)
    observed.pass_time(0.03)
    observed.ledger.end(outside, start)
    observed.pass_time(1)
    assert (round(observed.one.busy, 9), observed.one.steps) == (0.03, 1)
    assert observed.ledger.holder is None


def test_a_nested_step_is_charged_once() -> None:
    """An eager task's first step is its own; the time around it is the outer step's."""
    observed = ObservedLedger()
    outside, start = observed.ledger.begin(observed.one)
    observed.pass_time(0.01)
    inner_outside, inner_start = observed.ledger.begin(observed.two)
    observed.pass_time(0.02)
    observed.ledger.end(inner_outside, inner_start)
    observed.pass_time(0.01)
    observed.ledger.end(outside, start)
    assert round(observed.one.busy, 9) == 0.02
    assert round(observed.two.busy, 9) == 0.02


def test_a_switch_in_mid_step_divides_the_step() -> None:
    """Each holder is charged with the time that it held."""
    observed = ObservedLedger()
    outside, start = observed.ledger.begin(observed.one)
    observed.pass_time(0.01)
    observed.ledger.switch(observed.two)
    observed.pass_time(0.03)
    observed.ledger.switch(observed.one)
    observed.pass_time(0.005)
    observed.ledger.end(outside, start)
    assert round(observed.one.busy, 9) == 0.015
    assert round(observed.two.busy, 9) == 0.03
    assert observed.one.steps + observed.two.steps == 1


def test_a_switch_outside_of_steps_charges_nobody() -> None:
    """A scope entered in a callback has no step to divide."""
    observed = ObservedLedger()
    observed.ledger.switch(observed.one)
    observed.pass_time(1)
    assert observed.ledger.holder is None
    assert observed.one.busy == 0.0


def test_an_overrun_is_the_holder_s() -> None:
    """A step over the limit is reported with its span. One within it is not."""
    observed = ObservedLedger()
    for seconds in (0.049, 0.07):
        outside, start = observed.ledger.begin(observed.one)
        observed.pass_time(seconds)
        observed.ledger.end(outside, start)
    assert [(holder, round(end - start, 9)) for holder, start, end, _ in observed.overruns] == [(observed.one, 0.07)]


def test_a_nested_overrun_is_reported_once_and_for_the_culprit() -> None:
    """The outermost step alone reports, and names the inner step that took the time."""
    observed = ObservedLedger()
    outside, start = observed.ledger.begin(observed.one)
    inner_outside, inner_start = observed.ledger.begin(observed.two)
    observed.pass_time(0.09)
    observed.ledger.end(inner_outside, inner_start)
    observed.pass_time(0.01)
    observed.ledger.end(outside, start)
    assert [(holder, round(end - start, 9)) for holder, start, end, _ in observed.overruns] == [(observed.two, 0.1)]


def test_an_overrun_without_a_main_holder_is_unattributed() -> None:
    """If no holder has half of the step, no one is blamed."""
    observed = ObservedLedger()
    third = Account()
    outside, start = observed.ledger.begin(observed.one)
    for account in (observed.one, observed.two, third):
        observed.ledger.switch(account)
        observed.pass_time(0.03)
    observed.ledger.end(outside, start)
    assert [holder for holder, _, _, _ in observed.overruns] == [None]


def test_the_parts_of_one_step_do_not_count_for_the_next() -> None:
    """A switch in an earlier step is no share of a later one."""
    observed = ObservedLedger()
    outside, start = observed.ledger.begin(observed.one)
    observed.ledger.switch(observed.two)
    observed.pass_time(0.04)
    observed.ledger.switch(observed.one)
    observed.ledger.end(outside, start)
    outside, start = observed.ledger.begin(observed.one)
    observed.pass_time(0.06)
    observed.ledger.end(outside, start)
    assert [holder for holder, _, _, _ in observed.overruns] == [observed.one]


def test_the_step_in_progress_counts_before_it_ends() -> None:
    """A reading has what the holder has so far, and when its step began."""
    observed = ObservedLedger()
    outside, start = observed.ledger.begin(observed.one)
    observed.pass_time(3)
    reading = observed.ledger.read()
    assert reading.holder is observed.one
    assert reading.holder_since == start
    assert reading.busy_of(observed.one) == 3
    assert reading.busy_of(observed.two) == 0
    observed.ledger.end(outside, start)
    assert observed.ledger.read().holder is None


def test_a_step_in_progress_began_before_its_last_switch() -> None:
    """The reading begins with the whole step. Its open part is the last holder's."""
    observed = ObservedLedger()
    _, start = observed.ledger.begin(observed.one)
    observed.pass_time(1)
    observed.ledger.switch(observed.two)
    observed.pass_time(2)
    reading = observed.ledger.read()
    assert reading.holder_since == start
    assert reading.busy == 2


def test_a_step_that_is_charged_already_does_not_count_twice() -> None:
    """Without a GIL, another thread reads between the charge at a step's end and the change of the holder."""
    observed = ObservedLedger()
    observed.ledger.begin(observed.one)
    observed.pass_time(3)
    observed.one.busy += 3
    observed.one.last_step = observed.clock()
    observed.pass_time(1)
    assert observed.ledger.read().busy_of(observed.one) == 4


def test_a_collection_is_charged_to_no_session() -> None:
    """It interrupts the holder, whose step goes on after it."""
    observed = ObservedLedger()
    outside, start = observed.ledger.begin(observed.one)
    observed.pass_time(0.01)
    began = observed.clock()
    observed.pass_time(0.04)
    observed.ledger.collected(began, observed.clock())
    assert observed.ledger.read().holder_since == start
    observed.pass_time(0.01)
    observed.ledger.end(outside, start)
    assert round(observed.one.busy, 9) == 0.02
    assert round(observed.ledger.gc.busy, 9) == 0.04
    ((holder, _, _, shares),) = observed.overruns
    assert holder is observed.ledger.gc
    assert {account: round(share, 9) for account, share in shares.items()} == {
        observed.one: 0.02,
        observed.ledger.gc: 0.04,
    }


def test_a_collection_between_steps_is_noted() -> None:
    """It may run in a callback, or in the loop's own work."""
    observed = ObservedLedger()
    began = observed.clock()
    observed.pass_time(0.06)
    observed.ledger.collected(began, observed.clock())
    assert observed.ledger.spans.steps == {observed.ledger.gc: 0.06}


def test_notable_steps_are_kept_and_others_are_not() -> None:
    """They show who took part in a long iteration."""
    observed = ObservedLedger()
    for account, seconds in ((observed.one, 0.001), (observed.two, 0.00001), (observed.two, 0.002)):
        outside, start = observed.ledger.begin(account)
        observed.pass_time(seconds)
        observed.ledger.end(outside, start)
    assert list(observed.ledger.spans.steps) == [observed.one, observed.two]


def test_the_first_step_on_a_parked_ledger_wakes_who_sleeps() -> None:
    """The step is charged as on any ledger."""
    observed = ObservedLedger()
    woken: list[bool] = []
    observed.ledger.on_wake = lambda: woken.append(True)
    observed.ledger.holder = observed.ledger.parked
    assert observed.ledger.read().holder is None
    observed.ledger.switch(observed.two)
    outside, start = observed.ledger.begin(observed.one)
    observed.pass_time(0.01)
    observed.ledger.end(outside, start)
    assert (woken, observed.ledger.holder, round(observed.one.busy, 9)) == ([True], None, 0.01)


def test_what_is_read_while_an_overrun_is_reported_counts_once() -> None:
    """A step is charged before its overrun is reported.

    Reporting takes a while, and other threads read meanwhile.
    """
    observed = ObservedLedger()
    seen: list[tuple[float, Account | None]] = []

    def report(overrun: Overrun) -> None:
        reading = observed.ledger.read()
        seen.append((reading.busy_of(observed.one), reading.holder))

    observed.ledger.spans.on_overrun = report
    outside, start = observed.ledger.begin(observed.one)
    observed.pass_time(0.25)
    observed.ledger.end(outside, start)
    assert seen == [(0.25, None)]


def test_a_session_has_one_account_per_loop() -> None:
    """It is opened when the session first holds the loop, and never after its end."""
    here, there = ObservedLedger().ledger, ObservedLedger().ledger
    one, over = session(), session()
    over.ended = True
    accounts = [ledger.account_of(one) for ledger in (here, here, there)]
    assert accounts[0] is accounts[1]
    assert one.accounts == [accounts[0], accounts[2]]
    assert here.account_of(over) is here.account_of(None) is here.untagged


def test_the_time_of_retired_sessions_stays_in_the_totals() -> None:
    """Totals do not fall when an account is closed. The step in progress counts."""
    observed = ObservedLedger()
    one, two = session(), session()
    for each, seconds in ((one, 1.5), (two, 0.25)):
        outside, start = observed.ledger.begin(observed.ledger.account_of(each))
        observed.pass_time(seconds)
        if each is one:
            observed.ledger.end(outside, start)
    assert observed.ledger.accounts.totals(observed.ledger.read()) == (1.75, 1)
    observed.ledger.accounts.retire(one)
    observed.ledger.accounts.retire(session())
    assert observed.ledger.accounts.totals(observed.ledger.read()) == (1.75, 1)
    assert list(observed.ledger.accounts.by_owner) == [two]


def test_an_account_knows_when_its_last_step_ended() -> None:
    """Its first step is none before it ends; a session's account begins with the session's start."""
    observed = ObservedLedger()
    account = observed.ledger.account_of(Session("job-1", "a", {}, started=-2.0))
    assert account.last_step == -2.0
    outside, start = observed.ledger.begin(account)
    observed.pass_time(0.01)
    assert account.last_step == -2.0
    observed.ledger.end(outside, start)
    observed.pass_time(1)
    assert account.last_step == 0.01


def test_a_switch_in_mid_step_ends_what_held_the_loop() -> None:
    """So a session is known to have held it until another took over."""
    observed = ObservedLedger()
    outside, start = observed.ledger.begin(observed.one)
    observed.pass_time(0.01)
    observed.ledger.switch(observed.two)
    observed.pass_time(0.02)
    observed.ledger.end(outside, start)
    assert (observed.one.last_step, observed.two.last_step) == (0.01, 0.03)


def test_a_step_that_is_not_timed_ends_at_the_last_reading() -> None:
    """Other steps of the loop are timed, and read the clock."""
    observed = ObservedLedger()
    outside, start = observed.ledger.begin(observed.two)
    observed.pass_time(0.01)
    observed.ledger.end(outside, start)
    observed.pass_time(0.5)
    observed.ledger.end(None, None, observed.one)
    assert observed.one.last_step == 0.01


def test_no_step_is_timed_once_metering_has_failed() -> None:
    """A full stack of the host's own is no such failure."""
    observed = ObservedLedger()
    observed.ledger.failed(RecursionError())
    assert times_steps(observed.ledger)
    observed.ledger.failed(ValueError("wrong"))
    assert not times_steps(observed.ledger)
