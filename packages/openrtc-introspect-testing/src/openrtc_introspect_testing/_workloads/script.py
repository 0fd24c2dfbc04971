"""A session's script, step by step, and random scripts from a seed."""

from __future__ import annotations

import random
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a task: it holds the loop, starts other tasks, and waits.

    busy_s, wait_s: seconds.
    """

    busy_s: float
    wait_s: float = 0.0
    children: tuple[Step, ...] = ()
    """Steps of other tasks, one task for each, which this task awaits in the end; they run while it waits."""
    nested: tuple[Step, ...] = ()
    """The same, but begun inside of this step if the loop's task factory is an eager one (Python 3.12)."""


@dataclass(frozen=True, slots=True)
class Script:
    """One session."""

    session_id: str
    steps: tuple[Step, ...]
    late: int = 0
    """How many of the steps come before the session's scope is entered: these belong to no session.

    The last of them only holds the loop, and the scope is entered in the middle of that step, as if an entrypoint had
    just learned its job's id.
    """


def random_script(chooser: random.Random, session_id: str, count: int) -> Script:
    """Make a script of `count` steps.

    Most sessions are small, some are large, and some enter their scope late.
    """
    size = 10 ** chooser.uniform(-3.0, -1.7)  # from 1 ms to 20 ms a step
    steps = tuple(_step(chooser, size, depth=2) for _ in range(count))
    late = chooser.randrange(count) if chooser.random() < 0.3 else 0
    return Script(session_id, steps, late)


def _step(chooser: random.Random, size: float, depth: int) -> Step:
    def some() -> tuple[Step, ...]:
        often = depth and chooser.random() < 0.3
        return tuple(_step(chooser, size / 2, depth - 1) for _ in range(chooser.randint(1, 3))) if often else ()

    # Binary fractions, so that sums on a virtual clock are exact.
    busy, wait = (
        round(4096 * seconds) / 4096 for seconds in (size * chooser.uniform(0.5, 1.5), chooser.uniform(0, 0.1))
    )
    return Step(max(busy, 1 / 2048), wait, some(), some())
