"""Stall samples that a test takes itself, at moments of its choice."""

from __future__ import annotations

import threading

import pytest

from openrtc_introspect_core import Introspector
from openrtc_introspect_core._blocks.watchdog import Watchdog
from openrtc_introspect_core._introspector import parts_of


def take_sample(introspector: Introspector, late: float = 0.0, run_delay: float = 0.0) -> float:
    """Take one sample from another thread, while this one, the loop's, is held here."""
    sampler = parts_of(introspector).loops[0].stall_sampler
    assert sampler is not None
    pauses: list[float] = []
    thread = threading.Thread(target=lambda: pauses.append(sampler.sample(late, lambda: run_delay)))
    thread.start()
    thread.join()
    return pauses[0]


def asleep(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the watchdog's own thread from sampling: the test does."""
    monkeypatch.setattr(Watchdog, "start", lambda self: None)
