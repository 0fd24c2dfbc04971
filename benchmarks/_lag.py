"""A probe of the loop's lag, with a tick due each millisecond.

Each tick that falls into a time when the loop is held counts with its own wait, even if one wake-up serves many ticks.
Otherwise a loop held for a second would show as one late tick among thousands.
"""

from __future__ import annotations

import asyncio

from ._figures import quantile
from ._work import now

TICK_S = 0.001


async def lag_of(seconds: float) -> dict[str, float]:
    """Run the probe for `seconds`. Return how late its ticks came, in milliseconds."""
    late: list[float] = []
    began = now()
    ticks, count = int(seconds / TICK_S), 0
    while count < ticks:
        await asyncio.sleep(max(0.0, began + (count + 1) * TICK_S - now()))
        woke = now()
        while count < ticks and (due := began + (count + 1) * TICK_S) <= woke:
            late.append(1000.0 * (woke - due))
            count += 1
    return {"p50_ms": quantile(late, 0.5), "p99_ms": quantile(late, 0.99), "max_ms": max(late)}
