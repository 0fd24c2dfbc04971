"""The activity of loops beside steps: iterations, ready files, callbacks in the queue.

It is sampled for a fifth of a second, off the loops' threads, beside other work. A loop does nothing for it but note,
in some hundreds of its iterations, which descriptors were ready and what its queue began and ended with.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from .._base.clock import WallTime
from .._base.gil import yield_gil
from .._loops.hook import LoopHook
from .._os.stacks import Places, frames_now
from ..wire._messages import LoopActivity
from .loop_sampler import LoopSampler

SAMPLES = 20
PAUSE_S = 0.01
"""Seconds between two samples."""
MAX_ITERATIONS = 400
"""The iterations of one loop that are sampled."""


class Activity:
    """What some loops do, by name. It takes a fifth of a second.

    From any thread, but a loop's own: that one would do nothing meanwhile.
    """

    def __init__(self, loops: Sequence[tuple[str, LoopHook]]) -> None:
        self._loops = loops
        self._samplers: list[LoopSampler] = []
        self._taken = 0
        self._due = float("-inf")

    def sample(self) -> None:
        """Take a sample if one is due. Who works meanwhile calls this often."""
        if self._taken < SAMPLES and time.perf_counter() >= self._due:
            if not self._taken:
                self._samplers = [LoopSampler(name, hook) for name, hook in self._loops]
            self._taken += 1
            for each in self._samplers:
                each.sample(frames_now(), MAX_ITERATIONS // SAMPLES)
                yield_gil()
            self._due = time.perf_counter() + PAUSE_S

    def finish(self, wall: WallTime, places: Places) -> list[LoopActivity]:
        """Take the samples that are left, and return what was seen."""
        while self._loops and self._taken < SAMPLES:
            time.sleep(max(0.0, min(PAUSE_S, self._due - time.perf_counter())))
            self.sample()
        self.stop()
        return [each.activity(wall, places) for each in self._samplers]

    def stop(self) -> None:
        """Have the loops note nothing any more."""
        for each in self._samplers:
            each.stop()
