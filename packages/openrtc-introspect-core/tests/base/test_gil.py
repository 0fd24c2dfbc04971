"""What is reported, and what is not read, on a Python without a GIL."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from collections import deque
from typing import Any

import anyio
import pytest

from openrtc_introspect_core import ArgumentError, Introspector
from openrtc_introspect_core._accounting import heap_methods
from openrtc_introspect_core._base.gil import MISSING_WITHOUT_GIL, copied, has_gil
from openrtc_introspect_core._introspector import parts_of
from openrtc_introspect_core._os.allocators import Allocator
from openrtc_introspect_core._os.stacks import Places, frames_now, take
from openrtc_introspect_core._service import introspection
from openrtc_introspect_core._service.inspection import thread_stacks
from openrtc_introspect_testing._loops.backends import Backend, in_task


@pytest.fixture
def no_gil(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a free-threaded Python says of itself."""
    monkeypatch.setattr(introspection, "has_gil", has_gil)
    monkeypatch.setattr(sys, "_is_gil_enabled", lambda: False, raising=False)


def test_a_python_that_does_not_tell_has_a_gil(monkeypatch: pytest.MonkeyPatch) -> None:
    """As before 3.13."""
    monkeypatch.delattr(sys, "_is_gil_enabled", raising=False)
    assert has_gil()


@pytest.mark.slow
def test_a_copy_is_whole_while_another_thread_appends() -> None:
    """No error, and no item twice or left out."""
    numbers = deque(range(100), maxlen=100)
    done = threading.Event()

    def append() -> None:
        following = 100
        while not done.is_set():
            numbers.append(following)
            following += 1

    thread = threading.Thread(target=append)
    thread.start()
    try:
        copies = [copied(numbers) for _ in range(2000)]
    finally:
        done.set()
        thread.join()
    assert all(copy == list(range(copy[0], copy[-1] + 1)) for copy in copies if copy)
    assert any(copies)


def test_what_never_holds_still_is_given_up_on() -> None:
    """Rather than to hold up who wants the copy."""

    class Restless(deque[int]):
        def __iter__(self) -> Any:
            raise RuntimeError("deque mutated during iteration")

    assert copied(Restless([1])) == []


def test_the_snapshot_says_what_cannot_be_told(on_any_loop: Backend, no_gil: None) -> None:
    """A note, on every kind of loop."""

    async def main() -> list[str]:
        async with Introspector(socket_path=False, stacks=False) as introspector:
            return introspector.snapshot().worker.notes

    assert MISSING_WITHOUT_GIL in on_any_loop(main())


def test_another_threads_frames_are_left_alone(no_gil: None) -> None:
    """Reading them crashes a free-threaded interpreter within seconds. The calling thread's own are read."""
    assert list(frames_now()) == [threading.get_ident()]
    calls, _ = take(frames_now()[threading.get_ident()], ())
    assert calls[0].function == "test_another_threads_frames_are_left_alone"


def test_a_block_has_its_session_and_its_cause_without_a_line(on_any_loop: Backend, no_gil: None) -> None:
    """Who, how long and why are known from clocks."""

    async def main() -> Any:
        async with Introspector(socket_path=False) as introspector:

            async def menu() -> None:
                with introspector.session("job-1", agent_name="test"):
                    await anyio.sleep(0.1)
                    time.sleep(0.4)

            await in_task(menu)
            return introspector.blocks()

    blocks = on_any_loop(main())
    # A busy machine causes blocks of its own, which are unattributed.
    block = max(blocks, key=lambda each: (each.session_id is not None, each.duration_ms))
    assert (block.session_id, block.location, block.stack) == ("job-1", None, []), blocks
    assert block.cause == "sync-call"


def test_threads_are_told_without_their_stacks(on_any_loop: Backend, no_gil: None) -> None:
    """Whose step runs is known all the same."""

    async def main() -> Any:
        async with Introspector(socket_path=False) as introspector:
            with introspector.session("job-1", agent_name="test"):
                reported: list[Any] = []
                look = threading.Thread(
                    target=lambda: reported.extend(thread_stacks([parts_of(introspector).loops[0].hook], Places()))
                )
                look.start()
                look.join()
                return reported[0]

    stack = on_any_loop(main())
    assert (stack.loop, stack.session_id, stack.frames) == (True, "job-1", [])


def test_where_tasks_wait_is_told_on_the_loops_own_thread_only(run_on_asyncio: Any, no_gil: None) -> None:
    """From another thread their await chains are not read: a task may go on meanwhile. That they wait is reported."""

    async def main() -> tuple[Any, Any]:
        async with Introspector(socket_path=False) as introspector:
            with introspector.session("job-1", agent_name="test"):
                task = asyncio.create_task(asyncio.sleep(3600), name="sleeper")
                await asyncio.sleep(0)
                here = introspector.tasks("job-1")
                elsewhere = await asyncio.to_thread(introspector.tasks, "job-1")
                task.cancel()
        return tuple(next(each for each in tasks if each.name == "sleeper") for tasks in (here, elsewhere))

    here, elsewhere = run_on_asyncio(main())
    assert (here.state, elsewhere.state) == ("waiting", "waiting")
    assert here.awaits
    assert not elsewhere.awaits


def test_mallocs_account_is_refused_where_python_does_not_use_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would tell 0 for all that Python allocates."""
    monkeypatch.setattr(heap_methods, "FREE_THREADED_BUILD", True)
    monkeypatch.setattr(heap_methods, "allocators", lambda: [Allocator("glibc", "mallinfo2", lambda: 0)])
    with pytest.raises(ArgumentError, match="a free-threaded Python allocates elsewhere: use 'traced'"):
        heap_methods.heap_for("heap")
