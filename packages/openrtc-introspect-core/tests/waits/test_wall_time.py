from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openrtc_introspect_core._accounting.account import Account
from openrtc_introspect_core._sessions.session import Session
from openrtc_introspect_core._sessions.waited_time import WaitedTime
from openrtc_introspect_core._waits.wait_sampler import NAMES
from openrtc_introspect_core._waits.wall_time import wall_time
from openrtc_introspect_core.wire import WallTime

TIMER, THREAD, EXECUTOR = (NAMES.index(name) for name in ("timer", "thread", "executor"))


def session(started: float = 0.0) -> Session:
    made = Session("job-1", "a", {}, started)
    made.accounts.append(Account(made))
    return made


def parts(division: WallTime) -> dict[str, float]:
    """Return the parts that are not 0."""
    found = {
        "running": division.running_s,
        "delayed": division.delayed_s or 0.0,
        "queued": division.queued_s,
        "in threads": division.in_threads_s,
        "unknown": division.unknown_s,
        **{each.kind: each.seconds for each in division.waited},
    }
    return {name: seconds for name, seconds in found.items() if seconds}


def test_a_session_that_nobody_has_looked_at_is_unknown_where_it_did_not_run() -> None:
    """Its running time is exact from the start."""
    division = wall_time(session(), 10.0, busy=2.0, delays_known=True, passed=0.0)
    assert division.total_s == 10.0
    assert parts(division) == {"running": 2.0, "unknown": 8.0}


def test_calls_in_threads_are_parts_of_their_own() -> None:
    """Queued ones, too."""
    waiting = session()
    waiting.waited = WaitedTime(0.0)
    waiting.waited.see(bytes([THREAD, EXECUTOR, TIMER]), 9.0, 9.0, steps=0, last_step=0.0, passed=0.0, final=True)
    division = wall_time(waiting, 9.0, busy=0.0, delays_known=True, passed=9.0)
    assert parts(division) == pytest.approx({"queued": 3.0, "in threads": 3.0, "timer": 3.0})


def test_where_delays_are_not_known_they_are_null() -> None:
    """Such time is unknown, or in what samples saw."""
    delayed = session()
    delayed.delayed = 3.0
    division = wall_time(delayed, 10.0, busy=0.0, delays_known=False, passed=0.0)
    assert division.delayed_s is None
    assert division.unknown_s == 10.0


def test_steps_on_several_loops_take_no_more_than_the_whole() -> None:
    """They may run at the same time."""
    division = wall_time(session(), 10.0, busy=17.0, delays_known=True, passed=0.0)
    assert parts(division) == {"running": 10.0}


SECONDS = st.floats(0.0, 100.0)
SHARE = st.floats(0.0, 1.0)


@given(
    rounds=st.lists(
        st.tuples(
            SECONDS,  # since the round before
            SHARE,  # of it the session runs
            SHARE,  # the share of what is left for which it is delayed
            st.integers(0, 3),  # steps
            SHARE,  # the place of the last one
            st.lists(st.sampled_from(range(len(NAMES))), max_size=4),
            st.booleans(),  # whether the wait is certain to last until a step
        ),
        max_size=10,
    ),
    late=SECONDS,
    delays_known=st.booleans(),
    started=st.floats(-1e6, 1e6),
)
def test_the_parts_add_up_to_the_whole(
    rounds: list[tuple[float, float, float, int, float, list[int], bool]],
    late: float,
    delays_known: bool,
    started: float,
) -> None:
    """To a microsecond, and none is below 0, whatever samples saw, whenever blocks are charged."""
    lives = session(started)
    (account,) = lives.accounts
    lives.waited = WaitedTime(started)
    now = passed = started
    for seconds, runs, is_delayed, steps, place, kinds, final in rounds:
        account.busy += runs * seconds
        lives.delayed += is_delayed * (1.0 - runs) * seconds
        if steps:
            account.steps += steps
            account.last_step = now + place * seconds
        now += seconds
        if not lives.waited.holds(account.steps, account.last_step):
            rest = now - started - account.busy - lives.delayed
            lives.waited.see(
                bytes(kinds),
                now,
                rest,
                steps=account.steps,
                last_step=account.last_step,
                passed=passed,
                final=final,
            )
        passed = now
    lives.delayed += late  # of a block that ends just now, and began long ago
    division = wall_time(lives, now + late, busy=account.busy, delays_known=delays_known, passed=passed)
    found = [
        division.running_s,
        division.delayed_s or 0.0,
        division.queued_s,
        division.in_threads_s,
        division.unknown_s,
        *(each.seconds for each in division.waited),
    ]
    assert min(found) >= 0.0
    assert sum(found) == pytest.approx(division.total_s, abs=1e-6, rel=0.0)
