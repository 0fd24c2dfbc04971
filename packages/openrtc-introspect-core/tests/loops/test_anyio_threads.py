"""Calls in threads by anyio and by Trio: charged to their session, and otherwise as without introspection."""

from __future__ import annotations

import contextvars
import subprocess
import sys
import textwrap
import threading
import time
import traceback
from typing import Any

import anyio
import anyio._backends._asyncio
import anyio.from_thread
import anyio.to_thread
import pytest
import trio._threads
from thread_cpu import compute, thread_cpu_s

from openrtc_introspect_core import Introspector, current_session
from openrtc_introspect_core._introspector import parts_of
from openrtc_introspect_testing._loops.backends import Backend

DEADLINE_S = 30.0


def test_a_call_by_anyio_is_its_sessions(on_any_loop: Backend) -> None:
    """It is that of the session bound where it is made; another one's is not touched."""

    async def main() -> Any:
        async with Introspector(socket_path=False) as introspector:
            with introspector.session("other", agent_name="test"), introspector.session("job-1", agent_name="test"):
                used = await anyio.to_thread.run_sync(compute, 0.05)
                return used, thread_cpu_s(introspector, "job-1"), thread_cpu_s(introspector, "other")

    used, charged, other = on_any_loop(main())
    assert charged == pytest.approx(used, abs=0.02)
    assert other == 0.0


def test_errors_come_through_without_our_frames(on_any_loop: Backend) -> None:
    """The traceback and the chain of causes are those of a call without introspection."""

    def fail() -> None:
        raise LookupError("no menu")

    async def call() -> Any:
        with pytest.raises(LookupError) as caught:
            await anyio.to_thread.run_sync(fail)
        error = caught.value
        return error.__context__, [(each.filename, each.name) for each in traceback.extract_tb(error.__traceback__)]

    async def main() -> tuple[Any, Any]:
        before = await call()
        async with Introspector(socket_path=False) as introspector:
            with introspector.session("job-1", agent_name="test"):
                return before, await call()

    before, within = on_any_loop(main())
    assert within == before
    assert before[1][-1][1] == "fail"


def test_context_and_cancellation_are_as_without_us(on_any_loop: Backend) -> None:
    """The thread has a copy of the caller's context, may call back, and may be abandoned."""
    variable = contextvars.ContextVar("variable", default="unset")
    ended = threading.Event()

    def work() -> tuple[str, str]:
        seen = variable.get()
        variable.set("in the thread")
        session = current_session()
        return seen, anyio.from_thread.run_sync(lambda: session.session_id if session is not None else "")

    def slow() -> None:
        ended.wait(DEADLINE_S)

    async def main() -> Any:
        async with Introspector(socket_path=False) as introspector:
            with introspector.session("job-1", agent_name="test"):
                variable.set("by the caller")
                seen = await anyio.to_thread.run_sync(work)
                with anyio.move_on_after(0.01) as scope:
                    await anyio.to_thread.run_sync(slow, abandon_on_cancel=True)
                ended.set()
                calls = parts_of(introspector).shared.thread_calls
                deadline = time.monotonic() + DEADLINE_S
                while calls.running() and time.monotonic() < deadline:
                    await anyio.sleep(0.01)
                return seen, variable.get(), scope.cancelled_caught, calls.running(), calls.waiting()

    assert on_any_loop(main()) == (("by the caller", "job-1"), "by the caller", True, [], [])


def test_a_call_cancelled_while_it_waits_is_forgotten(on_any_loop: Backend) -> None:
    """It never ran, and nothing is kept of it."""

    async def main() -> Any:
        async with Introspector(socket_path=False) as introspector:
            with introspector.session("job-1", agent_name="test"):
                limiter = anyio.CapacityLimiter(1)
                async with limiter, anyio.create_task_group() as group:

                    async def call() -> None:
                        await anyio.to_thread.run_sync(compute, 0.0, limiter=limiter)

                    group.start_soon(call)
                    await anyio.sleep(0.01)
                    group.cancel_scope.cancel()
                calls = parts_of(introspector).shared.thread_calls
                return calls.waiting(), calls.running()

    assert on_any_loop(main()) == ([], [])


def test_anyio_is_as_it_was_once_the_last_introspector_is_closed(on_any_loop: Backend) -> None:
    """Two introspectors see a call each; the functions are put back with the second one."""

    def functions() -> list[Any]:
        backend = anyio._backends._asyncio.AsyncIOBackend  # type: ignore[attr-defined]
        return [vars(backend)["run_sync_in_worker_thread"], vars(trio._threads)["start_thread_soon"]]

    def seen(introspector: Introspector) -> list[Any]:
        return [call.session for call in parts_of(introspector).shared.thread_calls._recent]

    async def main() -> Any:
        before = functions()
        async with Introspector(socket_path=False) as first:
            async with Introspector(socket_path=False) as second:
                with first.session("a", agent_name="test") as a, second.session("b", agent_name="test") as b:
                    await anyio.to_thread.run_sync(compute, 0.001)
                assert (seen(first), seen(second)) == ([a], [b])
            assert functions() != before
        return functions() == before

    assert on_any_loop(main())


def test_a_host_that_loads_anyio_later_is_seen() -> None:
    """From the next session on; introspection itself does not load anyio's backend for this."""
    program = """
        import asyncio, sys
        from openrtc_introspect_core import Introspector

        async def main():
            async with Introspector(socket_path=False) as introspector:
                assert "anyio._backends._asyncio" not in sys.modules
                import anyio.to_thread
                await anyio.to_thread.run_sync(int)
                with introspector.session("job-1", agent_name="test"):
                    await anyio.to_thread.run_sync(sum, range(300_000))
                    print(introspector.snapshot().sessions[0].thread_cpu_s > 0.0)

        asyncio.run(main())
    """
    ran = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, timeout=60, check=True
    )
    assert ran.stdout == "True\n", ran.stderr


def test_the_calls_of_introspection_itself_do_not_appear(runtime_dir: Any) -> None:
    """Its service has a loop of its own, whose calls are no loop's that is attached."""

    async def main() -> Any:
        async with Introspector() as introspector:
            await anyio.sleep(0.05)
            return list(parts_of(introspector).shared.thread_calls.pools)

    assert anyio.run(main) == []
