"""The reported loop time of sessions, compared with the true one."""

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
    """Seconds that the introspector reports. None: the session was not reported."""

    @property
    def error_s(self) -> float:
        """Reported less true seconds.

        For a session that was not reported, all of its time is missing.
        """
        return (self.told_s or 0.0) - self.true_s

    @property
    def error_pct(self) -> float:
        """The error in percent of the truth, without its sign.

        Infinite if time is reported and the truth is 0.
        """
        if self.error_s == 0.0:
            return 0.0
        return 100.0 * abs(self.error_s) / self.true_s if self.true_s else float("inf")


@dataclass(frozen=True, slots=True)
class Report:
    """All sessions of a workload. Its text is a table."""

    rows: Sequence[Row]
    unexpected: Sequence[str] = field(default=())
    """Sessions that were reported and never existed."""
    seed: int | None = None
    """The workload's seed. None: the workload was not made from one."""

    @property
    def worst(self) -> Row:
        return max(self.rows, key=lambda row: row.error_pct)

    @property
    def rank_correlation(self) -> float:
        """Spearman's coefficient of reported and true seconds.

        1 means the same order; 0 means that one side is all equal.
        """
        try:
            return statistics.correlation(
                _ranks([row.told_s or 0.0 for row in self.rows]), _ranks([row.true_s for row in self.rows])
            )
        except statistics.StatisticsError:  # fewer than two values, or all are equal
            return 1.0 if all(row.error_s == 0.0 for row in self.rows) else 0.0

    def check(self, *, worst_pct: float = 2.0, rank: float = 0.99) -> None:
        """Raise AssertionError if an error is larger or the order is worse.

        The error's text has the table and the seed.

        worst_pct: the largest error, in percent. rank: the least rank correlation.
        """
        problems = [f"session {name} was reported, and never existed" for name in self.unexpected]
        problems += [f"session {row.session_id} was not reported" for row in self.rows if row.told_s is None]
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
        lines = [f"{'session':{width}}  {'true s':>10}  {'reported s':>10}  {'error':>9}"]
        for row in sorted(self.rows, key=lambda row: -row.true_s):
            reported = "–" if row.told_s is None else f"{row.told_s:.6f}"
            lines.append(f"{row.session_id:{width}}  {row.true_s:10.6f}  {reported:>10}  {row.error_pct:7.2f} %")
        lines.append(f"worst {self.worst.error_pct:.2f} %, rank correlation {self.rank_correlation:.4f}")
        if self.seed is not None:
            lines.append(f"seed {self.seed}: Workload.random({self.seed}, ...) is the same again")
        return "\n".join(lines)


def _ranks(values: Sequence[float]) -> list[float]:
    """Return the rank of each value; equal values share their mean rank."""
    order = sorted(values)
    return [order.index(value) + (order.count(value) - 1) / 2 for value in values]
