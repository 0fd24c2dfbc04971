"""trio-asyncio: asyncio tasks inside of a Trio run.

Each program runs in a process of its own, as the library patches asyncio. Its time is virtual, so the truth is what the
program itself adds to the clock.
"""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from importlib.util import find_spec
from typing import Any

import pytest

if find_spec("trio_asyncio") is None:  # not imported here: it changes asyncio in this process, too
    pytest.skip("trio-asyncio does not import on Python 3.14 and later", allow_module_level=True)

BEGIN = """
import asyncio, json, socket, sys, threading, trio, trio_asyncio
from trio_asyncio import aio_as_trio, trio_as_aio
from openrtc_introspect_core import Introspector
from openrtc_introspect_core._introspector import parts_of

now = 0.0
def clock():
    return now
def work(seconds):
    global now
    now += seconds
def rows(introspector):
    return {row.session_id: (round(row.cpu_s, 6), row.tasks) for row in introspector.snapshot().sessions}
def blocks(introspector):
    return [(each.session_id, each.task_name, each.cause, round(each.duration_ms)) for each in introspector.blocks()]
def own(loop):
    return sorted(vars(loop).keys() & {"create_task", "call_soon", "run_in_executor"})
def new():
    return Introspector(socket_path=False, stacks=False, clock=clock)
def show(what):
    print(json.dumps(what))
"""


def shown(program: str, end: str | None = None) -> Any:
    """Return what a program shows. `main(loop)` is called in Trio, while a loop of trio-asyncio is open."""
    end = (
        end
        or """
async def run():
    async with trio_asyncio.open_loop() as loop:
        await main(loop)
trio.run(run)
"""
    )
    done = subprocess.run(
        [sys.executable, "-c", BEGIN + textwrap.dedent(program) + end],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


SESSION = """
async def in_asyncio(introspector, name, seconds, steps=10):
    with introspector.session(name, agent_name="a"):
        for _ in range(steps):
            work(seconds)
            await asyncio.sleep(0)
        return rows(introspector)[name]
"""


def test_each_step_is_its_own_session_s_on_both_layers() -> None:
    """Steps of asyncio tasks, of Trio's own tasks, and of neither's sessions."""
    assert shown(
        SESSION
        + """
async def main(loop):
    async with new() as introspector:
        async def in_trio():
            with introspector.session("of trio", agent_name="a"):
                for _ in range(10):
                    work(0.003)
                    await trio.sleep(0)
                seen["of trio"] = rows(introspector)["of trio"]
        async def by_bridge(name, seconds):
            seen[name] = await aio_as_trio(in_asyncio)(introspector, name, seconds)
        async def of_nobody():
            for _ in range(10):
                work(0.004)
                await asyncio.sleep(0)
        seen = {}
        async with trio.open_nursery() as nursery:
            nursery.start_soon(by_bridge, "one", 0.001)
            nursery.start_soon(by_bridge, "two", 0.002)
            nursery.start_soon(in_trio)
            nursery.start_soon(aio_as_trio(of_nobody))
        show([seen, introspector.snapshot().worker.notes])
"""
    ) == [{"one": [0.01, 1], "two": [0.02, 1], "of trio": [0.03, 1]}, []]


def test_a_session_keeps_through_the_bridges() -> None:
    """From Trio to asyncio, and from there to Trio."""
    assert shown("""
async def innermost():
    work(0.004)
    await trio.sleep(0)
    work(0.008)
async def inner():
    work(0.001)
    await asyncio.sleep(0)
    work(0.002)
    await trio_as_aio(innermost)()
async def main(loop):
    async with new() as introspector:
        with introspector.session("s", agent_name="a"):
            await aio_as_trio(inner)()
            show(rows(introspector))
""") == {"s": [0.015, 1]}


def test_attached_to_the_loop_alone_it_meters_the_run_around_it() -> None:
    """In an asyncio task, too, by no loop or by the loop; and all is put back."""
    assert shown(
        SESSION
        + """
async def main(loop):
    before, seen = own(loop), []
    for loops in (), (loop,):
        introspector = new()
        introspector.attach(*loops)
        seen.append(await aio_as_trio(in_asyncio)(introspector, "s", 0.001))
        introspector.detach(*loops)
        introspector.close()
    async def inside(*loops):
        introspector = new()
        introspector.attach(*loops)
        with introspector.session("s", agent_name="a"):  # in a task that is older than the introspector
            work(0.001)
            await asyncio.sleep(0)
            work(0.002)
            await asyncio.sleep(0)
            seen.append(rows(introspector)["s"])
        introspector.close()
    for loops in (), (loop,):
        await aio_as_trio(inside)(*loops)
    show([seen, own(loop) == before])
"""
    ) == [[[0.01, 1], [0.01, 1], [0.003, 1], [0.003, 1]], True]


def test_why_a_loop_cannot_be_attached_to_is_said() -> None:
    """It is attached already, runs in another thread, or is closed."""
    refused = shown("""
def refusal(introspector, loop):
    try:
        introspector.attach(loop)
    except Exception as error:
        return str(error)
async def main(loop):
    async with new() as introspector:
        twice = refusal(introspector, loop)
    elsewhere = await trio.to_thread.run_sync(refusal, new(), loop)
    async with trio_asyncio.open_loop() as another:
        pass
    show([twice, elsewhere, refusal(new(), another)])
""")
    assert [
        expected in text
        for expected, text in zip(["attached already", "in another thread", "it is closed"], refused, strict=True)
    ] == [True] * 3


def test_a_block_is_the_asyncio_task_s_and_a_callback_s_is_its_session_s() -> None:
    """With the time for which it delayed a session that waited in either queue."""
    blocks = shown("""
async def main(loop):
    async with new() as introspector:
        async def holds():
            with introspector.session("holds", agent_name="a"):
                await asyncio.sleep(0)
                async def child():
                    work(0.2)
                await asyncio.create_task(child(), name="child")
        async def waits():
            with introspector.session("waits in asyncio", agent_name="a"):
                for _ in range(20):
                    await asyncio.sleep(0)
        async def waits_in_trio():
            with introspector.session("waits in trio", agent_name="a"):
                for _ in range(40):
                    await trio.sleep(0)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(aio_as_trio(waits))
            nursery.start_soon(waits_in_trio)
            await trio.sleep(0)
            nursery.start_soon(aio_as_trio(holds))
        block = max(introspector.blocks(), key=lambda each: each.duration_ms)
        show([block.session_id, block.task_name, sorted(each.session_id for each in block.delayed)])
""")
    assert blocks == ["holds", "child", ["waits in asyncio", "waits in trio"]]


def test_tasks_and_waits_list_both_layers() -> None:
    """A task of Trio's that waits for an asyncio task is looked through to what that one waits for."""
    tasks, waits = shown("""
async def inner():
    await asyncio.Event().wait()
async def main(loop):
    async with new() as introspector:
        async def outer():
            with introspector.session("s", agent_name="a"):
                await aio_as_trio(inner)()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(outer)
            await trio.sleep(0.01)
            tasks = [(each.name.rpartition(".")[2], each.state) for each in introspector.tasks("s")]
            waits = [(group.kind, [each.task_name.rpartition(".")[2] for each in group.waiters])
                     for group in introspector.waits().groups if any(each.session_id for each in group.waiters)]
            nursery.cancel_scope.cancel()
        show([sorted(tasks), waits])
""")
    (name, state), outer = tasks
    assert (name.startswith("Task-"), state, outer) == (True, "waiting", ["outer", "waiting"])
    assert waits == [["event", ["outer"]]]


def test_what_a_session_s_file_callback_does_is_a_callback() -> None:
    """Though it is a step of a task of Trio's: as on a loop of asyncio's own."""
    assert shown("""
async def main(loop):
    async with new() as introspector:
        async def reads():
            with introspector.session("s", agent_name="a"):
                mine, theirs = socket.socketpair()
                read = asyncio.Event()
                def ready():
                    work(0.01)
                    mine.recv(1)
                    read.set()
                asyncio.get_running_loop().add_reader(mine, ready)
                theirs.send(b"x")
                await read.wait()
                work(0.002)
                asyncio.get_running_loop().remove_reader(mine)
                await asyncio.sleep(0)
                mine.close(), theirs.close()
                show(rows(introspector))
        await aio_as_trio(reads)()
""") == {"s": [0.002, 1]}


def test_a_loop_that_is_closed_is_freed_while_the_introspector_lives() -> None:
    """And so is a later one seen."""
    assert shown(
        SESSION
        + """
import gc, weakref
async def main(loop):
    async with new() as introspector:
        async with trio_asyncio.open_loop() as inner:
            seen = await aio_as_trio(in_asyncio, loop=inner)(introspector, "s", 0.001)
        freed = weakref.ref(inner)
        del inner
        for _ in range(3):
            await trio.sleep(0)
            gc.collect()
        show([seen, freed() is None])
"""
    ) == [[0.01, 1], True]


@pytest.mark.parametrize("meter", ["c", "python"])
def test_a_sampled_step_counts_for_several(meter: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps of asyncio tasks are drawn as others are."""
    monkeypatch.setenv("OPENRTC_INTROSPECT_METER", meter)
    (seconds, _), mean = shown(
        SESSION
        + """
async def main(loop):
    async with new() as introspector:
        parts_of(introspector).loops[0].ledger.set_sampling_period(4)
        show([await aio_as_trio(in_asyncio)(introspector, "s", 0.001, 4000), 4.0])
"""
    )
    assert seconds == pytest.approx(mean, rel=0.2)


def test_asyncio_run_in_a_process_that_has_loaded_the_library() -> None:
    """It makes a loop of trio-asyncio's, with a Trio run of its own in a greenlet."""
    assert shown(
        SESSION
        + """
async def main():
    async with new() as introspector:
        tasks = [asyncio.create_task(in_asyncio(introspector, *each)) for each in (("one", 0.001), ("two", 0.002))]
        seen = await asyncio.gather(*tasks)
        with introspector.session("own", agent_name="a"):
            work(0.2)
            await asyncio.sleep(0)
            seen.append(rows(introspector)["own"])
        show([type(asyncio.get_running_loop()).__name__, seen])
""",
        "asyncio.run(main())",
    ) == ["SyncTrioEventLoop", [[0.01, 1], [0.02, 1], [0.2, 1]]]
