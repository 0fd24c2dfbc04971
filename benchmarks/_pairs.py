"""Pairs of rounds, without introspection and with it: the median of their differences, and its interval.

The two rounds of a pair follow each other, in turns in either order, so that other work of the machine and the pace of
its processor affect both. The interval has the true median in it with a probability of 95 % whatever the distribution:
its ends are two of the measured values, by the binomial distribution of how many are below the median. Rounds repeat
until the interval is narrow, or the time is over.
"""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from statistics import median

from ._case import Details, Result, Results, value
from ._table import figure

WANTED = 0.25
"""An interval is narrow if it is no wider than this part of its figure."""

MIN_PAIRS = 20
Round = Callable[[Sequence[str]], Awaitable[Mapping[str, float]]]
"""Runs one round. It gets the kinds that are still wanted, and returns a reading of each, and maybe of others."""


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Return the interval of the median. With fewer than six values it is their range."""
    ordered = sorted(values)
    outside = max(0, math.floor((len(ordered) - 1.96 * math.sqrt(len(ordered))) / 2))
    return ordered[outside], ordered[-1 - outside]


def narrow(values: Sequence[float]) -> bool:
    """Return whether the interval of the median is narrow. A few values that happen to agree are not enough."""
    low, high = interval(values)
    return len(values) >= MIN_PAIRS and high - low <= WANTED * abs(median(values))


async def alternate(kinds: Sequence[str], plain: Round, measured: Round, limit_s: float) -> dict[str, Result]:
    """Run pairs of rounds until the interval of each kind's difference is narrow, or for `limit_s` seconds.

    One pair is run in any case.

    Return by kind `compared` of its pairs.
    """
    without: dict[str, list[float]] = {kind: [] for kind in kinds}
    with_it: dict[str, list[float]] = {kind: [] for kind in kinds}
    wanted = list(kinds)
    until = time.monotonic() + limit_s
    turn = 1
    while wanted:
        for readings, once in ((without, plain), (with_it, measured))[::turn]:
            gc.collect()  # every round begins with the collector's counts at zero
            found = await once(wanted)
            for kind in wanted:
                readings[kind].append(found[kind])
        turn = -turn
        if time.monotonic() >= until:
            break
        wanted = [kind for kind in wanted if not narrow(_differences(without[kind], with_it[kind]))]
    return {kind: compared(without[kind], with_it[kind]) for kind in kinds}


def _differences(without: Sequence[float], with_it: Sequence[float]) -> list[float]:
    return [after - before for before, after in zip(without, with_it, strict=True)]


def compared(without: Sequence[float], with_it: Sequence[float]) -> Result:
    """Return the medians of the pairs' differences and ratios, each with its interval."""
    added = _differences(without, with_it)
    ratios = [after / before for before, after in zip(without, with_it, strict=True)]
    return {
        "plain": median(without),
        "added": median(added),
        "added_interval": interval(added),
        "ratio": median(ratios),
        "ratio_interval": interval(ratios),
        "pairs": len(added),
        "narrow": narrow(added),
    }


def table(title: str, results: Results, cases: Sequence[tuple[str, Sequence[str]]], unit: str, scale: float) -> Details:
    """Return a table of the pairs of these (case, kinds). scale: how many of `unit` are one of what was measured."""
    heading = ("what", "without", "ratio", "interval", f"added, {unit}", "interval", "pairs", "narrow")
    lines = []
    for case, kinds in cases:
        for kind in kinds:
            found = value(results, case, kind)
            if found is not None:
                lines.append(
                    (
                        f"{case}, {kind}",
                        figure(found["plain"] * scale, unit),
                        f"{found['ratio']:.3f}",
                        " – ".join(f"{end:.3f}" for end in found["ratio_interval"]),
                        figure(found["added"] * scale),
                        " – ".join(figure(end * scale) for end in found["added_interval"]),
                        str(found["pairs"]),
                        "yes" if found["narrow"] else "no",
                    )
                )
    return Details(title, heading, lines)
