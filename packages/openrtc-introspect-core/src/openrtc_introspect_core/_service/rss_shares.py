"""Memory: the process's resident set (RSS), divided equally among sessions.

CPython does not tag allocations by task, so RSS does not show a session's own memory. Each row shows RSS / live
sessions instead: the rows add up to RSS, and the trend shows a worker that is growing.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

import psutil

from .._base.gil import copied
from .._base.units import MIB
from .._sessions.session import Session

TREND_WINDOW_S = 60.0
TREND_MINIMUM_S = 10.0


class ShareOfRss:
    """RSS in MB (1 MB is 1024 × 1024 bytes). One thread samples it, any thread reads."""

    def __init__(self, process: psutil.Process) -> None:
        self._process = process
        self._samples: deque[tuple[float, float]] = deque()
        self._rss_mb: float | None = None
        self._highest_share_mb = 0.0
        self.trouble: str | None = None
        """The reason that there is no newer sample; None: the last sample was read."""

    @property
    def rss_mb(self) -> float:
        """Return the latest sample; before the first one, the value of now."""
        if self._rss_mb is None:
            self._read()
        return self._rss_mb or 0.0

    def sample(self, now: float, sessions: Iterable[Session]) -> None:
        """Read RSS, and raise the sessions' peaks to their share of it."""
        if not self._read():
            return
        self._samples.append((now, self.rss_mb))
        while now - self._samples[0][0] > TREND_WINDOW_S:
            self._samples.popleft()
        live = list(sessions)
        if live:
            share = self.share_of(self.rss_mb, len(live))
            for session in live:
                if share > session.peak_mb:
                    session.peak_mb = share

    def share_of(self, rss_mb: float, live: int) -> float:
        """Return the share of each of so many live sessions; 0 if there are none."""
        share = rss_mb / live if live else 0.0
        if share > self._highest_share_mb:
            self._highest_share_mb = share
        return share

    def highest_share(self) -> float:
        """Return the highest share since the last call; the row table's alone."""
        highest, self._highest_share_mb = self._highest_share_mb, 0.0
        return highest

    def _read(self) -> bool:
        try:
            self._rss_mb = self._process.memory_info().rss / MIB
        except OSError as error:  # for one, no file descriptor is left: the next attempt may succeed
            self.trouble = f"memory cannot be read now, its figures are the last ones: {error.strerror or error}"
            return False
        self.trouble = None
        return True

    def trend_mb_per_min(self) -> float | None:
        """Return the least-squares slope of the last minute's samples.

        None until they span ten seconds.
        """
        samples = copied(self._samples)
        if not samples or samples[-1][0] - samples[0][0] < TREND_MINIMUM_S:
            return None
        mean_t = sum(t for t, _ in samples) / len(samples)
        mean_mb = sum(mb for _, mb in samples) / len(samples)
        covariance = sum((t - mean_t) * (mb - mean_mb) for t, mb in samples)
        return 60.0 * covariance / sum((t - mean_t) ** 2 for t, _ in samples)
