"""What the core's tests share: running a coroutine on a virtual loop, on asyncio and on uvloop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
import uvloop

from openrtc_introspect_testing._loop import FakeLoop

LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "virtual": FakeLoop,
    "asyncio": asyncio.SelectorEventLoop,
    "uvloop": uvloop.new_event_loop,
}

Run = Callable[[Coroutine[Any, Any, Any]], Any]


def runner(name: str) -> Run:
    def run(coro: Coroutine[Any, Any, Any]) -> Any:
        with asyncio.Runner(loop_factory=LOOPS[name]) as each:
            return each.run(coro)

    return run


@pytest.fixture
def run_virtually() -> Run:
    """Runs a coroutine on a FakeLoop."""
    return runner("virtual")


@pytest.fixture
def run_on_asyncio() -> Run:
    """Runs a coroutine on asyncio's own loop."""
    return runner("asyncio")


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Run:
    """Runs a coroutine on a real loop of each kind."""
    return runner(request.param)


@pytest.fixture(params=list(LOOPS))
def run_anywhere(request: pytest.FixtureRequest) -> Run:
    """Runs a coroutine on each kind of loop."""
    return runner(request.param)
