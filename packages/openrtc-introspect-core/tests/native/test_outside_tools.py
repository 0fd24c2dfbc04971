"""Metered coroutines before tools that know of Python's own: readers of memory, profilers."""

from __future__ import annotations

import ctypes
import sys
import sysconfig
import time
from contextvars import ContextVar
from types import CoroutineType, FrameType
from typing import Any

import pytest

from openrtc_introspect_core._accounting.ledger import Ledger
from openrtc_introspect_core._accounting.meter import Metered
from openrtc_introspect_core._accounting.spans import NOTABLE_S
from openrtc_introspect_core._native import native

STATE, CODE = 6, 7
"""The words behind an object's head in which a coroutine has its state and its frame's code: Python 3.14, 3.15."""


COMPILED_WITH = sysconfig.get_config_var("PY_CFLAGS") or ""
FRAMES_OF_UNWIND = 4
"""The innermost frames that differ from call to call of `unwind`: those of itself and of the line that calls it."""


class Pause:
    def __await__(self) -> Any:
        yield


def metered(coro: Any) -> Any:
    """Return `coro`, metered by a ledger of its own."""
    ledger = Ledger(ContextVar("binding"), time.perf_counter, 60.0)
    return Metered(coro, ledger, ledger.untagged)


def test_a_reader_of_memory_finds_no_frame_in_it() -> None:
    """`python -m asyncio ps` reads any task's coroutine as one of Python's own."""

    async def work() -> None:
        await Pause()

    coro = metered(work())
    coro.send(None)
    words = (ctypes.c_size_t * 8).from_address(id(coro) + object.__basicsize__)
    assert (words[STATE], words[CODE]) == (0, 0)
    coro.close()


@pytest.mark.skipif(sys.version_info < (3, 14), reason="the place is that of Python 3.14 and later")
def test_that_is_where_a_coroutine_has_its_frame() -> None:
    """The code of a suspended one; its lowest bits are Python's mark of the reference."""

    async def work() -> None:
        await Pause()

    coro = work()
    coro.send(None)
    word = (ctypes.c_size_t * 8).from_address(id(coro) + object.__basicsize__)[CODE]
    assert (type(coro), word & ~3) == (CoroutineType, id(work.__code__))
    coro.close()


def unwind() -> list[int]:
    """Return the addresses to which the calls of this thread's machine code return, innermost first."""
    internal: Any = pytest.importorskip("_testinternalcapi")  # Python's tests have it, and Debian without them
    if not hasattr(internal, "manual_frame_pointer_unwind") or "-fno-omit-frame-pointer" not in COMPILED_WITH:
        pytest.skip("this Python is not compiled with frame pointers, as it is from 3.15 on")
    addresses: list[int] = internal.manual_frame_pointer_unwind()
    return addresses


def test_machine_code_s_frames_are_followed_through_a_metered_step() -> None:
    """As perf and other profilers do it: they see who has resumed the task."""

    async def work() -> list[int]:
        return unwind()

    outside = unwind()
    coro = metered(work())
    with pytest.raises(StopIteration) as done:
        coro.send(None)
    inside = done.value.value
    shared = outside[FRAMES_OF_UNWIND:]
    assert len(shared) > FRAMES_OF_UNWIND
    assert inside[-len(shared) :] == shared


@pytest.mark.skipif(native is None, reason="the meter in Python is seen")
def test_profilers_see_a_task_s_return_last() -> None:
    """After a step that leaves a span, too, though Python code of ours keeps it."""
    seen: list[tuple[str, str]] = []

    async def work() -> None:
        ends = time.perf_counter() + 2 * NOTABLE_S
        while time.perf_counter() < ends:
            pass
        await Pause()

    def profile(frame: FrameType, event: str, argument: object) -> None:
        seen.append((event, frame.f_code.co_name))

    coro = metered(work())
    before = sys.getprofile()
    sys.setprofile(profile)
    try:
        coro.send(None)
    finally:
        sys.setprofile(before)
    coro.close()
    ends_at = len(seen) - 1 - seen[::-1].index(("return", "work"))
    assert [event for event, name in seen[ends_at + 1 :]] == ["c_return", "c_call"]  # of send, and of setprofile
