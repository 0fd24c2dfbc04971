"""The processor time of each thread, read from another one."""

from __future__ import annotations

import sys
import threading
import time

import pytest

from openrtc_introspect_core._os import thread_clocks
from openrtc_introspect_core._os.thread_clocks import cpu_by_thread, name_of_thread

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="a clock of another thread")


def compute(seconds: float) -> None:
    began = time.thread_time()
    while time.thread_time() - began < seconds:
        pass


def test_each_thread_has_its_own_time() -> None:
    """One that computes has used the time, one that waits has not."""
    go_on, computed = threading.Event(), threading.Event()

    def busy() -> None:
        compute(0.05)
        computed.set()
        go_on.wait(30)

    threads = [threading.Thread(target=busy, name="busy"), threading.Thread(target=go_on.wait, args=(30,), name="idle")]
    for each in threads:
        each.start()
    computed.wait(30)
    used = {name_of_thread(thread_id): cpu_s for thread_id, cpu_s in cpu_by_thread().items()}
    without = cpu_by_thread((threading.get_ident(),))
    go_on.set()
    for each in threads:
        each.join()
    assert used["busy"] >= 0.05 > used["idle"]
    assert threading.get_ident() not in without
    assert name_of_thread(-1) == ""


def test_a_thread_that_has_ended_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """It may end between the look at the list of threads and that at its clock."""
    ended = threading.Thread(target=int)
    ended.start()
    ended.join()
    monkeypatch.setattr(threading, "_active", {1: ended, **vars(threading)["_active"]})
    deadline = time.monotonic() + 30
    while 1 in cpu_by_thread() and time.monotonic() < deadline:  # the kernel may still have it
        time.sleep(0.001)
    assert 1 not in cpu_by_thread()
    assert threading.get_ident() in cpu_by_thread()


def test_of_too_many_threads_none_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading all of them would take too long."""
    monkeypatch.setattr(thread_clocks, "MAX_THREADS", 0)
    assert cpu_by_thread() == {}
