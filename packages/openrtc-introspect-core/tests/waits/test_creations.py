"""Where live threads and tasks were started, as the worker answers it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import anyio
import pytest

from openrtc_introspect_core import Introspector
from openrtc_introspect_core._introspector import parts_of
from openrtc_introspect_core._waits.creations import creations
from openrtc_introspect_core.wire._messages import Creation
from openrtc_introspect_testing._loops.backends import Backend, in_task
from openrtc_introspect_testing._loops.introspection_threads import ours

Run = Callable[[Coroutine[Any, Any, Any]], Any]


def answer(introspector: Introspector) -> list[Creation]:
    shared = parts_of(introspector).shared
    hooks = [loop.hook for loop in parts_of(introspector).loops]
    return creations(hooks, shared.thread_starts, shared.places, shared.clock())


def test_threads_are_grouped_by_the_line_that_started_them(run_on_asyncio: Run) -> None:
    """With the session that started most of them."""
    release = threading.Event()

    async def reads(introspector: Introspector) -> None:
        with introspector.session("call-ws", agent_name="a"):
            for _ in range(3):
                threading.Thread(target=release.wait, args=(60,), daemon=True).start()

    async def main() -> Creation:
        async with Introspector(socket_path=False) as introspector:
            await asyncio.create_task(reads(introspector))
            (found,) = [each for each in answer(introspector) if each.location and "reads" in each.location.function]
            return found

    found = run_on_asyncio(main())
    release.set()
    assert (found.kind, found.function, found.session_id) == ("thread", "Event.wait", "call-ws")
    assert (found.alive, found.started) == (3, 3)


def test_threads_that_are_older_have_no_line(run_on_asyncio: Run) -> None:
    """They are known by what they run, and their starts were not counted."""
    release = threading.Event()

    def older() -> None:
        release.wait(60)

    thread = threading.Thread(target=older, daemon=True)
    thread.start()

    async def main() -> Creation:
        async with Introspector(socket_path=False) as introspector:
            (found,) = [each for each in answer(introspector) if each.function.endswith("older")]
            return found

    found = run_on_asyncio(main())
    release.set()
    assert (found.location, found.session_id, found.alive, found.started) == (None, None, 1, None)


def test_introspection_s_own_threads_are_not_listed(run_on_asyncio: Run, runtime_dir: object) -> None:
    """Nor is the main thread."""

    async def main() -> list[str]:
        async with Introspector() as introspector:
            assert ours()
            return [each.function for each in answer(introspector) if each.kind == "thread"]

    functions = run_on_asyncio(main())
    assert not [name for name in functions if "SharedThread" in name or "Watchdog" in name or "Context" in name]


def test_threads_of_one_pool_are_one_group(run_on_asyncio: Run) -> None:
    """At the line that submitted most of what started them."""

    async def main() -> list[Creation]:
        with ThreadPoolExecutor(3, thread_name_prefix="tts") as pool:
            async with Introspector(socket_path=False) as introspector:
                together = threading.Barrier(3)
                first = pool.submit(together.wait, 60)
                others = [pool.submit(together.wait, 60) for _ in range(2)]
                for each in (first, *others):
                    await asyncio.wrap_future(each)
                return [each for each in answer(introspector) if each.function == "ThreadPoolExecutor tts"]

    (found,) = run_on_asyncio(main())
    assert (found.alive, found.started) == (3, 3)
    assert found.location.function.endswith("<listcomp>") or found.location.function.endswith("main")


def test_pools_that_are_made_again_and_again_are_one_group(run_on_asyncio: Run) -> None:
    """At the line that starts their threads, if none has a name; two pools are two groups."""
    pools: list[ThreadPoolExecutor] = []

    def turn() -> None:
        pools.append(ThreadPoolExecutor(1))
        pools[-1].submit(len, "turn").result(60)

    async def main() -> list[tuple[str, int, int | None]]:
        async with Introspector(socket_path=False) as introspector:
            found = []
            for number in (2, 2):
                for _ in range(number):
                    turn()
                made = [each for each in answer(introspector) if each.location and "turn" in each.location.function]
                found.append([(each.function, each.alive, each.started) for each in made])
            first, second = found
            assert len(first) == 2
            return second

    found = run_on_asyncio(main())
    for pool in pools:
        pool.shutdown()
    assert found == [("ThreadPoolExecutor", 4, 4)]


def test_a_second_answer_has_the_line_of_tasks_created_since(on_any_loop: Backend) -> None:
    """Those that are older are grouped by what they run."""

    async def polls(release: anyio.Event) -> None:
        await release.wait()

    async def main() -> list[Creation]:
        release = anyio.Event()
        async with Introspector(socket_path=False) as introspector, anyio.create_task_group() as group:
            for number in range(4):
                if number == 1:
                    assert "polls" in str(answer(introspector))

                async def begins() -> None:
                    group.start_soon(polls, release)

                with introspector.session(f"call-{number}", agent_name="a"):
                    await in_task(begins)
            found = [each for each in answer(introspector) if each.function.endswith("polls")]
            release.set()
            return found

    newer, older = on_any_loop(main())
    assert (newer.kind, newer.alive, newer.started) == ("task", 3, 3)
    assert newer.location.function.endswith("begins")
    assert (older.alive, older.started, older.location, older.session_id) == (1, None, None, "call-0")


def test_of_very_many_tasks_some_are_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    """Their number is that of all."""
    monkeypatch.setattr("openrtc_introspect_core._waits.creations.MAX_TASKS", 20)

    async def main() -> int:
        async with Introspector(socket_path=False) as introspector:
            made = [asyncio.create_task(asyncio.sleep(60.0)) for _ in range(99)]
            await asyncio.sleep(0)
            groups = await asyncio.to_thread(answer, introspector)
            for each in made:
                each.cancel()
            return sum(each.alive for each in groups if each.kind == "task")

    assert 90 <= asyncio.run(main()) <= 100
