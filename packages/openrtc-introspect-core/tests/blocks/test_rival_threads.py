"""The other threads that compute while a loop is held: which of them kept the GIL."""

from __future__ import annotations

import itertools
import sys
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

import anyio
import anyio.to_thread
import pytest

from openrtc_introspect_core import Introspector
from openrtc_introspect_core._blocks import rival_threads
from openrtc_introspect_core._blocks.rival_threads import Reading, Rivals, RivalThreads, Sample, alike, keeper_of
from openrtc_introspect_core._os.thread_usage import Usage
from openrtc_introspect_core.wire import Block
from openrtc_introspect_testing._loops.backends import Backend

A, B = 1, 2


def usage(when: float, loop: float, process: float) -> Usage:
    return Usage(when, loop, None, process)


def read(when: float, loop: float, process: float, threads: Mapping[int, float]) -> Reading:
    return Reading(usage(when, loop, process), threads)


def in_block(*readings: Reading, since: float, tick: Usage) -> Rivals:
    """Return what the threads have used in a block that began at `since`, after this last tick before it."""
    rivals: Rivals = {}
    for before, after in itertools.pairwise(readings):
        Sample(before, after, {}).add_to(rivals, since, tick)
    return rivals


def test_a_thread_that_alone_computed_is_the_keeper() -> None:
    """The reading before is a second old; the process did nothing until the block."""
    rivals = in_block(
        read(9.0, 1.0, 2.0, {A: 0.5, B: 0.5}),
        read(10.2, 1.1, 2.3, {A: 0.69, B: 0.51}),
        since=10.0,
        tick=usage(10.0, 1.1, 2.1),
    )
    assert rivals[A].least_s == pytest.approx(0.19)
    assert keeper_of(rivals, 0.2) is rivals[A]


def test_what_a_thread_used_before_the_block_does_not_count() -> None:
    """It may be innocent: someone else that `threading` does not know may have kept the GIL."""
    rivals = in_block(
        read(9.0, 1.0, 2.0, {A: 0.5}),
        read(10.2, 1.0, 3.2, {A: 1.4}),  # of 1.2 s it has used 0.9, and an unknown thread 0.3
        since=10.0,
        tick=usage(10.0, 1.0, 3.0),
    )
    assert rivals[A].least_s == 0.0
    assert keeper_of(rivals, 0.2) is None


def test_a_thread_that_ran_all_the_time_is_the_keeper_if_no_other_can_be() -> None:
    """All others together have not used as much as was used in the block."""
    rivals = in_block(
        read(9.0, 1.0, 2.0, {A: 0.5, B: 0.5}),
        read(10.2, 1.0, 3.2, {A: 1.65, B: 0.55}),
        since=10.0,
        tick=usage(10.0, 1.0, 3.0),
    )
    assert rivals[A].least_s == pytest.approx(0.15)
    assert keeper_of(rivals, 0.2) is rivals[A]


def test_two_that_computed_alike_are_both_named_and_neither_is_the_keeper() -> None:
    """Readings within a block are exact."""
    rivals = in_block(
        read(10.0, 1.0, 2.0, {A: 0.5, B: 0.5}),
        read(10.1, 1.0, 2.1, {A: 0.55, B: 0.55}),
        read(10.2, 1.0, 2.2, {A: 0.62, B: 0.58}),
        since=9.99,
        tick=usage(9.99, 1.0, 2.0),
    )
    rivals[A].name, rivals[B].name = "a", "b"
    assert keeper_of(rivals, 0.2) is None
    assert alike(rivals, 0.2) == ["a", "b"]


def test_a_thread_that_waited_is_none() -> None:
    """Nor is one that computed for a small part of the block."""
    rivals = in_block(
        read(10.0, 1.0, 2.0, {A: 0.5, B: 0.5}),
        read(10.2, 1.2, 2.215, {A: 0.515, B: 0.5}),
        since=9.99,
        tick=usage(9.99, 1.0, 2.0),
    )
    assert (set(rivals), keeper_of(rivals, 0.2), alike(rivals, 0.2)) == ({A}, None, [])


def test_it_reads_rarely_while_nothing_is_held(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each half a second, not at each tick."""
    readings: list[int] = []
    monkeypatch.setattr(rival_threads, "cpu_by_thread", lambda but: readings.append(1) or {})
    threads = RivalThreads()
    for tick in range(40):
        threads.mark(usage(0.045 * tick, 0.0, 0.0), 0)
    assert len(readings) == 4
    assert RivalThreads().sample({}, usage(1.0, 0.0, 0.0), 0) is None


def test_it_does_not_read_while_the_loops_own_thread_computes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its late samples are many, and no other thread has anything to do with them."""
    threads = RivalThreads()
    threads.mark(usage(10.0, 1.0, 2.0), 0)
    monkeypatch.setattr(rival_threads, "cpu_by_thread", lambda but: {A: 1.0})
    assert threads.sample({}, usage(11.0, 2.0, 3.05), 0) is None
    assert threads.sample({}, usage(12.0, 2.2, 3.8), 0) is not None


# --- in real blocks --------------------------------------------------------------------------------


def rate() -> float:
    began = time.thread_time()
    sum(range(1_000_000))
    return 1_000_000 / (time.thread_time() - began)


def keep_gil(seconds: float, per_s: float) -> None:
    sum(range(int(per_s * seconds)))  # kept here


LINE = keep_gil.__code__.co_firstlineno + 1


async def blocked_by(on_any_loop: Any, start: Callable[[Introspector, float], Any]) -> list[Block]:
    """Return the blocks while a session steps and another thread keeps the GIL."""
    per_s = rate()
    async with Introspector(socket_path=False) as introspector, anyio.create_task_group() as group:
        over = anyio.Event()

        async def healthy() -> None:
            with introspector.session("healthy", agent_name="test"):
                while not over.is_set():
                    await anyio.sleep(0.005)
                    sum(range(2000))

        group.start_soon(healthy)
        await anyio.sleep(0.8)
        await start(introspector, per_s)
        await anyio.sleep(0.1)
        over.set()
    return [block for block in introspector.blocks() if block.cause == "gil-contention"]


@pytest.mark.gil
@pytest.mark.skipif(sys.platform != "linux", reason="a clock of another thread")
def test_a_block_by_a_call_in_a_thread_names_its_session_function_and_line(on_any_loop: Backend) -> None:
    """The healthy session that waited for the GIL is not named."""

    async def start(introspector: Introspector, per_s: float) -> None:
        with introspector.session("culprit", agent_name="test"):
            await anyio.to_thread.run_sync(keep_gil, 0.3, per_s)

    right: list[Block] = []
    deadline = time.monotonic() + 60
    while not right and time.monotonic() < deadline:  # the loop's thread may have had the GIL first, or no processor
        blocks = on_any_loop(blocked_by(on_any_loop, start))
        assert {block.session_id for block in blocks} <= {"culprit", None}
        right = [block for block in blocks if block.location is not None and block.location.line == LINE]
    assert right[0].session_id == "culprit"
    assert right[0].detail is not None
    assert right[0].detail.startswith("its call keep_gil in thread ")
    assert right[0].stack[-1].function == "keep_gil"


@pytest.mark.gil
@pytest.mark.skipif(sys.platform != "linux", reason="a clock of another thread")
def test_a_block_by_a_librarys_thread_names_the_thread_and_no_session(on_any_loop: Backend) -> None:
    """Its line is that at which it kept the GIL."""
    ended = threading.Event()

    def library(per_s: float) -> None:
        keep_gil(0.3, per_s)
        ended.wait(60)

    async def start(introspector: Introspector, per_s: float) -> None:
        threading.Thread(target=library, args=(per_s,), name="a-library", daemon=True).start()
        await anyio.sleep(0.5)

    right: list[Block] = []
    deadline = time.monotonic() + 60
    while not right and time.monotonic() < deadline:
        blocks = on_any_loop(blocked_by(on_any_loop, start))
        assert {block.session_id for block in blocks} <= {None}
        right = [block for block in blocks if block.location is not None and block.location.line == LINE]
    ended.set()
    assert right[0].detail == "thread 'a-library' kept the GIL"
    assert [each.function for each in right[0].stack][-1] == "keep_gil"
