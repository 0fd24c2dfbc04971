from __future__ import annotations

import tracemalloc
from collections.abc import Coroutine, Generator
from types import coroutine
from typing import Any

import pytest

from openrtc_introspect_core._loops import suspended_calls
from openrtc_introspect_core._loops.suspended_calls import suspended_call
from openrtc_introspect_core._native import native
from openrtc_introspect_core._os.stacks import call_of

pytestmark = pytest.mark.skipif(native is None, reason="the meter in C is not installed")


@coroutine
def pause() -> Generator[None]:
    yield


async def three_lines() -> None:
    await pause()
    for _ in range(2):
        await pause()
    await pause()


def steps() -> Coroutine[Any, Any, None]:
    return three_lines()


def test_the_line_is_that_of_the_frame() -> None:
    """At each of its awaits, and before its first step."""
    coro: Any = steps()
    lines = []
    for _ in range(4):
        coro.send(None)
        call = suspended_call(coro)
        assert call is not None
        assert call == call_of(coro.cr_frame)
        assert suspended_call(coro.cr_await) == call_of(coro.cr_await.gi_frame)
        lines.append(call.line)
    assert [line - lines[0] for line in lines] == [0, 2, 2, 3]
    coro.close()


def test_a_coroutine_that_has_ended_is_in_no_call() -> None:
    coro: Any = steps()
    coro.send(None)
    coro.close()
    assert suspended_call(coro) is None


def test_no_frame_is_made() -> None:
    """Else it would live as long as the coroutine."""
    coros: list[Any] = [steps() for _ in range(1000)]
    for each in coros:
        each.send(None)
    suspended_call(coros[0])
    tracemalloc.start()
    try:
        for each in coros:
            suspended_call(each)
        assert tracemalloc.get_traced_memory()[0] < 100 * len(coros)
    finally:
        tracemalloc.stop()
        for each in coros:
            each.close()


def test_lines_that_are_known_do_not_pile_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(suspended_calls, "_MAX_KNOWN", 2)
    suspended_calls._calls.clear()
    coro: Any = steps()
    for _ in range(4):
        coro.send(None)
        suspended_call(coro)
    assert len(suspended_calls._calls) <= 2
    coro.close()
