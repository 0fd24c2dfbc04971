"""Which greenlet runs on a loop's thread, and the frames at which its stack goes on."""

from __future__ import annotations

import sys
import threading
import time
from types import FrameType
from typing import Any

import anyio
import greenlet
import pytest

from openrtc_introspect_core import Introspector
from openrtc_introspect_core._introspector import parts_of
from openrtc_introspect_core._loops.greenlet_switches import GreenletSwitches
from openrtc_introspect_core._os.stacks import Places, take
from openrtc_introspect_core._service.inspection import thread_stacks
from openrtc_introspect_core.wire import Block, Location
from openrtc_introspect_testing._loops.backends import Backend


def names(frames: list[FrameType]) -> list[str]:
    """Return the unqualified names of the functions that frames are of."""
    return [frame.f_code.co_name for frame in frames]


@pytest.fixture
def switches() -> Any:
    """The switches of this thread."""
    followed = GreenletSwitches(lambda problem, error: pytest.fail(problem))
    followed.trace()
    yield followed
    followed.stop()


def test_the_stack_goes_on_in_the_parents(switches: GreenletSwitches) -> None:
    """A greenlet in a greenlet has two stacks beyond it, that of the thread's main one last."""

    def inner() -> list[str]:
        return names(switches.beyond())

    def outer() -> list[str]:
        found: list[str] = greenlet.greenlet(inner).switch()
        return found

    assert greenlet.greenlet(outer).switch() == ["outer", "test_the_stack_goes_on_in_the_parents"]


def test_the_thread_s_main_greenlet_has_nothing_beyond_it(switches: GreenletSwitches) -> None:
    """Neither after a greenlet was left in its middle."""
    child = greenlet.greenlet(lambda: greenlet.getcurrent().parent.switch())
    child.switch()
    assert switches.beyond() == []


def test_a_greenlet_that_ran_when_following_began_is_known() -> None:
    """As a scope that is entered in one finds greenlet loaded."""
    switches = GreenletSwitches(lambda problem, error: pytest.fail(problem))

    def child() -> list[str]:
        switches.trace()
        return names(switches.beyond())

    try:
        assert greenlet.greenlet(child).switch() == ["test_a_greenlet_that_ran_when_following_began_is_known"]
    finally:
        switches.stop()


def test_a_greenlet_that_was_left_unseen_shows_nothing(switches: GreenletSwitches) -> None:
    """A trace function that was set later has taken the place of ours, and calls no other."""

    def child() -> None:
        greenlet.settrace(lambda event, switch: None)
        greenlet.getcurrent().parent.switch()

    greenlet.greenlet(child).switch()
    try:
        assert switches.beyond() == []
    finally:
        greenlet.settrace(None)


def test_another_thread_reads_it(switches: GreenletSwitches) -> None:
    """The class of the greenlet is the host's, and no method of it is called."""
    entered, looked = threading.Event(), threading.Event()
    me = threading.get_ident()
    seen: list[str] = []

    class Hosts(greenlet.greenlet):
        reads = 0

        @property
        def parent(self) -> Any:
            Hosts.reads += threading.get_ident() != me
            return super().parent

        dead = gr_frame = property(lambda self: pytest.fail("the host's property was read"))

    def look() -> None:
        entered.wait(60)
        calls, _ = take(sys._current_frames()[me], (), beyond=switches.beyond())
        seen.extend(call.function.rpartition(".")[2] for call in calls)
        looked.set()

    def child() -> None:
        entered.set()
        looked.wait(60)

    thread = threading.Thread(target=look)
    thread.start()
    Hosts(child).switch()
    thread.join()
    assert seen[seen.index("child") + 1] == "test_another_thread_reads_it"
    assert Hosts.reads == 0


@pytest.mark.slow
@pytest.mark.gil
@pytest.mark.parametrize("holds", ["waits", "computes", "keeps the GIL"])
def test_a_block_in_a_greenlet_has_the_task_s_calls_as_well(on_any_loop: Backend, holds: str) -> None:
    """On every loop, whether a sample finds the thread in a call, in Python, or in C code that keeps the GIL."""

    def work() -> None:
        ends = time.perf_counter() + 0.3
        while time.perf_counter() < ends:
            if holds == "waits":
                time.sleep(0.3)
            elif holds == "keeps the GIL":
                sum(range(2_000_000))

    def synchronous() -> None:
        work()

    async def spawns() -> None:
        greenlet.greenlet(synchronous).switch()

    async def main() -> list[Block]:
        async with Introspector(socket_path=False) as introspector:
            with introspector.session("one", agent_name="test"):
                await anyio.sleep(0)
                await spawns()
                await anyio.sleep(0)
            return introspector.blocks()

    expected, seen = ["main", "spawns", "synchronous", "work"], []
    deadline = time.monotonic() + 60
    while expected not in seen and time.monotonic() < deadline:  # a busy machine has other blocks, and few samples
        seen += [functions(block.stack)[-4:] for block in on_any_loop(main())]
    assert expected in seen, seen


@pytest.mark.gil
def test_the_running_task_and_its_thread_have_them_too(on_any_loop: Backend) -> None:
    """Whoever asks while the greenlet runs, from another thread."""

    async def main() -> Any:
        seen: list[Any] = []

        def look() -> None:
            hooks = [loop.hook for loop in parts_of(introspector).loops]
            seen.append(introspector.tasks("one")[0].awaits)
            seen.append(next(stack.frames for stack in thread_stacks(hooks, Places()) if stack.loop))

        def synchronous() -> None:
            thread = threading.Thread(target=look)
            thread.start()
            thread.join()

        async def spawns() -> None:
            greenlet.greenlet(synchronous).switch()

        async with Introspector(socket_path=False) as introspector:
            with introspector.session("one", agent_name="test"):
                await anyio.sleep(0)
                await spawns()
        return seen

    for frames in on_any_loop(main()):
        assert [name for name in functions(frames) if name in ("spawns", "synchronous")] == ["spawns", "synchronous"]


def functions(places: list[Location]) -> list[str]:
    """Return the unqualified names of the functions."""
    return [place.function.rpartition(".")[2] for place in places]
