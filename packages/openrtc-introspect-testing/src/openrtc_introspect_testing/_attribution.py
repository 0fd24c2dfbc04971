"""What an introspector told against what was true: errors, order, and a table to read."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Row:
    """One session."""

    session_id: str
    true_s: float
    """Seconds for which it held the loop."""
    told_s: float | None
    """What it was charged. None: nothing was told of it."""

    @property
    def error_s(self) -> float:
        """Told less true; a session that was not told of is off by all it had."""
        return (self.told_s or 0.0) - self.true_s

    @property
    def error_pct(self) -> float:
        """Of the truth, without its sign. Infinite where there is something told and nothing true."""
        if self.error_s == 0.0:
            return 0.0
        return 100.0 * abs(self.error_s) / self.true_s if self.true_s else float("inf")


@dataclass(frozen=True, slots=True)
class Report:
    """Printed, it is a table."""

    rows: Sequence[Row]
    unexpected: Sequence[str] = field(default=())
    """Sessions told of that there were not."""
    seed: int | None = None
    """Of the workload. None: it was not made from one."""

    @property
    def worst(self) -> Row:
        return max(self.rows, key=lambda row: row.error_pct)

    @property
    def rank_correlation(self) -> float:
        """Spearman's, of told and true: 1 is the same order. 0 where one side is all equal."""
        try:
            return statistics.correlation(
                _ranks([row.told_s or 0.0 for row in self.rows]), _ranks([row.true_s for row in self.rows])
            )
        except statistics.StatisticsError:  # fewer than two, or all equal
            return 1.0 if all(row.error_s == 0.0 for row in self.rows) else 0.0

    def check(self, *, worst_pct: float = 2.0, rank: float = 0.99) -> None:
        """Raises AssertionError, with the table and the seed, where an error is larger or the order is worse."""
        problems = [f"session {name} was told of, and never was" for name in self.unexpected]
        problems += [f"session {row.session_id} was not told of" for row in self.rows if row.told_s is None]
        if self.worst.error_pct > worst_pct:
            problems.append(
                f"session {self.worst.session_id} is off by {self.worst.error_pct:.2f} %, more than {worst_pct:g} %"
            )
        if self.rank_correlation < rank:
            problems.append(f"the rank correlation is {self.rank_correlation:.4f}, less than {rank:g}")
        if problems:
            raise AssertionError("\n".join([*problems, "", str(self)]))

    def __str__(self) -> str:
        width = max(7, *(len(row.session_id) for row in self.rows))
        lines = [f"{'session':{width}}  {'true s':>10}  {'told s':>10}  {'error':>9}"]
        for row in sorted(self.rows, key=lambda row: -row.true_s):
            told = "–" if row.told_s is None else f"{row.told_s:.6f}"
            lines.append(f"{row.session_id:{width}}  {row.true_s:10.6f}  {told:>10}  {row.error_pct:7.2f} %")
        lines.append(f"worst {self.worst.error_pct:.2f} %, rank correlation {self.rank_correlation:.4f}")
        if self.seed is not None:
            lines.append(f"seed {self.seed}: Workload.random({self.seed}, ...) is the same again")
        return "\n".join(lines)


def _ranks(values: Sequence[float]) -> list[float]:
    """Equal values share their mean rank."""
    order = sorted(values)
    return [order.index(value) + (order.count(value) - 1) / 2 for value in values]
