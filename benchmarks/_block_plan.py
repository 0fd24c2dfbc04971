"""Random blocks to be caused, and what is to be said of each."""

from __future__ import annotations

import random
from dataclasses import dataclass

from . import _blockers as b

SESSIONS = 10
THRESHOLD_S = 0.050
SHORTEST_S, LONGEST_S = 0.020, b.LONGEST_S
LONGEST_COLLECTION_S = 0.150

PLACES = ("entry task", "child task", "task of no session", "session's callback", "callback of no session")
SEVERAL, WAITING = "several sessions' tasks", "while the loop waits"

KINDS: dict[str, tuple[b.Blocker, str]] = {
    "sleep": (b.sleep, "sync-call"),
    "spin": (b.spin, "cpu"),
    "deepcopy": (b.clone, "cpu"),
    "sorted": (b.sort, "native"),
    "regex": (b.match, "native"),
    "json": (b.dump, "native"),
    "sum": (b.add, "native"),
    "hashing": (b.digest, "native"),
    "zlib": (b.compress, "native"),
    "sqlite": (b.query, "native"),
    "socket": (b.receive, "sync-call"),
    "http": (b.request, "sync-call"),
    "pipe": (b.read_pipe, "sync-call"),
    "lock": (b.take_lock, "sync-call"),
    "fsync": (b.sync, "sync-call"),
    "subprocess": (b.spawn, "sync-call"),
    "import": (b.load, "import"),
    "gc": (b.collect, "gc"),
    "gil": (b.starve, "gil-contention"),
}
"""The function that blocks, and the cause to be told where a task calls it."""
BURST, GIL_WAITING = "burst", "gil, loop waits"
ALL = (*KINDS, BURST, GIL_WAITING)
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

    @property
    def cause(self) -> str:
        if self.kind in ("gil", GIL_WAITING):
            return "gil-contention"
        if self.kind in NOBODYS:
            return self.kind
        return "callback" if "callback" in self.place else KINDS[self.kind][1]

    @property
    def lines(self) -> tuple[int, ...]:
        """Where it blocks, in _blockers.py; empty: no one line does."""
        return () if self.kind in NOBODYS else b.lines(KINDS[self.kind][0])


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
