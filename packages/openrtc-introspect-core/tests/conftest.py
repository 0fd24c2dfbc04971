"""Fixtures of the core's tests: they run a coroutine on virtual and on real loops of asyncio, uvloop and Trio."""

from __future__ import annotations

import sys
import tempfile
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from openrtc_introspect_core._base.gil import FREE_THREADED_BUILD, has_gil
from openrtc_introspect_core._base.log import flush
from openrtc_introspect_core._os.thread_usage import ThreadUsage
from openrtc_introspect_core._service import introspection
from openrtc_introspect_testing._loops.backends import REAL, VIRTUAL, Backend
from openrtc_introspect_testing._loops.introspection_threads import is_ours

# On 3.13t importing greenlet switches the GIL on, for all tests of the process: there it is not installed.
NEED_GREENLET = ["loops/test_greenlet*.py", "loops/test_portals.py"]
collect_ignore_glob = NEED_GREENLET if FREE_THREADED_BUILD and find_spec("greenlet") is None else []

Run = Callable[[Coroutine[Any, Any, Any]], Any]


READ_VARIABLES = {"waits", "test_held_up.py"}
"""Tests whose answers come from the variables of other frames."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip tests of what is reported only with a GIL, if there is none.

    Skip those that read other frames' variables while these are traced up to Python 3.12: nobody may read them then.
    """
    traced = sys.version_info < (3, 13) and sys.gettrace() is not None
    for item in items:
        if item.get_closest_marker("gil") is not None and not has_gil():
            item.add_marker(pytest.mark.skip(reason="not reported without a GIL"))
        if traced and not READ_VARIABLES.isdisjoint(item.path.parts):
            item.add_marker(pytest.mark.skip(reason="variables of traced frames are not read before Python 3.13"))


@pytest.fixture(autouse=True)
def no_standing_note(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove the note that there is no GIL, which has tests of its own: all other notes are of faults."""
    monkeypatch.setattr(introspection, "has_gil", lambda: True)


@pytest.fixture(autouse=True)
def no_run_delay_in_virtual_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep run delay, which is real, from blocks of virtual time: on a busy machine it is longer than such a block."""
    initialize = ThreadUsage.__init__

    def without_run_delay(self: ThreadUsage, clock: Callable[[], float], ident: int, native_id: int) -> None:
        initialize(self, clock, ident, native_id)
        if clock is not time.perf_counter:
            self.close()

    monkeypatch.setattr(ThreadUsage, "__init__", without_run_delay)


@pytest.fixture(autouse=True)
def no_tick_of_its_own_in_virtual_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the service thread, whose second is a real one, from sampling beside a test that does so in virtual time."""
    tick = introspection.Introspection.tick

    def of_the_test(self: introspection.Introspection, now: float) -> float | None:
        if self.shared.clock is time.perf_counter or not is_ours(threading.current_thread()):
            return tick(self, now)
        self.loops.detach_ended(now)  # what a test has left behind
        return None

    monkeypatch.setattr(introspection.Introspection, "tick", of_the_test)


@pytest.fixture(autouse=True)
def no_record_is_another_test_s() -> Iterator[None]:
    """Wait after each test until the records that it logged are handled."""
    yield
    assert flush(60.0)


@pytest.fixture
def runtime_dir(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Make a private directory with a short path, in which the workers of this test serve."""
    with tempfile.TemporaryDirectory(prefix="rt") as directory:
        monkeypatch.setenv("OPENRTC_RUNTIME_DIR", directory)
        yield Path(directory)


@pytest.fixture
def run_virtually() -> Run:
    """Run a coroutine on a FakeLoop."""
    return Backend("virtual asyncio")


@pytest.fixture
def run_on_asyncio() -> Run:
    """Run a coroutine on asyncio's own loop."""
    return Backend("asyncio")


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Run:
    """Run a coroutine on a real loop of asyncio's interface, of each kind."""
    return Backend(request.param)


@pytest.fixture(params=VIRTUAL)
def virtually(request: pytest.FixtureRequest) -> Backend:
    """Run an anyio coroutine on virtual time, on asyncio and on Trio."""
    return Backend(request.param)


@pytest.fixture(params=REAL)
def on_any_loop(request: pytest.FixtureRequest) -> Backend:
    """Run an anyio coroutine on a real loop of each kind."""
    return Backend(request.param)


@pytest.fixture(params=["asyncio", "trio"])
def on_timed_loops(request: pytest.FixtureRequest) -> Backend:
    """Run an anyio coroutine on a real loop of each kind whose iterations are timed."""
    return Backend(request.param)


@pytest.fixture(params=(*REAL, *VIRTUAL))
def run_anywhere(request: pytest.FixtureRequest) -> Backend:
    """Run an anyio coroutine on each kind of loop, real and virtual."""
    return Backend(request.param)
