"""The ticks that the watchdog takes in C see and remember what those in Python do."""

from __future__ import annotations

import ctypes
import re
import threading
import time
from collections.abc import Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import Any
from weakref import ref

import pytest

from openrtc_introspect_core._accounting.account import Account
from openrtc_introspect_core._accounting.ledger import Ledger
from openrtc_introspect_core._blocks import stall_sampler
from openrtc_introspect_core._blocks.watchdog import WATCHDOG_THREAD
from openrtc_introspect_core._loops.iterations import Iterations
from openrtc_introspect_core._native import native
from openrtc_introspect_core._os.thread_usage import ThreadUsage

pytestmark = pytest.mark.skipif(native is None, reason="the meter in C is not installed")

TOLERANCE_S = 20e-6
"""Seconds by which the clock of C may be off perf_counter."""


@pytest.fixture(autouse=True)
def no_interrupt() -> None:
    """End the watchdog that another test has left, so that nobody interrupts the ticks of this one."""
    WATCHDOG_THREAD.end_if_idle(60.0)
    if native is not None:
        native.interrupt_ticks(False)


@pytest.fixture
def usage() -> Iterator[ThreadUsage]:
    usage = ThreadUsage(time.perf_counter, threading.get_ident(), threading.get_native_id())
    yield usage
    usage.close()


@pytest.fixture
def iterations() -> Iterations:
    """Return the iterations of a loop that waits, and has just begun to."""
    ledger = Ledger(ContextVar("binding"), time.perf_counter, 60.0)
    iterations = Iterations(ledger, lambda: True, lambda since, until: None, lambda problem, error: None)
    iterations.waiting_since = time.perf_counter() + 3600.0
    return iterations


def sampler_of(iterations: Iterations, usage: ThreadUsage) -> Any:
    ledger = iterations.ledger
    sampler = native.SamplerFields(ledger, iterations, ledger.parked, usage, 0.001)
    sampler.awake = True
    return sampler


def ticks(sampler: Any, most: int = 3) -> Any:
    return native.quiet_ticks(ref(sampler), None, most)


def test_quiet_ticks_remember_the_usage_of_the_thread(iterations: Iterations, usage: ThreadUsage) -> None:
    """Each figure of the last tick lies between two readings in Python; the next tick is due an interval later."""
    sampler = sampler_of(iterations, usage)
    iterations.ledger.idle = 1.5
    before = usage.read()
    assert ticks(sampler) is None
    after = usage.read()
    assert before.when - TOLERANCE_S <= sampler.when <= after.when + TOLERANCE_S
    for figure, low, high in zip(
        (sampler.cpu_s, sampler.run_delay_s, sampler.process_s), before[1:], after[1:], strict=True
    ):
        assert (figure is None) == (low is None)
        assert figure is None or (low is not None and high is not None and low - 1e-6 <= figure <= high + 1e-6)
    assert sampler.idle == 1.5
    assert sampler.due >= sampler.when + sampler.interval


def test_so_many_ticks_are_taken_as_asked_for(iterations: Iterations, usage: ThreadUsage) -> None:
    """Each sleeps for the interval before it: the first is due at once.

    A tick is Python's if it comes too late, because the system did not run this thread.
    """
    for _ in range(100):
        sampler = sampler_of(iterations, usage)
        began = time.perf_counter()
        taken = ticks(sampler, 5)
        took_s = time.perf_counter() - began
        if taken is None:
            break
    assert taken is None
    assert took_s >= 4 * sampler.interval


@pytest.mark.parametrize("holder", ["none", "parked", "unsampled", "an account", "an account for long"])
def test_a_tick_that_finds_an_account_holding_for_long_is_python_s(
    iterations: Iterations, usage: ThreadUsage, holder: str
) -> None:
    """Accounts that stand in for a holder hold nothing."""
    ledger = iterations.ledger
    ledger.holder_since = time.perf_counter() + (-1.0 if holder == "an account for long" else 3600.0)
    ledger.holder = {"none": None, "parked": ledger.parked, "unsampled": ledger.unsampled}.get(holder, Account())
    assert (ticks(sampler_of(iterations, usage)) is not None) == (holder == "an account for long")


def test_a_tick_that_finds_a_long_iteration_is_python_s(iterations: Iterations, usage: ThreadUsage) -> None:
    """It says for how long the GIL was waited for, and how much of this may have been a run delay."""
    sampler = sampler_of(iterations, usage)
    iterations.busy_since = time.perf_counter() - 1.0
    sampler.due = time.perf_counter() + 0.001
    waited, run_delay_s, _ = ticks(sampler)
    assert 0.0 <= run_delay_s <= waited


def test_a_tick_of_a_loop_that_has_waited_for_long_is_python_s(iterations: Iterations, usage: ThreadUsage) -> None:
    """It may park."""
    iterations.waiting_since = time.perf_counter() - 1.0
    assert ticks(sampler_of(iterations, usage)) is not None


def test_a_tick_that_comes_late_is_python_s(iterations: Iterations, usage: ThreadUsage) -> None:
    """Whatever kept the GIL may just have ended: a moment in which nothing is held is not remembered."""
    sampler = sampler_of(iterations, usage)
    sampler.due = time.perf_counter() - 1.0
    assert (ticks(sampler), sampler.when) == (None, None)


def test_a_sampler_that_sleeps_or_is_gone_has_no_ticks(iterations: Iterations, usage: ThreadUsage) -> None:
    """Nothing is remembered."""
    sampler = sampler_of(iterations, usage)
    sampler.awake = False
    assert ticks(sampler) is None
    assert sampler.when is None
    reference = ref(sampler)
    del sampler
    assert native.quiet_ticks(reference, None, 3) is None


@pytest.mark.slow
def test_an_interrupt_ends_the_ticks_after_the_next_one(iterations: Iterations, usage: ThreadUsage) -> None:
    """There would be a million of them."""
    sampler = sampler_of(iterations, usage)
    thread = threading.Thread(target=ticks, args=[sampler, 1_000_000], daemon=True)
    thread.start()
    while sampler.when is None:
        time.sleep(0.001)
    native.interrupt_ticks(True)
    thread.join(60.0)
    native.interrupt_ticks(False)
    assert not thread.is_alive()


def test_an_interrupt_before_the_ticks_counts(iterations: Iterations, usage: ThreadUsage) -> None:
    """Who wakes right before them is not forgotten: no tick is taken."""
    sampler = sampler_of(iterations, usage)
    native.interrupt_ticks(True)
    assert ticks(sampler) is None
    native.interrupt_ticks(False)
    assert sampler.when is None


@pytest.mark.parametrize("name", ["MIN_HELD_S", "PARK_AFTER_S", "STARVED_S"])
def test_c_takes_for_held_parked_and_late_what_python_does(name: str) -> None:
    """The values in C are those of the modules in Python, in seconds."""
    source = (Path(__file__).parents[2] / "src/openrtc_introspect_core/_native/watch.c").read_text(encoding="utf-8")
    (value,) = re.findall(rf"#define {name} (\S+)", source)
    assert float(value) == getattr(stall_sampler, name)


def test_what_is_no_reference_has_no_ticks() -> None:
    """As if the sampler were gone."""
    assert native.quiet_ticks(object(), None, 1) is None


def test_the_last_wait_for_the_gil_counts_until_the_next_one() -> None:
    """While its sample is taken, nobody else says that the GIL was kept. After the wait nothing counts."""
    began = ended = wanted_s = 0.0
    for _ in range(50):  # the other thread may get no processor in time
        go = threading.Event()
        thread = threading.Thread(target=lambda go=go: (go.wait(), ctypes.PyDLL(None).usleep(50_000)))  # type: ignore[misc]
        thread.start()
        go.set()
        began = time.perf_counter()
        native.pause_watchdog(0.01, None)
        ended = time.perf_counter()
        wanted_s = native.gil_wanted_s(began)
        thread.join()
        if wanted_s >= 0.02:
            break
    assert 0.02 <= wanted_s <= ended - began
    assert native.gil_wanted_s(ended) == 0.0
