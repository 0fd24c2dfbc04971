"""Libraries that run synchronous code in greenlets: SQLAlchemy's asyncio engine, and gevent beside asyncio."""

from __future__ import annotations

import asyncio
import importlib.util
import re
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from typing import Any

import pytest

from openrtc_introspect_core import Introspector
from openrtc_introspect_core.wire import Location

pytestmark = pytest.mark.slow

Query = Callable[[Any], Any]


def functions(places: list[Location]) -> list[str]:
    """Return the unqualified names of the functions."""
    return [place.function.rpartition(".")[2] for place in places]


def in_query(query: Query, look: Callable[[Introspector], Any] | None = None) -> Any:
    """Run `query` in the engine's greenlet, in a session. Return what `look` sees after 0.3 s; else the blocks."""
    asyncio_engine = pytest.importorskip("sqlalchemy.ext.asyncio")
    pytest.importorskip("aiosqlite")
    sqlalchemy = pytest.importorskip("sqlalchemy")

    async def uses_database(engine: Any) -> None:
        async with engine.connect() as connection:
            await connection.run_sync(query)

    async def session(introspector: Introspector, engine: Any) -> None:
        with introspector.session("one", agent_name="test"):
            await uses_database(engine)

    async def main() -> Any:
        engine = asyncio_engine.create_async_engine("sqlite+aiosqlite://")
        sqlalchemy.event.listen(engine.sync_engine, "connect", add_slow)
        async with Introspector(socket_path=False) as introspector:
            task = asyncio.create_task(session(introspector, engine), name="task")
            seen = None
            if look is not None:
                await asyncio.sleep(0.3)
                seen = await asyncio.to_thread(look, introspector)
            await task
            await engine.dispose()
            return seen if look is not None else introspector.blocks()

    return asyncio.run(main())


def add_slow(connection: Any, record: Any) -> None:
    connection.create_function("slow", 0, lambda: time.sleep(1.0))


def holds_in_a_call(connection: Any) -> None:
    time.sleep(0.3)


def holds_in_python(connection: Any) -> None:
    ends = time.perf_counter() + 0.3
    while time.perf_counter() < ends:
        pass


def holds_in_c(connection: Any) -> None:
    re.match("(a+)+$", "a" * 23 + "b")


def waits(connection: Any) -> None:
    sqlalchemy = pytest.importorskip("sqlalchemy")
    connection.execute(sqlalchemy.text("select slow()"))


@pytest.mark.parametrize("query", [holds_in_a_call, holds_in_python, holds_in_c])
def test_a_block_in_the_engine_s_greenlet_has_the_task_s_calls(query: Query) -> None:
    """From the task's own coroutine through SQLAlchemy's to the line that held the loop.

    A busy machine may take no sample before C code keeps the GIL: then the greenlet's own calls are all that is known.
    """
    for _ in range(3):
        block = max(in_query(query), key=lambda each: float(each.duration_ms))
        if "run_sync" in functions(block.stack):
            break
    assert block.session_id == "one"
    assert block.location.function == query.__name__
    stack = functions(block.stack)
    assert stack[:2] == ["session", "uses_database"]
    assert stack.index("run_sync") < stack.index("greenlet_spawn") < stack.index(query.__name__)


def test_a_task_that_waits_for_the_database_shows_the_synchronous_code() -> None:
    """Between the engine's coroutine that waits, and what it awaits for the code."""
    (task,) = in_query(waits, lambda introspector: introspector.tasks("one"))
    calls = functions(task.awaits)
    chain = ["session", "uses_database", "run_sync", "greenlet_spawn", "waits", "_execute_async", "_execute"]
    assert [call for call in calls if call in chain][: len(chain)] == chain
    assert task.state == "waiting"


def test_the_line_of_such_a_wait_is_in_the_synchronous_code() -> None:
    """`openrtc waits` shows it, and what the task waits for there."""
    (group,) = in_query(waits, lambda introspector: introspector.waits()).groups[:1]
    assert group.location.function == "waits"


MONKEY = """
import gevent.monkey
gevent.monkey.patch_all()
import asyncio, time
from openrtc_introspect_core import Introspector

async def work():
    time.sleep(0.2)  # gevent's
    await asyncio.sleep(0.05)
    ends = time.perf_counter() + 0.2
    while time.perf_counter() < ends:
        pass

async def main():
    async with Introspector(socket_path=False, black_box=False, stall_log=None) as introspector:
        async def session():
            with introspector.session("one", agent_name="test") as row:
                await work()
                print(0.35 < introspector.snapshot().sessions[0].cpu_s < 2)
        await asyncio.create_task(session())
        print([block.session_id for block in introspector.blocks()])
        print(*introspector.snapshot().worker.notes)

asyncio.run(main())
"""

GREEN = """
import asyncio, time
import gevent
from openrtc_introspect_core import Introspector

def green():
    gevent.sleep(0.02)
    time.sleep(0.3)

async def main():
    async with Introspector(socket_path=False, black_box=False, stall_log=None) as introspector:
        async def session():
            with introspector.session("one", agent_name="test"):
                gevent.spawn(green).join()
        await asyncio.create_task(session())
        await asyncio.sleep(0)
        for block in introspector.blocks():
            print(block.session_id, block.location.function, block.stack[0].function.rpartition(".")[2])

asyncio.run(main())
"""


def with_gevent(program: str) -> str:
    """Run a program in a process of its own, and return what it prints."""
    if importlib.util.find_spec("gevent") is None:
        pytest.skip("gevent is not installed")
    command = [sys.executable, "-c", textwrap.dedent(program)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_process_that_gevent_has_patched_goes_on() -> None:
    """Its threads are greenlets, so nothing samples the loop. Steps are charged, and a note says what is missing."""
    in_time, blocks, notes = with_gevent(MONKEY).splitlines()
    assert (in_time, blocks) == ("True", "['one', 'one']")
    assert "the watchdog is switched off" in notes


def test_a_block_in_a_greenlet_of_gevent_s_has_the_hub_and_the_task_beyond() -> None:
    """The hub is the greenlet's parent, and the loop's greenlet the hub's."""
    assert with_gevent(GREEN).split() == ["one", "green", "session"]
