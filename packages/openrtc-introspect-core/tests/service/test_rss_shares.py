from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from openrtc_introspect_core._base.units import MIB
from openrtc_introspect_core._service.rss_shares import ShareOfRss
from openrtc_introspect_core._sessions.session import Session


class FakeProcess:
    """A process whose RSS the test sets."""

    rss_mb = 100.0

    def memory_info(self) -> Any:
        return SimpleNamespace(rss=self.rss_mb * MIB)


def sampler() -> tuple[Any, ShareOfRss]:
    process: Any = FakeProcess()
    return process, ShareOfRss(process)


def session(session_id: str) -> Session:
    return Session(session_id, "test", {}, started=0.0)


def test_the_peak_is_the_highest_share_while_it_lived() -> None:
    """It rises with RSS and when other sessions end, and never falls."""
    process, share = sampler()
    one, two = session("one"), session("two")
    share.sample(0.0, [one, two])
    assert (one.peak_mb, two.peak_mb) == (50.0, 50.0)
    share.sample(1.0, [one])
    process.rss_mb = 60.0
    share.sample(2.0, [one, two])
    assert (share.rss_mb, one.peak_mb, two.peak_mb) == (60.0, 100.0, 50.0)


def test_the_trend_is_the_slope_of_the_last_minute() -> None:
    """It is None before ten seconds of samples, then MB a minute; older samples do not count."""
    process, share = sampler()
    for second in range(10):
        share.sample(float(second), [])
    assert share.trend_mb_per_min() is None
    for second in range(10, 100):
        process.rss_mb += 0.2
        share.sample(float(second), [])
    assert share.trend_mb_per_min() == pytest.approx(12.0)


def test_the_real_process_has_a_resident_set() -> None:
    """psutil reads this process's."""
    share = ShareOfRss(psutil.Process())
    share.sample(0.0, [])
    assert share.rss_mb > 5
