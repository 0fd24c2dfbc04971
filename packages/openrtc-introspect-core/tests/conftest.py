"""What the core's tests share: running a coroutine on virtual and on real loops, of asyncio, uvloop and Trio."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest

from openrtc_introspect_core import _introspector
from openrtc_introspect_core._gil import has_gil
from openrtc_introspect_core._log import flush
from openrtc_introspect_testing._backends import REAL, VIRTUAL, Backend

Run = Callable[[Coroutine[Any, Any, Any]], Any]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What is told only where there is a GIL is tested only there."""
    if not has_gil():
        for item in items:
            if item.get_closest_marker("gil") is not None:
                item.add_marker(pytest.mark.skip(reason="not told without a GIL"))


@pytest.fixture(autouse=True)
def no_standing_note(monkeypatch: pytest.MonkeyPatch) -> None:
    """The note that there is no GIL is tested by itself: elsewhere notes are of what went wrong."""
    monkeypatch.setattr(_introspector, "has_gil", lambda: True)


@pytest.fixture(autouse=True)
def no_record_is_another_test_s() -> Iterator[None]:
    """What a test logged is handled before the next one begins."""
    yield
    assert flush(60.0)


@pytest.fixture
def run_virtually() -> Run:
    """Runs a coroutine on a FakeLoop."""
    return Backend("virtual asyncio")


@pytest.fixture
def run_on_asyncio() -> Run:
    """Runs a coroutine on asyncio's own loop."""
    return Backend("asyncio")


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Run:
    """Runs a coroutine on a real loop of asyncio's interface, of each kind."""
    return Backend(request.param)


@pytest.fixture(params=VIRTUAL)
def virtually(request: pytest.FixtureRequest) -> Backend:
    """Runs a coroutine of anyio's on virtual time: on asyncio and on Trio."""
    return Backend(request.param)


@pytest.fixture(params=REAL)
def on_any_loop(request: pytest.FixtureRequest) -> Backend:
    """Runs a coroutine of anyio's on a real loop of each kind."""
    return Backend(request.param)


@pytest.fixture(params=["asyncio", "trio"])
def on_timed_loops(request: pytest.FixtureRequest) -> Backend:
    """Runs a coroutine of anyio's on a real loop of each kind whose iterations are timed."""
    return Backend(request.param)


@pytest.fixture(params=(*REAL, *VIRTUAL))
def run_anywhere(request: pytest.FixtureRequest) -> Backend:
    """Runs a coroutine of anyio's on each kind of loop."""
    return Backend(request.param)
