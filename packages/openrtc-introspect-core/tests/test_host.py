from __future__ import annotations

import psutil

from openrtc_introspect_core._host import HostVitals


def test_rates_are_unknown_until_there_are_two_samples() -> None:
    """None, not 0: nothing was measured yet."""
    host = HostVitals(psutil.Process())
    assert host.latest.cpu_pct is None
    host.sample(0.0)
    assert (host.latest.cpu_pct, host.latest.process_cpu_pct) == (None, None)
    assert host.latest.threads >= 1


def test_rates_are_of_the_time_between_two_samples() -> None:
    """A process that works shows as busy; the machine stays within 0–100 %."""
    host = HostVitals(psutil.Process())
    host.sample(0.0)
    sum(range(20_000_000))
    host.sample(0.5)
    assert host.latest.process_cpu_pct is not None
    assert host.latest.process_cpu_pct > 1
    assert host.latest.cpu_pct is not None
    assert 0 <= host.latest.cpu_pct <= 100
    assert host.latest.cores >= 1
