"""Where threads were started: the replaced `Thread.start`, and what is known of a thread afterwards."""

from __future__ import annotations

import asyncio
import gc
import threading
import traceback
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextvars import Context
from functools import partial
from typing import Any

import anyio.to_thread
import pytest

from openrtc_introspect_core import Introspector
from openrtc_introspect_core._base.log import flush
from openrtc_introspect_core._introspector import parts_of
from openrtc_introspect_core._waits.thread_starts import ThreadStarts, runs
from openrtc_introspect_testing._loops.backends import Backend, in_task

Run = Callable[[Coroutine[Any, Any, Any]], Any]

START = threading.Thread.start


@pytest.fixture
def release() -> Iterator[threading.Event]:
    """An event that threads wait for, set at the end."""
    event = threading.Event()
    yield event
    event.set()


def starts_of(introspector: Introspector) -> ThreadStarts:
    return parts_of(introspector).shared.thread_starts


def start_one(release: threading.Event) -> threading.Thread:
    thread = threading.Thread(target=release.wait, daemon=True)
    thread.start()  # here
    return thread


def test_it_knows_the_line_the_function_and_the_session(on_any_loop: Backend, release: threading.Event) -> None:
    """The line is the innermost of the user's own code."""

    async def main() -> Any:
        async with Introspector(socket_path=False) as introspector:

            async def work() -> Any:
                return starts_of(introspector).of(start_one(release))

            with introspector.session("call-1", agent_name="a", metadata={"tenant": "acme"}):
                return await in_task(work)

    start = on_any_loop(main())
    assert (start.call.function, start.function, start.session) == ("start_one", "Event.wait", ("call-1", "a", "acme"))
    with open(__file__, encoding="utf-8") as lines:
        assert lines.readlines()[start.call.line - 1].endswith("# here\n")


def test_the_method_is_the_host_s_again_afterwards() -> None:
    """Also if several introspectors were open."""

    async def main() -> None:
        async with Introspector(socket_path=False), Introspector(socket_path=False):
            assert threading.Thread.start is not START

    asyncio.run(main())
    assert threading.Thread.start is START


def test_a_tracer_s_start_above_ours_stays(monkeypatch: pytest.MonkeyPatch, release: threading.Event) -> None:
    """It still reaches the original, and ours notes no more."""
    seen: list[threading.Thread] = []

    async def main() -> Introspector:
        async with Introspector(socket_path=False) as introspector:
            below = threading.Thread.start

            def traced(thread: threading.Thread) -> None:
                seen.append(thread)
                below(thread)

            monkeypatch.setattr(threading.Thread, "start", traced)
            return introspector

    introspector = asyncio.run(main())
    thread = start_one(release)
    assert (thread.is_alive(), thread in seen) == (True, True)
    assert starts_of(introspector).of(thread) is None


def test_a_start_that_fails_raises_as_without_us() -> None:
    """No frame of ours is in the traceback, and nothing is counted."""

    async def main() -> Any:
        async with Introspector(socket_path=False) as introspector:
            thread = threading.Thread(target=int)
            thread.start()
            thread.join()
            before = starts_of(introspector).started.copy()
            with pytest.raises(RuntimeError) as raised:
                thread.start()
            return before, starts_of(introspector).started, traceback.extract_tb(raised.tb)

    before, after, frames = asyncio.run(main())
    assert after.total() == before.total()
    assert [frame.name for frame in frames] == ["main", "start"]


def test_a_fault_of_ours_does_not_reach_the_host(monkeypatch: pytest.MonkeyPatch, release: threading.Event) -> None:
    """The thread starts, and the fault is in the notes."""

    async def main() -> list[str]:
        async with Introspector(socket_path=False) as introspector:
            monkeypatch.setattr(starts_of(introspector), "_hook_here", lambda: 1 / 0)
            assert start_one(release).is_alive()
            assert threading.Thread.start is START
            return introspector.snapshot().worker.notes

    notes = asyncio.run(main())
    assert flush(60.0)
    assert [note for note in notes if note.startswith("where threads are started is not seen any more")]


def test_a_thread_is_not_kept() -> None:
    """Its note is gone with the thread."""

    async def main() -> int:
        async with Introspector(socket_path=False) as introspector:
            thread = threading.Thread(target=int)
            thread.start()
            thread.join()
            key = id(thread)
            assert key in starts_of(introspector)._known
            del thread
            gc.collect()
            return key in starts_of(introspector)._known

    assert asyncio.run(main()) is False


class Reader(threading.Thread):
    """A host's own class of threads."""

    def run(self) -> None:
        """Do nothing."""


def test_a_class_of_threads_runs_its_own_method() -> None:
    """As its users write it."""
    assert runs(Reader()) == "Reader.run"


@pytest.mark.parametrize(
    ("target", "name"),
    [
        (print, "print"),
        (partial(partial(start_one), None), "start_one"),
        (threading.Event().wait, "Event.wait"),
        (Context().run, "Context.run"),
        (Backend("asyncio"), "Backend"),
    ],
)
def test_what_a_thread_runs_has_a_name(target: Any, name: str) -> None:
    """That of the function, or of the class of an object that can be called."""
    assert runs(threading.Thread(target=target)) == name


def test_what_a_thread_runs_in_a_context_is_the_function() -> None:
    """And not the context's method."""
    assert runs(threading.Thread(target=Context().run, args=(start_one,))) == "start_one"


def test_threads_of_a_pool_are_named_by_the_pool(run_on_asyncio: Run) -> None:
    """An executor's by the prefix of their names, and anyio's."""

    async def main() -> set[str]:
        def here() -> str:
            return runs(threading.current_thread())

        loop = asyncio.get_running_loop()
        with ThreadPoolExecutor(thread_name_prefix="tts") as pool:
            names = {await loop.run_in_executor(pool, here)}
        names.add(await asyncio.to_thread(here))
        return names | {await anyio.to_thread.run_sync(here)}

    assert run_on_asyncio(main()) == {"ThreadPoolExecutor tts", "ThreadPoolExecutor asyncio", "anyio's worker threads"}
