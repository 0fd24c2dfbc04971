"""What the rules of `openrtc diagnose` say of a worker, from the last snapshots that this view saw."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from openrtc_introspect_core import Finding
    from openrtc_introspect_core.wire import Block, Snapshot

KEPT = 6
APART_S = 0.9
"""Snapshots closer to one another tell little more, and at ten a second would cost ten times as much."""
MOST_SESSIONS = 1000
"""Of a larger worker the view would have to keep too much: `openrtc diagnose` judges it."""


class Judged(NamedTuple):
    """Some seconds of a worker, and what is wrong with it."""

    snapshots: tuple[Snapshot, ...] = ()
    findings: tuple[Finding, ...] = ()
    """The worst first."""

    def after(self, snapshot: Snapshot, blocks: Sequence[Block]) -> Judged:
        """With one more snapshot, if it is not too close to the one before."""
        last = self.snapshots[-1] if self.snapshots else None
        if len(snapshot.sessions) > MOST_SESSIONS:
            return Judged()
        if last is not None and 0.0 <= snapshot.taken_at - last.taken_at < APART_S:
            return self
        kept = tuple(each for each in self.snapshots if each.taken_at < snapshot.taken_at)
        series = (*kept[-KEPT + 1 :], snapshot)
        if len(series) == 1:
            return Judged(series)
        from openrtc_introspect_core import diagnose  # here, so that the first frame need not wait for it

        return Judged(series, tuple(diagnose(series, blocks)))


NOTHING = Judged()
