"""The statistics that the benchmarks need."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean


def quantile(values: Sequence[float], part: float) -> float:
    """Return the value that a fraction `part` of all values do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(part * len(ordered)))]


def relative_error(reported: float, truth: float) -> float:
    """Return the error in percent of the truth."""
    return 100.0 * abs(reported - truth) / truth


def spearman(left: Sequence[float], right: Sequence[float]) -> float:
    """Return the rank correlation; 0 if all values of one side are equal.

    Equal values share their mean rank.
    """
    xs, ys = _ranks(left), _ranks(right)
    mean_x, mean_y = fmean(xs), fmean(ys)
    spread_x = sum((x - mean_x) ** 2 for x in xs)
    spread_y = sum((y - mean_y) ** 2 for y in ys)
    if not spread_x or not spread_y:
        return 0.0
    common: float = sum((x - mean_x) * (y - mean_y) for x, y in zip(xs, ys, strict=True))
    return common / math.sqrt(spread_x * spread_y)


def _ranks(values: Sequence[float]) -> list[float]:
    order = sorted(range(len(values)), key=values.__getitem__)
    ranks = [0.0] * len(values)
    start = 0
    while start < len(order):
        end = start
        while end < len(order) and values[order[end]] == values[order[start]]:
            end += 1
        for place in order[start:end]:
            ranks[place] = (start + end - 1) / 2
        start = end
    return ranks
