"""Work for threads that costs CPU time, and what a session was charged with for it."""

from __future__ import annotations

import time

from openrtc_introspect_core import Introspector


def compute(seconds: float) -> float:
    """Use this much CPU time. Return the CPU seconds used."""
    began = time.thread_time()
    while time.thread_time() - began < seconds:
        pass
    return time.thread_time() - began


def thread_cpu_s(introspector: Introspector, session_id: str) -> float:
    (row,) = [row for row in introspector.snapshot().sessions if row.session_id == session_id]
    assert row.thread_cpu_s is not None
    return row.thread_cpu_s
