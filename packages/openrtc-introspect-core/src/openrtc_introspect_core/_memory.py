"""Memory: the process's resident set, shared out equally.

CPython does not tag allocations by task, so a session's own memory is not to be had this way. What
is: RSS / live sessions. The rows add up to RSS, and the trend shows a worker that is growing.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

import psutil

from ._gil import copied
from ._sessions import MIB, Session

TREND_WINDOW_S = 60.0
TREND_MINIMUM_S = 10.0


class ShareOfRss:
    """RSS, sampled on an interval. Sampled by one thread, read by any."""

    def __init__(self, process: psutil.Process) -> None:
        self._process = process
        self._samples: deque[tuple[float, float]] = deque()
        self._rss_mb: float | None = None
        self.trouble: str | None = None
        """Why there is no newer sample; None while there is."""

    @property
    def rss_mb(self) -> float:
        """The latest sample; before the first one, what it is now."""
        if self._rss_mb is None:
            self._read()
        return self._rss_mb or 0.0

    def sample(self, now: float, sessions: Iterable[Session]) -> None:
        if not self._read():
            return
        self._samples.append((now, self.rss_mb))
        while now - self._samples[0][0] > TREND_WINDOW_S:
            self._samples.popleft()
        live = list(sessions)
        if live:
            share = self.rss_mb / len(live)
            for session in live:
                if share > session.peak_mb:
                    session.peak_mb = share

    def _read(self) -> bool:
        try:
            self._rss_mb = self._process.memory_info().rss / MIB
        except OSError as error:  # no file descriptor left, for one: the next time may be better
            self.trouble = f"memory cannot be read now, its figures are the last ones: {error.strerror or error}"
            return False
        self.trouble = None
        return True

    def trend_mb_per_min(self) -> float | None:
        """The least-squares slope of the last minute's samples; None before ten seconds of them."""
        samples = copied(self._samples)
        if not samples or samples[-1][0] - samples[0][0] < TREND_MINIMUM_S:
            return None
        mean_t = sum(t for t, _ in samples) / len(samples)
        mean_mb = sum(mb for _, mb in samples) / len(samples)
        covariance = sum((t - mean_t) * (mb - mean_mb) for t, mb in samples)
        return 60.0 * covariance / sum((t - mean_t) ** 2 for t, _ in samples)
