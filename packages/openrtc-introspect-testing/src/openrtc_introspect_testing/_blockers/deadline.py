"""Work that ends at a moment, and keeps the GIL when it reads the clock."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from itertools import repeat, starmap, takewhile
from typing import Any

now = time.perf_counter


def within(until: float, work: Iterable[Any]) -> Iterator[Any]:
    """Yield what `work` yields, until the clock reads `until`.

    All of it is C, so `deque(within(until, map(sorted, repeat(values))), maxlen=0)` is one call that sorts over and
    over, keeps the GIL throughout, and ends at a moment rather than after an amount of work. Nothing needs calibrating,
    and on a slower machine the call takes no longer.
    """
    return zip(work, takewhile(until.__gt__, starmap(now, repeat(()))), strict=False)
