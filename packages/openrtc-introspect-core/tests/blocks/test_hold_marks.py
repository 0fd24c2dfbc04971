"""When a hold that goes on is reported."""

from __future__ import annotations

import pytest

from openrtc_introspect_core._blocks.hold_marks import HoldMarks


def test_a_hold_is_reported_after_1_5_and_30_seconds_and_each_minute() -> None:
    """Once for each."""
    marks = HoldMarks()
    taken = [tenth / 10 for tenth in range(2500) if marks.take_mark(100.0, 100.0 + tenth / 10)]
    assert taken == [1.0, 5.0, 30.0, 60.0, 120.0, 180.0, 240.0]


def test_who_asks_late_takes_all_marks_at_once() -> None:
    """Then the next one is due."""
    marks = HoldMarks()
    assert [now for now in (14.0, 14.1, 29.9, 30.1, 90.0, 119.0, 121.0) if marks.take_mark(0.0, now)] == [
        14.0, 30.1, 90.0, 121.0,
    ]  # fmt: skip


def test_each_hold_has_its_own_marks() -> None:
    """A hold that began after the last mark is another one."""
    marks = HoldMarks()
    assert [marks.take_mark(0.0, 6.0), marks.take_mark(7.0, 7.9), marks.take_mark(7.0, 8.0)] == [True, False, True]


@pytest.mark.parametrize("since", [0.0, 3.0, 5.9])
def test_a_hold_that_began_before_the_last_mark_is_the_same(since: float) -> None:
    """Its beginning may be known better meanwhile, or only that of a part: a loop is held by one thing at a time."""
    marks = HoldMarks()
    assert marks.take_mark(0.0, 6.0)
    assert not marks.take_mark(since, 7.0)
    assert marks.take_mark(since, 30.0)
