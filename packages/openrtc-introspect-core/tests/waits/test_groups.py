"""Waiting tasks in groups, without loops."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from openrtc_introspect_core._waits.groups import UNKNOWN, Groups, Rows
from openrtc_introspect_core.wire._messages import MAX_WAITERS

LINES = [None, ("a.py", 1, "f"), ("a.py", 2, "f")]


class Session:
    """A session, as far as groups know it."""

    def __init__(self, last_step: float = 0.0) -> None:
        self.last_step = last_step


def grouped(rows: Rows, common: Sequence[int] = (), left_out: Sequence[int] = ()) -> list[Any]:
    groups = Groups(rows)
    for _ in groups.fill(set(common), set(left_out)):
        pass
    return groups.all()


def filled(*entries: tuple[Any, float | None, Any, str, int]) -> Rows:
    """Return rows of (session, since, line, kind, target)."""
    rows = Rows()
    for number, (session, since, line, kind, target) in enumerate(entries, start=1):
        rows.add(lambda: None, number, session, since, line, (kind, ""), target)
    return rows


def test_tasks_at_one_line_are_a_group() -> None:
    """Those of another kind, or at another line, are not in it."""
    one, other = Session(), Session()
    groups = grouped(
        filled(
            (one, 1.0, LINES[1], "timer", 0),
            (other, 2.0, LINES[1], "timer", 0),
            (one, 1.0, LINES[2], "timer", 0),
            (one, 1.0, LINES[1], "socket", 0),
        )
    )
    assert [(group.kind, group.tasks, len(group.latest), group.shared) for group in groups] == [
        ("timer", 2, 2, False),
        ("timer", 1, 1, False),
        ("socket", 1, 1, False),
    ]


def test_tasks_that_wait_for_one_object_are_a_group_wherever_they_wait() -> None:
    """Its lines are counted."""
    groups = grouped(
        filled(
            (Session(), 1.0, LINES[1], "lock", 7),
            (Session(), 2.0, LINES[2], "lock", 7),
            (Session(), 3.0, LINES[2], "lock", 7),
            (Session(), 3.0, LINES[2], "lock", 8),
        ),
        common=[7],
    )
    assert [(group.tasks, group.shared, group.lines.most_common(1)[0][0]) for group in groups] == [
        (3, True, LINES[2]),
        (1, False, LINES[2]),
    ]


def test_tasks_that_wait_at_one_line_for_an_object_each_share_none() -> None:
    """If all wait for the same one, they do."""
    entries = [(Session(), 1.0, LINES[1], "queue", target) for target in (7, 8)]
    assert [group.shared for group in grouped(filled(*entries))] == [False]
    assert [group.shared for group in grouped(filled(entries[0], entries[0]))] == [True]


def test_a_task_that_is_left_out_is_not_counted() -> None:
    """It only wraps what another one waits for."""
    rows = filled((Session(), 1.0, LINES[1], "lock", 7), (Session(), 1.0, LINES[1], "lock", 7))
    assert [group.tasks for group in grouped(rows, left_out=[2])] == [1]


def test_a_session_that_has_not_stepped_since_is_stuck() -> None:
    """Others of its tasks may have begun to wait a little later."""
    now = 100.0
    sessions = [Session(last_step) for last_step in (0.0, 5.0, 50.0)]
    groups = grouped(filled(*((session, 0.0, LINES[1], "lock", 0) for session in sessions)))
    assert list(groups[0].stuck(now)) == [True, True, False]


def test_a_session_of_which_it_is_not_known_is_not_stuck() -> None:
    """One of its tasks has not been timed."""
    session = Session()
    groups = grouped(filled((session, 0.0, LINES[1], "lock", 0), (session, None, LINES[1], "lock", 0)))
    assert (list(groups[0].stuck(100.0)), groups[0].oldest) == ([False], 0.0)


@given(
    st.lists(
        st.tuples(
            st.integers(0, 3),
            st.none() | st.floats(0, 1e6),
            st.sampled_from(LINES),
            st.sampled_from(["lock", "timer"]),
            st.integers(0, 4),
        ),
        max_size=80,
    ),
    st.sets(st.integers(1, 4)),
)
def test_each_task_is_in_one_group(entries: list[Any], common: set[int]) -> None:
    """The longest waits are named, the longest first, and no group holds two kinds."""
    sessions = [None, Session(), Session(), Session()]
    # One object is waited for in one way.
    entries = [
        (sessions[number], since, line, "lock" if target in common else kind, target)
        for number, since, line, kind, target in entries
    ]
    rows = filled(*entries)
    groups = grouped(rows, common=sorted(common))
    assert sum(group.tasks for group in groups) == len(entries)
    for group in groups:
        waiters = group.waiters()
        assert len(waiters) == len(set(waiters)) == min(group.tasks, MAX_WAITERS)
        assert {rows.sorts[row][0] for row in waiters} == {group.kind}
        times = [rows.since[row] for row in waiters]
        assert times == sorted(times)
        assert times[0] == group.oldest
        assert group.shared == (group.tasks > 1 and len(group.targets) == 1 and 0 not in group.targets)
    everyone = sorted(time for group in groups for time in [group.oldest])
    assert everyone[:1] == sorted(UNKNOWN if since is None else since for _, since, *_ in entries)[:1]
