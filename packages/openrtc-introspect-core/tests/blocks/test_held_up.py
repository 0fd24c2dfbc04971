"""What the thread of a blocked loop waits for, and who has it."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import anyio
import pytest

from openrtc_introspect_core import Block, Introspector
from openrtc_introspect_core._base.log import flush
from openrtc_introspect_testing._loops.backends import Backend, in_task

pytestmark = [pytest.mark.gil, pytest.mark.slow]

DEADLINE_S = 60.0

Check = Callable[[Block], bool]
Seen = TypeVar("Seen")


def undisturbed(once: Callable[[], Seen], quiet: Callable[[Seen], object]) -> Seen:
    """Run something until the machine was quiet meanwhile, or it is late.

    If other processes take the processor for most of a block, that is its cause, and its wait is not reported.
    """
    deadline = time.monotonic() + DEADLINE_S
    while True:
        seen = once()
        if quiet(seen) or time.monotonic() > deadline:
            return seen


def held_up(block: Block) -> bool:
    """Return whether a block waits, and not for the thread that watches it to begin."""
    return block.waiting_on not in (None, "a threading.Event")


class Blocked:
    """Watches a loop from another thread, and ends its block once that is seen to wait."""

    def __init__(self, introspector: Introspector, end: Callable[[], Any], seen: Check = held_up) -> None:
        self.blocks: list[Block] = []
        self._introspector = introspector
        self._end = end
        self._seen = seen
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> Blocked:
        self._thread.start()
        return self

    def __exit__(self, *raised: object) -> None:
        self._thread.join()

    @property
    def block(self) -> Block:
        assert self.blocks, "no block was seen to wait"
        return self.blocks[-1]

    def _watch(self) -> None:
        deadline = time.monotonic() + DEADLINE_S
        try:
            while not self.blocks and time.monotonic() < deadline:
                time.sleep(0.005)
                self.blocks += filter(self._seen, self._introspector.snapshot().blocks_in_progress)
        finally:
            self._end()


def waits_of(introspector: Introspector, session_id: str) -> list[Block]:
    """Return the blocks of a session that are over, and that are seen to have waited."""
    return [block for block in introspector.blocks() if (block.session_id, block.cause) == (session_id, "sync-call")]


async def blocked_by_a_task(
    take: Callable[[Any, anyio.Event], Any], introspector: Introspector, lock: Any
) -> tuple[Block, list[Block]]:
    """Return the block in which call-comer waits for a lock that call-holder has, and its blocks that are over."""
    taken = anyio.Event()

    async def hold() -> None:
        with introspector.session("call-holder", agent_name="a", metadata={"tenant": "t"}):
            await take(lock, taken)

    async def come() -> None:
        with introspector.session("call-comer", agent_name="a"):

            async def entrypoint() -> None:
                with Blocked(introspector, lambda: give_up.set()) as blocked:
                    while not give_up.is_set() and not lock.acquire(timeout=0.3):
                        pass
                seen.append(blocked.block)

            await in_task(entrypoint)

    give_up = threading.Event()
    seen: list[Block] = []
    async with anyio.create_task_group() as group:
        group.start_soon(hold)
        await taken.wait()
        await come()
        group.cancel_scope.cancel()
    return seen[0], waits_of(introspector, "call-comer")


async def take_in_with(lock: Any, taken: anyio.Event) -> None:
    with lock:
        taken.set()
        await anyio.sleep(DEADLINE_S)


async def take_by_acquire(lock: Any, taken: anyio.Event) -> None:
    lock.acquire()
    taken.set()
    await anyio.sleep(DEADLINE_S)


def test_the_task_that_is_suspended_in_with_is_the_holder(on_any_loop: Backend) -> None:
    async def main() -> tuple[Block, list[Block]]:
        async with Introspector(socket_path=False) as introspector:
            return await blocked_by_a_task(take_in_with, introspector, threading.Lock())

    block, ended = undisturbed(lambda: on_any_loop(main()), lambda seen: seen[1])
    for each in (block, ended[-1]):
        assert each.session_id == "call-comer"
        assert each.waiting_on == "threading.Lock (lock)"
        assert each.holder is not None
        assert (each.holder.session_id, each.holder.tenant, each.holder.certain) == ("call-holder", "t", True)
        assert each.holder.taken_at is not None
        assert each.holder.taken_at.line == take_in_with.__code__.co_firstlineno + 1
        assert each.holder.location is not None
        assert each.holder.location.line == take_in_with.__code__.co_firstlineno + 3
        assert each.holder.waits == "timer"


def test_one_that_has_called_acquire_is_a_likely_holder(on_any_loop: Backend) -> None:
    async def main() -> tuple[Block, list[Block]]:
        async with Introspector(socket_path=False) as introspector:
            return await blocked_by_a_task(take_by_acquire, introspector, threading.Lock())

    block, _ = on_any_loop(main())
    assert block.holder is not None
    assert (block.holder.session_id, block.holder.certain) == ("call-holder", False)
    assert block.holder.taken_at is not None
    assert block.holder.taken_at.line == take_by_acquire.__code__.co_firstlineno + 1


def test_the_log_says_who_has_the_lock(on_any_loop: Backend, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async with Introspector(socket_path=False) as introspector:
            await blocked_by_a_task(take_in_with, introspector, threading.Lock())

    def lines() -> list[str]:
        caplog.clear()
        on_any_loop(main())
        assert flush(DEADLINE_S)
        logged = [record.getMessage() for record in caplog.records]
        return [line for line in logged if "[slow-session] session_id=call-comer" in line and "(sync-call" in line]

    (line,) = undisturbed(lines, bool)
    assert "(sync-call); it waited for threading.Lock (lock), which session call-holder holds, suspended at " in line
    assert " in take_in_with inside the `with` at " in line


async def waits_in_a_task(
    introspector: Introspector, wait: Callable[[], Any], end: Callable[[], Any], seen: Check = held_up
) -> Block:
    """Return the block in which a session's task waits."""
    found: list[Block] = []

    async def entrypoint() -> None:
        with Blocked(introspector, end, seen) as blocked:
            wait()
        found.append(blocked.block)

    with introspector.session("call-1", agent_name="a"):
        await in_task(entrypoint)
    return found[0]


def own_thread(target: Callable[[], Any]) -> threading.Thread:
    thread = threading.Thread(target=target, name="sync-runner", daemon=True)
    thread.start()
    return thread


@pytest.mark.parametrize("switched_by", ["scope", "collection"])
def test_a_wait_after_a_switch_in_its_step_is_the_block_s(on_any_loop: Backend, switched_by: str) -> None:
    """The block begins with the step, before the holder of the loop has changed."""
    end = threading.Event()

    async def main() -> list[Block]:
        async with Introspector(socket_path=False) as introspector:
            thread = own_thread(lambda: end.wait(DEADLINE_S))

            def wait() -> None:
                with Blocked(introspector, end.set):
                    thread.join()

            async def in_scope() -> None:
                with introspector.session("call-1", agent_name="a"):
                    wait()

            async def after_collection() -> None:
                kept = [[] for _ in range(200_000)]  # so that the collection is notable
                gc.collect()
                kept.clear()
                wait()

            if switched_by == "scope":
                await in_task(in_scope)
            else:
                with introspector.session("call-1", agent_name="a"):
                    await in_task(after_collection)
            return waits_of(introspector, "call-1")

    def once() -> list[Block]:
        end.clear()
        return on_any_loop(main())

    block = undisturbed(once, bool)[-1]
    assert block.waiting_on is not None
    assert block.waiting_on.startswith("the end of thread sync-runner")


@pytest.mark.parametrize("make", [threading.Lock, threading.RLock], ids=["Lock", "RLock"])
def test_a_thread_inside_of_with_is_the_holder(make: Callable[[], Any], on_any_loop: Backend) -> None:
    lock, taken, end = make(), threading.Event(), threading.Event()

    def keep() -> None:
        with lock:
            taken.set()
            end.wait(DEADLINE_S)

    async def main() -> Block:
        async with Introspector(socket_path=False) as introspector:
            own_thread(keep)
            assert taken.wait(DEADLINE_S)

            def take() -> None:
                with lock:
                    pass

            return await waits_in_a_task(introspector, take, end.set)

    block = on_any_loop(main())
    assert block.holder is not None
    assert (block.holder.thread, block.holder.task_name, block.holder.certain) == ("sync-runner", None, True)
    assert block.holder.location is not None
    assert block.holder.location.function.endswith("keep")


def test_a_reentrant_lock_names_the_thread_that_called_acquire(on_any_loop: Backend) -> None:
    lock, taken, end = threading.RLock(), threading.Event(), threading.Event()

    def keep() -> None:
        lock.acquire()
        taken.set()
        end.wait(DEADLINE_S)
        lock.release()

    async def main() -> Block:
        async with Introspector(socket_path=False) as introspector:
            own_thread(keep)
            assert taken.wait(DEADLINE_S)

            def take() -> None:
                with lock:
                    pass

            return await waits_in_a_task(introspector, take, end.set)

    block = on_any_loop(main())
    assert block.holder is not None
    assert (block.holder.thread, block.holder.certain) == ("sync-runner", True)


def test_a_coroutine_of_another_threads_loop_is_named_with_its_line(on_any_loop: Backend) -> None:
    """`run_coroutine_threadsafe(...).result()` blocks until the other loop has run the coroutine."""
    other = asyncio.new_event_loop()
    thread = own_thread(other.run_forever)
    done = asyncio.Event()

    async def changed() -> None:
        await done.wait()

    async def main() -> Block:
        async with Introspector(socket_path=False) as introspector:
            future = asyncio.run_coroutine_threadsafe(changed(), other)
            return await waits_in_a_task(
                introspector,
                lambda: future.result(DEADLINE_S),
                lambda: other.call_soon_threadsafe(done.set),
                lambda block: "the coroutine" in (block.waiting_on or ""),
            )

    try:
        block = on_any_loop(main())
    finally:
        other.call_soon_threadsafe(other.stop)
        thread.join(DEADLINE_S)
        other.close()
    assert block.waiting_on is not None
    assert block.waiting_on.startswith("the coroutine `changed` on the loop of thread sync-runner, at ")
    assert f":{changed.__code__.co_firstlineno + 1} in " in block.waiting_on
    assert block.cause == "sync-call"


def test_a_call_in_an_executors_thread_is_named_with_its_line(on_any_loop: Backend) -> None:
    end = threading.Event()

    def work() -> None:
        end.wait(DEADLINE_S)

    async def main() -> Block:
        async with Introspector(socket_path=False) as introspector:
            with ThreadPoolExecutor(1, thread_name_prefix="pool") as pool:
                future = pool.submit(work)
                return await waits_in_a_task(
                    introspector,
                    lambda: future.result(DEADLINE_S),
                    end.set,
                    lambda block: "a call" in (block.waiting_on or ""),
                )

    block = on_any_loop(main())
    assert block.waiting_on is not None
    assert block.waiting_on.startswith("a call in thread pool_0, at ")
    assert " in test_a_call_in_an_executors_thread_is_named_with_its_line.<locals>.work" in block.waiting_on


def test_the_end_of_a_thread_is_named_with_the_line_that_it_is_at(on_any_loop: Backend) -> None:
    end = threading.Event()

    def run() -> None:
        end.wait(DEADLINE_S)

    async def main() -> Block:
        async with Introspector(socket_path=False) as introspector:
            thread = own_thread(run)
            return await waits_in_a_task(introspector, lambda: thread.join(DEADLINE_S), end.set)

    block = on_any_loop(main())
    assert block.waiting_on is not None
    assert block.waiting_on.startswith("the end of thread sync-runner, at ")


def test_a_sleep_waits_for_nothing(on_any_loop: Backend) -> None:
    async def main() -> list[Block]:
        async with Introspector(socket_path=False) as introspector:

            async def entrypoint() -> None:
                time.sleep(0.2)

            with introspector.session("call-1", agent_name="a"):
                await in_task(entrypoint)
            return waits_of(introspector, "call-1")

    (block,) = undisturbed(lambda: on_any_loop(main()), bool)
    assert (block.waiting_on, block.holder) == (None, None)


def test_a_fault_switches_it_off_and_is_noted(on_any_loop: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object) -> None:
        raise ValueError("no frames")

    async def main() -> tuple[list[Block], list[str]]:
        async with Introspector(socket_path=False) as introspector:
            monkeypatch.setattr("openrtc_introspect_core._waits.blocked_loop.thread_wait", fail)

            async def entrypoint() -> None:
                time.sleep(0.2)

            with introspector.session("call-1", agent_name="a"):
                await in_task(entrypoint)
            return waits_of(introspector, "call-1"), introspector.snapshot().worker.notes

    blocks, notes = undisturbed(lambda: on_any_loop(main()), lambda seen: seen[0])
    assert blocks
    assert any("what blocked loops wait for is no longer looked at: ValueError('no frames')" in note for note in notes)
