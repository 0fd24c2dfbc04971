"""A sample of a loop's iterations: what the selector found in those that ran no step, and what the queue had.

It is taken on the loop's thread, on demand. It refers to none of the host's objects: the last reference to one must not
be dropped by another thread.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from typing import Any

from .._accounting.ledger import Ledger
from .callbacks import Callback

MAX_FOUND = 32
"""The files of one iteration that a sample counts."""


class IterationSample:
    """Some iterations of one loop, as many as were asked for.

    The loop's thread writes. From any thread its values are read, a little late.

    queue: the loop's. None: it shows none. describe: returns what a callback in it is; None: it does not count.
    """

    def __init__(self, ledger: Ledger, queue: deque[Any] | None, describe: Callable[[Any], Callback | None]) -> None:
        self._ledger = ledger
        self._queue = queue
        self._describe = describe
        self._wanted = 0
        self._found: list[tuple[int, int]] | None = None
        """What the iteration in progress began with. None: it was not sampled."""
        self._began = (0.0, 0)
        self.iterations = 0
        """Sampled iterations."""
        self.without_step = 0
        """Those in which no task stepped."""
        self.ready: Counter[tuple[int, int]] = Counter()
        """The number of those without a step in which a descriptor was ready, by (descriptor, selectors' mask)."""
        self.queued: dict[Callback, float] = {}
        """How many of each callback there were in the queue when the selector had returned, in all iterations together.
        The first and the last stand for those in between."""

    def more(self, wanted: int) -> None:
        """Sample so many iterations from now on."""
        self._wanted = wanted

    def begin_iteration(self, found: list[tuple[int, int]]) -> None:
        """Begin an iteration with (descriptor, mask) of the files that the selector has found ready."""
        self._found = found
        self._began = self._steps()
        queue = self._queue
        if queue:
            ends = [queue[0], queue[-1]] if len(queue) > 1 else [queue[0]]
            for each in ends:
                described = self._describe(each)
                if described is not None:
                    self.queued[described] = self.queued.get(described, 0.0) + len(queue) / len(ends)

    def end_iteration(self) -> bool:
        """End the iteration; return whether the next one is wanted."""
        found, self._found = self._found, None
        if found is None:  # the sample began in its middle
            return True
        self.iterations += 1
        if self._steps() == self._began:
            self.without_step += 1
            self.ready.update(found)
        self._wanted -= 1
        return self._wanted > 0

    def _steps(self) -> tuple[float, int]:
        """Return what each step changes, whether it is timed or not."""
        return self._ledger.holder_since, self._ledger.steps_until_sample
