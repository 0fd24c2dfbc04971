from __future__ import annotations

import asyncio
import concurrent.futures
import contextvars
import sys
import threading
import time
import traceback
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from thread_cpu import compute, thread_cpu_s

from openrtc_introspect_core import Introspector
from openrtc_introspect_core._accounting.ledger import Ledger
from openrtc_introspect_core._accounting.thread_calls import Done, ThreadCall, ThreadCalls
from openrtc_introspect_core._introspector import parts_of
from openrtc_introspect_core._sessions.session import Session
from openrtc_introspect_testing._loops.fake_clock import FakeClock

Run = Callable[[Coroutine[Any, Any, Any]], Any]


def test_a_call_in_a_thread_is_its_sessions(run: Run) -> None:
    """Calls by to_thread and in the user's own executor, while the loop is free."""

    async def main() -> Any:
        async with Introspector(socket_path=False) as introspector:
            ledger = parts_of(introspector).loops[0].ledger

            def until_the_loop_is_free() -> float:
                """Wait. Return the CPU seconds that this took."""
                began, deadline = time.thread_time(), time.monotonic() + 30
                while ledger.holder not in (None, ledger.parked) and time.monotonic() < deadline:
                    time.sleep(0.001)
                assert ledger.holder in (None, ledger.parked)
                return time.thread_time() - began

            with introspector.session("other", agent_name="test"), introspector.session("job-1", agent_name="test"):
                used = await asyncio.to_thread(until_the_loop_is_free)
                used += await asyncio.to_thread(compute, 0.05)
                executor = concurrent.futures.ThreadPoolExecutor()
                used += await asyncio.get_running_loop().run_in_executor(executor, compute, 0.05)
                executor.shutdown(wait=False)  # waiting for its thread would hold the loop
                return used, thread_cpu_s(introspector, "job-1"), thread_cpu_s(introspector, "other")

    used, charged, other = run(main())
    assert charged == pytest.approx(used, abs=0.02)
    assert other == 0.0


@pytest.mark.skipif(sys.platform != "linux", reason="a clock of another thread")
def test_a_call_under_way_counts(run: Run) -> None:
    """Its CPU time so far is charged."""

    async def main() -> Any:
        async with Introspector(socket_path=False) as introspector:
            with introspector.session("job-1", agent_name="test"):
                go_on, computed = threading.Event(), threading.Event()

                def work() -> float:
                    used = compute(0.05)
                    computed.set()
                    go_on.wait(30)
                    return used

                call = asyncio.ensure_future(asyncio.to_thread(work))
                while not computed.is_set():
                    await asyncio.sleep(0.01)
                so_far = thread_cpu_s(introspector, "job-1")
                go_on.set()
                return so_far, await call, thread_cpu_s(introspector, "job-1")

    so_far, used, whole = run(main())
    assert so_far == pytest.approx(used, abs=0.02)
    assert whole >= so_far


def test_a_call_without_a_session_is_left_alone(run: Run) -> None:
    """The loop gets the function as it was given."""

    async def main() -> Any:
        async with Introspector(socket_path=False):
            return await asyncio.to_thread(lambda: [f.name for f in traceback.extract_stack()])

    assert "__call__" not in run(main())


def test_errors_come_through_without_our_frame(run: Run) -> None:
    """The traceback is that of a direct call."""

    def fail() -> None:
        raise LookupError("no menu")

    async def main() -> list[str]:
        async with Introspector(socket_path=False) as introspector:
            with introspector.session("job-1", agent_name="test"):
                try:
                    await asyncio.to_thread(fail)
                except LookupError as error:
                    return [frame.name for frame in traceback.extract_tb(error.__traceback__)]
        return []

    names = run(main())
    assert names[-1] == "fail"
    assert "__call__" not in names


def test_other_executors_get_what_they_were_given(run: Run) -> None:
    """A pool of processes cannot take our wrapper."""

    class Elsewhere(concurrent.futures.Executor):
        def submit(self, func: Any, /, *args: Any, **kwargs: Any) -> Any:
            future: concurrent.futures.Future[Any] = concurrent.futures.Future()
            future.set_result(func)
            return future

    async def main() -> Any:
        async with Introspector(socket_path=False) as introspector:
            with introspector.session("job-1", agent_name="test"):
                return await asyncio.get_running_loop().run_in_executor(Elsewhere(), compute, 1.0)

    assert run(main()) is compute


def test_a_coroutine_function_is_refused_by_the_loop_itself(run_on_asyncio: Run) -> None:
    """In debug mode, the loop refuses it in its own words."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.set_debug(True)
        async with Introspector(socket_path=False) as introspector:
            with (
                introspector.session("job-1", agent_name="test"),
                pytest.raises(TypeError, match="coroutines cannot be used with run_in_executor"),
            ):
                loop.run_in_executor(None, asyncio.sleep, 0)

    run_on_asyncio(main())


# --- who kept the GIL ----------------------------------------------------------------------------


@pytest.fixture
def calls() -> ThreadCalls:
    return ThreadCalls(FakeClock())


def session(name: str) -> Session:
    return Session(name, "test", {}, 0.0)


def test_who_computed_through_a_span_is_the_culprit(calls: ThreadCalls) -> None:
    """A session that only waited, or was there for a part of the span, is none."""
    computed, waited, late = session("computed"), session("waited"), session("late")
    calls._recent.extend([Done(computed, 0.9, 2.1, 1.1), Done(waited, 0.9, 2.1, 0.1), Done(late, 1.7, 2.1, 0.4)])
    assert calls.culprit(1.0, 2.0) is computed


def test_many_calls_of_one_session_add_up(calls: ThreadCalls) -> None:
    """Each of ten calls has a tenth of the GIL."""
    computes = session("computes")
    calls._recent.extend(Done(computes, 0.0, 4.0, 0.4) for _ in range(10))
    assert calls.culprit(1.0, 2.0) is computes


def test_two_that_computed_alike_are_both_not_named(calls: ThreadCalls) -> None:
    """Neither of the two is the only one."""
    calls._recent.extend([Done(session("a"), 1.0, 2.0, 0.5), Done(session("b"), 1.0, 2.0, 0.4)])
    assert calls.culprit(1.0, 2.0) is None


def test_who_waited_is_no_culprit(calls: ThreadCalls) -> None:
    """A call to a slow server uses no CPU time."""
    calls._recent.append(Done(session("waits"), 1.0, 2.0, 0.01))
    assert calls.culprit(1.0, 2.0) is None


def test_a_call_under_way_can_be_it(calls: ThreadCalls, monkeypatch: pytest.MonkeyPatch) -> None:
    """The CPU time that it has used so far decides."""
    computes = session("computes")
    call = ThreadCall(compute, computes, Ledger(contextvars.ContextVar("test"), FakeClock(), 0.05), calls)
    call.start = 1.0
    monkeypatch.setattr(ThreadCall, "cpu_s_seen", lambda self: 0.9)
    calls._running.add(call)
    assert calls.culprit(1.0, 2.0) is computes
    assert calls.under_way() == {computes: 0.9}
