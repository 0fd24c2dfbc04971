from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import pytest

from openrtc_introspect_core._blocks.gil_wait import OTHERS_HAD_IT_S, GilWait
from openrtc_introspect_core._blocks.stall_samples import MAX_FREE_GIL_WAIT_S, STARVED_S
from openrtc_introspect_core._blocks.watchdog import WATCHDOG_THREAD
from openrtc_introspect_core._os.thread_usage import ThreadUsage

DEADLINE_S = 60.0

pytestmark = pytest.mark.gil


@pytest.fixture
def wait() -> Iterator[GilWait]:
    """Return the waits of this thread, in place of the watchdog's."""
    WATCHDOG_THREAD.end_if_idle(60.0)
    own = ThreadUsage(time.perf_counter, threading.get_ident(), threading.get_native_id())
    yield GilWait(own)
    own.close()


def seen(wait: GilWait, expected: Callable[[float], bool], work: Callable[[], object] | None = None) -> bool:
    """Return whether a wait is as expected, sooner or later, while another thread does some work again and again."""
    ended = threading.Event()

    def repeat() -> None:
        while work is not None and not ended.is_set():
            work()

    thread = threading.Thread(target=repeat)
    thread.start()
    try:
        ends = time.perf_counter() + DEADLINE_S
        while time.perf_counter() < ends:
            if expected(wait.sleep_until(time.perf_counter() + 0.005)):
                return True
        return False
    finally:
        ended.set()
        thread.join()


def compute() -> None:
    for _ in range(100_000):
        pass


def compute_in_c() -> None:
    sum(range(2_000_000))


def test_a_gil_that_is_free_is_not_waited_for(wait: GilWait) -> None:
    assert seen(wait, lambda seconds: seconds < MAX_FREE_GIL_WAIT_S)


def test_python_code_is_waited_for_until_it_is_asked(wait: GilWait) -> None:
    assert seen(wait, lambda seconds: OTHERS_HAD_IT_S < seconds < STARVED_S, compute)


def test_c_code_is_waited_for_until_it_ends(wait: GilWait) -> None:
    """The wait less its run delay was long, too."""
    assert seen(wait, lambda seconds: seconds >= STARVED_S and seconds - wait.run_delay() >= STARVED_S, compute_in_c)


def test_a_sample_that_was_due_long_ago_has_waited_for_the_gil(wait: GilWait) -> None:
    """It was kept while the watchdog woke. The part that was a run delay is read on request."""
    time.sleep(0.1)
    waited = wait.sleep_until(time.perf_counter() - 0.05)
    assert waited >= 0.05
    assert 0.0 <= wait.run_delay() <= waited


def test_a_sample_that_is_due_when_another_has_been_taken_waits_for_the_gil_first(wait: GilWait) -> None:
    """Lateness is no evidence: this thread was at work."""

    def is_at_once(_: float) -> bool:
        return wait.sleep_until(time.perf_counter() - 0.05) < STARVED_S

    assert seen(wait, is_at_once)
