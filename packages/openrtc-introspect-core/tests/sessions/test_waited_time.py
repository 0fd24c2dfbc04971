from __future__ import annotations

import pytest

from openrtc_introspect_core._sessions.waited_time import WaitedTime

TIMER, LOCK, QUEUE = range(3)


def see(waited: WaitedTime, kinds: list[int], now: float, *, steps: int, last_step: float, passed: float) -> None:
    """Take a sample of a session that has neither run nor been delayed since its start at 0."""
    waited.see(bytes(kinds), now, now, steps=steps, last_step=last_step, passed=passed, final=True)


def test_a_wait_counts_from_the_step_before_it() -> None:
    """The session began to wait with its only step since the sample before."""
    waited = WaitedTime(0.0)
    see(waited, [TIMER], 1.0, steps=1, last_step=0.0, passed=0.0)
    see(waited, [LOCK], 11.0, steps=2, last_step=7.0, passed=10.0)
    assert waited.seconds(11.0, 11.0) == pytest.approx({TIMER: 7.0, LOCK: 4.0})


def test_a_session_that_takes_no_step_waits_on_for_the_same() -> None:
    """Nobody looks again, and the time until now is charged."""
    waited = WaitedTime(0.0)
    see(waited, [QUEUE], 1.0, steps=1, last_step=0.0, passed=0.0)
    assert waited.holds(1, 0.0)
    assert waited.seconds(60.0, 60.0) == {QUEUE: 60.0}


def test_a_sample_after_several_steps_speaks_for_the_time_since_the_round_before() -> None:
    """Until that round the earlier answer held: otherwise the session would have been looked at in it."""
    waited = WaitedTime(0.0)
    see(waited, [TIMER], 1.0, steps=1, last_step=0.0, passed=0.0)
    see(waited, [LOCK], 11.0, steps=9, last_step=10.9, passed=10.0)
    assert waited.seconds(11.0, 11.0) == pytest.approx({TIMER: 10.0, LOCK: 1.0})


def test_the_time_since_the_last_round_is_unknown_once_the_session_has_stepped() -> None:
    """Nobody has looked since."""
    waited = WaitedTime(0.0)
    see(waited, [TIMER], 1.0, steps=1, last_step=0.0, passed=0.0)
    assert not waited.holds(2, 4.2)
    assert waited.seconds(4.5, 4.0) == {TIMER: 4.0}


def test_tasks_share_the_time_equally() -> None:
    """Two of three wait for a timer."""
    waited = WaitedTime(0.0)
    see(waited, [TIMER, LOCK, TIMER], 6.0, steps=3, last_step=0.0, passed=0.0)
    assert waited.seconds(9.0, 9.0) == pytest.approx({TIMER: 6.0, LOCK: 3.0})


def test_time_in_which_the_session_ran_is_no_wait() -> None:
    """Of four seconds it has run for one."""
    waited = WaitedTime(0.0)
    waited.see(bytes([TIMER]), 4.0, 3.0, steps=9, last_step=3.9, passed=0.0, final=True)
    assert waited.seconds(3.5, 4.5) == pytest.approx({TIMER: 3.5})


def test_what_a_later_block_takes_back_is_charged_once() -> None:
    """A block is charged when it ends, so the session has waited for less than the samples in it said."""
    waited = WaitedTime(0.0)
    see(waited, [TIMER], 5.0, steps=1, last_step=0.0, passed=0.0)
    waited.see(bytes([TIMER]), 6.0, 3.0, steps=2, last_step=5.5, passed=5.0, final=True)
    waited.see(bytes([TIMER]), 9.0, 6.0, steps=3, last_step=8.5, passed=6.0, final=True)
    assert waited.seconds(6.0, 9.0) == pytest.approx({TIMER: 6.0})


def test_a_wait_that_may_end_without_a_step_is_looked_at_again() -> None:
    """A queued call begins to run in a thread, and its session takes no step meanwhile."""
    waited = WaitedTime(0.0)
    waited.see(bytes([QUEUE]), 1.0, 1.0, steps=1, last_step=0.0, passed=0.0, final=False)
    assert not waited.holds(1, 0.0)
    see(waited, [LOCK], 2.0, steps=1, last_step=0.0, passed=1.0)
    assert waited.seconds(2.0, 2.0) == pytest.approx({QUEUE: 1.0, LOCK: 1.0})


def test_a_missed_sample_leaves_its_time_to_the_next() -> None:
    """The session's only task ran when it was looked at."""
    waited = WaitedTime(0.0)
    see(waited, [TIMER], 1.0, steps=1, last_step=0.0, passed=0.0)
    waited.missed()
    see(waited, [LOCK], 3.0, steps=20, last_step=2.9, passed=2.0)
    assert waited.seconds(3.0, 3.0) == pytest.approx({TIMER: 1.0, LOCK: 2.0})


def test_without_tasks_nothing_is_charged() -> None:
    """The session's scope was entered outside of a task."""
    waited = WaitedTime(0.0)
    see(waited, [], 5.0, steps=0, last_step=0.0, passed=0.0)
    assert waited.seconds(9.0, 9.0) == {}


def test_busy_samples_count_in_a_row() -> None:
    """One that finds the session calm begins anew."""
    waited = WaitedTime(0.0)
    assert [waited.count_busy(busy) for busy in (True, True, False, True)] == [1, 2, 0, 1]
