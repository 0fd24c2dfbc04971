"""Random blocks to be caused: of which kind, where, how long."""

from __future__ import annotations

import random
from dataclasses import dataclass

from openrtc_introspect_testing import blockers

SESSIONS = 10
THRESHOLD_S = 0.050
SHORTEST_S, LONGEST_S = 0.020, 0.4
LONGEST_COLLECTION_S = 0.150

PLACES = ("entry task", "child task", "task of no session", "session's callback", "callback of no session")
SEVERAL, WAITING = "several sessions' tasks", "while the loop waits"

BURST, GIL_WAITING = "burst", "gil-idle"
ALL = tuple(kind for kind in blockers.all_kinds() if kind != "callback")  # which is a place here
NOBODYS = ("gc", "gil", BURST, GIL_WAITING)
"""The session whose code it fell into, if any, did nothing wrong."""


@dataclass(frozen=True, slots=True)
class Planned:
    """A block to be caused."""

    kind: str
    place: str
    session_id: str | None
    """Whose code it is."""
    seconds: float
    later: bool
    """Callbacks: by call_later, not call_soon."""


def plan(each: int, seed: int) -> list[Planned]:
    """`each` of each kind, spread evenly over 20–400 ms on a logarithmic scale and over the places."""
    chooser = random.Random(seed)
    found = []
    for offset, kind in enumerate(ALL):
        longest = LONGEST_COLLECTION_S if kind == "gc" else LONGEST_S
        order = list(range(each))
        chooser.shuffle(order)
        for number in range(each):
            place = {BURST: SEVERAL, GIL_WAITING: WAITING}.get(kind, PLACES[(number + offset) % len(PLACES)])
            nobodys = "of no session" in place or place in (SEVERAL, WAITING)
            found.append(
                Planned(
                    kind=kind,
                    place=place,
                    session_id=None if nobodys else f"session-{chooser.randrange(SESSIONS):02}",
                    seconds=SHORTEST_S * (longest / SHORTEST_S) ** ((order[number] + chooser.random()) / each),
                    later=chooser.random() < 0.5,
                )
            )
    chooser.shuffle(found)
    return found
