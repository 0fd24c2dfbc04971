from __future__ import annotations

from contextvars import ContextVar

from openrtc_introspect_core._ledger import Ledger, Overrun
from openrtc_introspect_core._sessions import Account, Session
from openrtc_introspect_testing._clock import FakeClock


class Books:
    """A ledger on a fake clock, with what it reported."""

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
    """From begin to end, and nothing outside of that."""
    books = Books()
    books.pass_time(1)
    outside, start = books.ledger.begin(books.one)
    books.pass_time(0.03)
    books.ledger.end(outside, start)
    books.pass_time(1)
    assert (round(books.one.busy, 9), books.one.steps) == (0.03, 1)
    assert books.ledger.running is None


def test_a_nested_step_is_charged_once() -> None:
    """An eager task's first step inside another's is its own, and the outer one's only besides."""
    books = Books()
    outside, start = books.ledger.begin(books.one)
    books.pass_time(0.01)
    inner_outside, inner_start = books.ledger.begin(books.two)
    books.pass_time(0.02)
    books.ledger.end(inner_outside, inner_start)
    books.pass_time(0.01)
    books.ledger.end(outside, start)
    assert round(books.one.busy, 9) == 0.02
    assert round(books.two.busy, 9) == 0.02


def test_a_switch_in_mid_step_divides_the_step() -> None:
    """Each holder has what it held."""
    books = Books()
    outside, start = books.ledger.begin(books.one)
    books.pass_time(0.01)
    books.ledger.switch(books.two)
    books.pass_time(0.03)
    books.ledger.switch(books.one)
    books.pass_time(0.005)
    books.ledger.end(outside, start)
    assert round(books.one.busy, 9) == 0.015
    assert round(books.two.busy, 9) == 0.03
    assert books.one.steps + books.two.steps == 1


def test_a_switch_outside_of_steps_charges_nobody() -> None:
    """A scope entered in a callback has no step to divide."""
    books = Books()
    books.ledger.switch(books.one)
    books.pass_time(1)
    assert books.ledger.running is None
    assert books.one.busy == 0.0


def test_an_overrun_is_the_holder_s() -> None:
    """A step over the limit is reported with its span; one within it is not."""
    books = Books()
    for seconds in (0.049, 0.07):
        outside, start = books.ledger.begin(books.one)
        books.pass_time(seconds)
        books.ledger.end(outside, start)
    assert [(holder, round(end - start, 9)) for holder, start, end, _ in books.overruns] == [(books.one, 0.07)]


def test_a_nested_overrun_is_reported_once_and_for_the_culprit() -> None:
    """The inner step that took the time is named, by the outermost step alone."""
    books = Books()
    outside, start = books.ledger.begin(books.one)
    inner_outside, inner_start = books.ledger.begin(books.two)
    books.pass_time(0.09)
    books.ledger.end(inner_outside, inner_start)
    books.pass_time(0.01)
    books.ledger.end(outside, start)
    assert [(holder, round(end - start, 9)) for holder, start, end, _ in books.overruns] == [(books.two, 0.1)]


def test_an_overrun_that_nobody_mostly_held_is_nobody_s() -> None:
    """Where no holder has half of the step, no one is blamed."""
    books = Books()
    third = Account()
    outside, start = books.ledger.begin(books.one)
    for account in (books.one, books.two, third):
        books.ledger.switch(account)
        books.pass_time(0.03)
    books.ledger.end(outside, start)
    assert [holder for holder, _, _, _ in books.overruns] == [None]


def test_the_parts_of_one_step_do_not_count_for_the_next() -> None:
    """A switch in an earlier step is no share of a later one."""
    books = Books()
    outside, start = books.ledger.begin(books.one)
    books.ledger.switch(books.two)
    books.pass_time(0.04)
    books.ledger.switch(books.one)
    books.ledger.end(outside, start)
    outside, start = books.ledger.begin(books.one)
    books.pass_time(0.06)
    books.ledger.end(outside, start)
    assert [holder for holder, _, _, _ in books.overruns] == [books.one]


def test_the_step_in_progress_counts_before_it_ends() -> None:
    """What a holder has so far is told, with when its step began."""
    books = Books()
    outside, start = books.ledger.begin(books.one)
    books.pass_time(3)
    standing = books.ledger.standing()
    assert standing.running is books.one
    assert standing.since == start
    assert books.ledger.busy_of(books.one, standing) == 3
    assert books.ledger.busy_of(books.two, standing) == 0
    books.ledger.end(outside, start)
    assert books.ledger.standing().running is None


def test_a_step_in_progress_began_before_its_last_switch() -> None:
    """The span of a step with several holders is the whole step's, the unbooked part the last holder's."""
    books = Books()
    _, start = books.ledger.begin(books.one)
    books.pass_time(1)
    books.ledger.switch(books.two)
    books.pass_time(2)
    standing = books.ledger.standing()
    assert standing.since == start
    assert standing.busy == 2


def test_a_collection_is_charged_to_nobody_who_works() -> None:
    """It interrupts the holder, whose step goes on after it."""
    books = Books()
    outside, start = books.ledger.begin(books.one)
    books.pass_time(0.01)
    began = books.clock()
    books.pass_time(0.04)
    books.ledger.collected(began, books.clock())
    assert books.ledger.standing().since == start
    books.pass_time(0.01)
    books.ledger.end(outside, start)
    assert round(books.one.busy, 9) == 0.02
    assert round(books.ledger.gc.busy, 9) == 0.04
    ((holder, _, _, shares),) = books.overruns
    assert holder is books.ledger.gc
    assert {account: round(share, 9) for account, share in shares.items()} == {books.one: 0.02, books.ledger.gc: 0.04}


def test_a_collection_between_steps_is_noted() -> None:
    """In a callback, or in the loop's own work."""
    books = Books()
    began = books.clock()
    books.pass_time(0.06)
    books.ledger.collected(began, books.clock())
    assert [(span.holder, span.end - span.start) for span in books.ledger.steps] == [(books.ledger.gc, 0.06)]


def test_notable_steps_leave_a_span_and_others_none() -> None:
    """Who took part in a long iteration can be told; the many that take no time are not written down."""
    books = Books()
    for account, seconds in ((books.one, 0.001), (books.two, 0.00001), (books.two, 0.002)):
        outside, start = books.ledger.begin(account)
        books.pass_time(seconds)
        books.ledger.end(outside, start)
    assert [span.holder for span in books.ledger.steps] == [books.one, books.two]


def test_the_first_step_in_quiet_books_wakes_who_sleeps() -> None:
    """And is booked as if nothing had been."""
    books = Books()
    woken: list[bool] = []
    books.ledger.on_wake = lambda: woken.append(True)
    books.ledger.running = books.ledger.quiet
    assert books.ledger.standing().running is None
    books.ledger.switch(books.two)
    outside, start = books.ledger.begin(books.one)
    books.pass_time(0.01)
    books.ledger.end(outside, start)
    assert (woken, books.ledger.running, round(books.one.busy, 9)) == ([True], None, 0.01)


def test_what_is_read_while_an_overrun_is_reported_counts_once() -> None:
    """The step is booked before anyone is told of it: reporting takes a while, and others read meanwhile."""
    books = Books()
    seen: list[tuple[float, Account | None]] = []

    def report(overrun: Overrun) -> None:
        standing = books.ledger.standing()
        seen.append((books.ledger.busy_of(books.one, standing), standing.running))

    books.ledger.on_overrun = report
    outside, start = books.ledger.begin(books.one)
    books.pass_time(0.25)
    books.ledger.end(outside, start)
    assert seen == [(0.25, None)]


def test_a_session_has_one_account_per_loop() -> None:
    """Opened when it first holds the loop; none is opened for one that is over."""
    here, there = Books().ledger, Books().ledger
    one, over = session(), session()
    over.ended = True
    accounts = [ledger.account_of(one) for ledger in (here, here, there)]
    assert accounts[0] is accounts[1]
    assert one.accounts == [accounts[0], accounts[2]]
    assert here.account_of(over) is here.account_of(None) is here.untagged


def test_the_time_of_retired_sessions_stays_in_the_totals() -> None:
    """Totals do not fall when an account is closed, and the step in progress counts."""
    books = Books()
    one, two = session(), session()
    for each, seconds in ((one, 1.5), (two, 0.25)):
        outside, start = books.ledger.begin(books.ledger.account_of(each))
        books.pass_time(seconds)
        if each is one:
            books.ledger.end(outside, start)
    assert books.ledger.totals(books.ledger.standing()) == (1.75, 1)
    books.ledger.retire(one)
    books.ledger.retire(session())
    assert books.ledger.totals(books.ledger.standing()) == (1.75, 1)
    assert list(books.ledger.accounts) == [two]
