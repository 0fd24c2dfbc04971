from __future__ import annotations

import psutil

from openrtc_introspect_core._host import HostVitals


def test_rates_are_unknown_until_there_are_two_samples() -> None:
    """None, not 0: nothing was measured yet."""
    host = HostVitals(psutil.Process())
    host.sample(0.0)
    assert (host.now().cpu_pct, host.now().process_cpu_pct) == (None, None)
    assert host.now().threads >= 1
    assert host.now().cores >= 1


def test_rates_are_of_the_time_between_two_samples() -> None:
    """A process that works shows as busy; the machine stays within 0–100 %."""
    host = HostVitals(psutil.Process())
    host.sample(0.0, accounted=0.0)
    sum(range(20_000_000))
    host.sample(0.5, accounted=0.001)
    vitals = host.now()
    assert vitals.process_cpu_pct is not None
    assert vitals.process_cpu_pct > 1
    assert vitals.other_threads_pct is not None
    assert vitals.other_threads_pct <= vitals.process_cpu_pct
    assert vitals.cpu_pct is not None
    assert 0 <= vitals.cpu_pct <= 100
