"""When a hold that goes on is reported: after 1 s, 5 s, 30 s, and then at each minute."""

from __future__ import annotations

import math

FIRST_MARKS_S = (1.0, 5.0, 30.0)
EACH_S = 60.0


class HoldMarks:
    """The marks of what holds one loop. C has the same, and its thread takes marks while Python code cannot."""

    def __init__(self) -> None:
        self._began = 0.0
        """When the hold of the latest mark began. Clock reading."""
        self._marked_at = -math.inf
        """When the latest mark was taken. Clock reading."""

    def take_mark(self, since: float, now: float) -> bool:
        """Return whether what has held the loop since `since` has reached a mark that was not taken yet.

        True is for who reports it: once for all marks that it has reached by now. since, now: clock readings.
        """
        if since > self._marked_at:  # another hold
            self._began, before = since, 0.0
        else:
            before = self._marked_at - self._began
        if now - self._began < next_mark(before):
            return False
        self._marked_at = now
        return True


def next_mark(held_s: float) -> float:
    """Return the mark, in seconds, after a hold of `held_s` seconds."""
    return next((mark for mark in FIRST_MARKS_S if mark > held_s), EACH_S * (held_s // EACH_S + 1.0))
