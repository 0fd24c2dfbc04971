"""The time until a share shows that a session went from 5 % to 50 % of the loop.

It ends when nine tenths of the change are shown.
"""

from __future__ import annotations

import asyncio

from . import _loops
from ._case import Case, Result, Results, Row
from ._sessions import idle, opened
from ._subjects import make
from ._work import Held, keep_working, now, work

BEFORE, AFTER = 0.05, 0.50
PERIOD_S = 0.020
GIVE_UP_S = 6.0


def cases(quick: bool) -> list[Case]:
    rounds = 1 if quick else 2
    return [
        Case(
            f"{loop} {subject}",
            measure,
            {"subject": subject, "loop": loop, "rounds": 1 if subject == "peer" else rounds},
            needs=_loops.needs(loop, subject),
        )
        for loop, subject in (("asyncio", "exact"), ("uvloop", "exact"), ("asyncio", "peer"))
    ]


def measure(subject: str, loop: str, rounds: int) -> Result:
    # The time depends on where the change falls between two of the worker's marks.
    return {"seconds": [_loops.run(loop, _one(subject, 2.1 + 0.31 * number)) for number in range(rounds)]}


async def _one(subject_name: str, quiet_s: float) -> float | None:
    subject = make(subject_name)
    held = Held()
    await subject.start()
    level = BEFORE

    def body() -> None:
        work("python", level * PERIOD_S)()

    async with opened(subject, {"worker": lambda: keep_working(held, body, PERIOD_S), **idle(9)}):
        await asyncio.sleep(quiet_s)
        shown_before = subject.shares()["worker"]
        level = AFTER
        changed = now()
        enough = shown_before + 0.9 * (100.0 * AFTER - shown_before)
        took: float | None = None
        while took is None and now() - changed < GIVE_UP_S:
            await asyncio.sleep(0.02)
            if subject.shares()["worker"] >= enough:
                took = now() - changed
    await subject.close()
    return took


def rows(results: Results) -> list[Row]:
    peer = _longest(results, "asyncio peer")
    word = f"not in {GIVE_UP_S:g} s" if peer == float("inf") else peer
    return [
        Row(f"{loop}, 5 → 50 % is shown after", _longest(results, f"{loop} exact"), "s", must=2.0, peer=word)
        for loop in _loops.LOOPS
    ]


def _longest(results: Results, case: str) -> float | None:
    if case not in results:
        return None
    return max(float("inf") if one is None else one for one in results[case]["seconds"])
