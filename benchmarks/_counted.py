"""The program whose instructions are counted: some rounds of one kind of cost.py, in a session.

It prints how many steps, tasks or iterations these were.
"""

from __future__ import annotations

import sys

from . import _loops, cost
from ._subjects import make

OF_A_ROUND = {"step": 8000, "task": 1500, "iteration": 3000}
ON_TRIO = {"step": 2000, "task": 250}


def main(loop: str, subject: str, kind: str, rounds: str) -> None:
    _loops.run(loop, _run(subject, kind, int(rounds)))
    print(int(rounds) * (ON_TRIO if loop == "trio" else OF_A_ROUND)[kind])


async def _run(subject_name: str, kind: str, rounds: int) -> None:
    once = (cost.ON_TRIO if _loops.on_trio() else cost.ON_ASYNCIO)[kind]
    subject = make(subject_name, budget_pct=0)
    await subject.start()

    async def inside() -> None:
        async with subject.session("worker"):
            for _ in range(rounds):
                await once()

    await _loops.spawn(inside()).wait()
    await subject.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
