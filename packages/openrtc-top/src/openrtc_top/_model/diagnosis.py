"""The diagnosis of a worker, by the last snapshots that this view saw."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from openrtc_introspect_core import Finding
    from openrtc_introspect_core.wire import Block, Snapshot

MAX_SNAPSHOTS = 6
MIN_APART_S = 0.9
"""Snapshots closer to one another add little, and ten a second would cost ten times as much."""
MAX_A_SECOND = 10
"""The most workers that are diagnosed in a second. Of more of them, each is diagnosed the less often."""
MAX_SESSIONS = 1000
"""For a larger worker the view would have to keep too much: that is left to `openrtc diagnose`."""


class Diagnosis(NamedTuple):
    """Some seconds of a worker, and what is wrong with it."""

    snapshots: tuple[Snapshot, ...] = ()
    findings: tuple[Finding, ...] = ()
    """The worst first."""

    def after(self, snapshot: Snapshot, blocks: Sequence[Block], workers: int = 1) -> Diagnosis:
        """Return the diagnosis with one more snapshot, unless it came too soon.

        workers: how many of them are followed.
        """
        apart_s = MIN_APART_S * max(1.0, workers / MAX_A_SECOND)
        last = self.snapshots[-1] if self.snapshots else None
        if len(snapshot.sessions) > MAX_SESSIONS:
            return Diagnosis()
        if last is not None and 0.0 <= snapshot.taken_at - last.taken_at < apart_s:
            return self
        kept = tuple(each for each in self.snapshots if each.taken_at < snapshot.taken_at)
        series = (*kept[-MAX_SNAPSHOTS + 1 :], snapshot)
        if len(series) == 1:
            return Diagnosis(series)
        from openrtc_introspect_core import diagnose  # here, so that the first frame need not wait for it

        return Diagnosis(series, tuple(diagnose(series, blocks)))


NO_DIAGNOSIS = Diagnosis()
