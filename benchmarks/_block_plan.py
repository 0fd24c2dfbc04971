"""The plan of random blocks: the kind, the place and the length of each."""

from __future__ import annotations

import random
from dataclasses import dataclass

from openrtc_introspect_testing import blockers

SESSIONS = 10
THRESHOLD_S = 0.050
SHORTEST_S, LONGEST_S = 0.020, 0.4

PLACES = ("entry task", "child task", "task of no session", "session's callback", "callback of no session")
SEVERAL, WAITING = "several sessions' tasks", "while the loop waits"

BURST, GIL_WAITING = "burst", "gil-idle"
ALL = tuple(kind for kind in blockers.all_kinds() if kind != "callback")  # "callback" is a place here
UNATTRIBUTED = ("gc", "gil", "signal", BURST, GIL_WAITING)
"""Kinds without a culprit: the session in whose code such a block falls, if any, did not cause it."""


@dataclass(frozen=True, slots=True)
class Planned:
    """A block to be caused."""

    kind: str
    place: str
    session_id: str | None
    """The session whose code blocks; None if that code belongs to no session."""
    seconds: float
    later: bool
    """Whether a callback is scheduled by call_later instead of call_soon."""


def plan(each: int, seed: int) -> list[Planned]:
    """Plan `each` blocks of every kind, evenly over places and lengths.

    Lengths are 20–400 ms on a logarithmic scale.
    """
    chooser = random.Random(seed)
    found = []
    for offset, kind in enumerate(ALL):
        order = list(range(each))
        chooser.shuffle(order)
        for number in range(each):
            place = {BURST: SEVERAL, GIL_WAITING: WAITING}.get(kind, PLACES[(number + offset) % len(PLACES)])
            sessionless = "of no session" in place or place in (SEVERAL, WAITING)
            found.append(
                Planned(
                    kind=kind,
                    place=place,
                    session_id=None if sessionless else f"session-{chooser.randrange(SESSIONS):02}",
                    seconds=SHORTEST_S * (LONGEST_S / SHORTEST_S) ** ((order[number] + chooser.random()) / each),
                    later=chooser.random() < 0.5,
                )
            )
    chooser.shuffle(found)
    return found
