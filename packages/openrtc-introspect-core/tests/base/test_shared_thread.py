"""One thread of ours for the whole process: when it starts, for whom it works, and how it ends."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from contextvars import ContextVar

import pytest

from openrtc_introspect_core._base import fork, shared_thread
from openrtc_introspect_core._base.shared_thread import SharedThread

DEADLINE_S = 60.0


class Work:
    """A part that counts how often it was worked for."""

    def __init__(self) -> None:
        self.turns = threading.Semaphore(0)
        self.faults: list[Exception] = []

    def failed(self, error: Exception) -> None:
        self.faults.append(error)


class Thread(SharedThread[Work]):
    """Works once for each part, then until there is something else to do."""

    broken = False

    def _work(self) -> None:
        self._changed.clear()
        for part in self._parts:
            if self.broken:
                raise OSError("no")
            part.turns.release()
        if self._parts:
            self._changed.wait(DEADLINE_S)


@pytest.fixture
def thread() -> Iterator[Thread]:
    thread = Thread("shared")
    yield thread
    for part in thread._parts:
        thread.discard(part)
    thread.end_if_idle(DEADLINE_S)
    assert running() == []
    fork.shared.remove(thread)


def running() -> list[threading.Thread]:
    return [each for each in threading.enumerate() if each.name == "shared"]


def becomes(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + DEADLINE_S
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.001)
    return condition()


def test_it_runs_from_the_first_part_until_a_moment_after_the_last(thread: Thread) -> None:
    """Nobody has to end it."""
    one, two = Work(), Work()
    assert running() == []
    thread.add(one)
    thread.add(two)
    assert one.turns.acquire(timeout=DEADLINE_S)
    assert two.turns.acquire(timeout=DEADLINE_S)
    (ran,) = running()
    thread.discard(one)
    thread.discard(two)
    assert (thread.has(one), thread.has(two)) == (False, False)
    ran.join(DEADLINE_S)
    assert running() == []


def test_a_part_that_comes_soon_finds_it_there(thread: Thread, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is kept for a moment."""
    monkeypatch.setattr(shared_thread, "KEEP_S", DEADLINE_S)
    threads = set()
    for _ in range(5):
        work = Work()
        thread.add(work)
        assert work.turns.acquire(timeout=DEADLINE_S)
        threads |= set(running())
        thread.discard(work)
    assert len(threads) == 1


def test_it_is_kept_for_less_than_a_second() -> None:
    """So that a second after the last one closed nothing is left."""
    assert 0.0 < shared_thread.KEEP_S < 0.8


def test_a_part_that_comes_while_it_ends_is_worked_for(thread: Thread, monkeypatch: pytest.MonkeyPatch) -> None:
    """By it or by the next thread: none is lost between the two."""
    monkeypatch.setattr(shared_thread, "KEEP_S", 0.0)

    def come_and_go() -> None:
        for _ in range(200):
            work = Work()
            thread.add(work)
            worked.append(work.turns.acquire(timeout=DEADLINE_S))
            thread.discard(work)

    worked: list[bool] = []
    comers = [threading.Thread(target=come_and_go) for _ in range(3)]
    for each in comers:
        each.start()
    for each in comers:
        each.join()
    assert worked == [True] * 600


def test_a_thread_that_cannot_start_is_told_and_leaves_no_part(thread: Thread, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next one may."""

    def broken(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    work = Work()
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", broken)
        with pytest.raises(RuntimeError, match="can't start new thread"):
            thread.add(work)
    assert not thread.has(work)
    thread.add(work)
    assert work.turns.acquire(timeout=DEADLINE_S)


def test_its_own_fault_is_told_to_all_parts_and_it_goes_on(thread: Thread) -> None:
    """With those that come later."""
    work, later = Work(), Work()
    thread.broken = True
    thread.add(work)
    assert becomes(lambda: bool(work.faults))
    assert [str(error) for error in work.faults] == ["no"]
    assert becomes(lambda: not thread.has(work))
    thread.broken = False
    thread.add(later)
    assert later.turns.acquire(timeout=DEADLINE_S)


def test_it_is_ended_at_once_where_nobody_has_work_for_it(thread: Thread, monkeypatch: pytest.MonkeyPatch) -> None:
    """And only there."""
    monkeypatch.setattr(shared_thread, "KEEP_S", 3600.0)
    work = Work()
    thread.add(work)
    thread.end_if_idle(0.01)
    during = len(running())
    thread.discard(work)
    thread.end_if_idle(DEADLINE_S)
    assert (during, running()) == (1, [])


def test_it_runs_in_a_context_of_nobody_s(thread: Thread) -> None:
    """What it does is no session's, whoever starts it."""
    variable: ContextVar[str] = ContextVar("variable", default="unbound")
    seen: list[str] = []

    class Asks(Work):
        def failed(self, error: Exception) -> None:
            seen.append(variable.get())

    variable.set("a session's")
    thread.broken = True
    thread.add(Asks())
    assert becomes(lambda: bool(seen))
    assert seen == ["unbound"]


@pytest.mark.skipif(sys.platform == "win32", reason="it has no fork")
def test_a_forked_child_starts_afresh() -> None:
    """Even if another thread held the lock at the fork; the parent's parts are not the child's."""
    code = """
        import os, threading
        from openrtc_introspect_core import Introspector
        from openrtc_introspect_core._service.service_thread import SERVICE_THREAD
        from openrtc_introspect_core._blocks.watchdog import WATCHDOG_THREAD
        import asyncio

        async def main(forks):
            # What a busy machine does to the loop is no block here, and is not logged.
            async with Introspector(socket_path=False, slow_session_threshold_ms=60_000) as introspector:
                if not forks:
                    with introspector.session("job", agent_name="a"):
                        await asyncio.sleep(0.2)
                    names = sorted(thread.name for thread in threading.enumerate() if "openrtc" in thread.name)
                    assert names == ["openrtc-introspect", "openrtc-introspect-watchdog"], names
                    return 0
                held, release = threading.Event(), threading.Event()

                def hold():
                    with SERVICE_THREAD._lock, WATCHDOG_THREAD._lock:
                        held.set()
                        release.wait(30)

                holder = threading.Thread(target=hold)
                holder.start()
                held.wait(30)
                pid = os.fork()
                if pid == 0:
                    code = 9
                    try:
                        assert not SERVICE_THREAD._parts and not WATCHDOG_THREAD._parts
                        introspector.close()
                        asyncio._set_running_loop(None)
                        code = asyncio.run(main(False))
                    finally:
                        os._exit(code)
                release.set()
                holder.join()
                assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
                assert SERVICE_THREAD._parts and WATCHDOG_THREAD._parts
            print("over")

        asyncio.run(main(True))
    """
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", textwrap.dedent(code)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "over\n", "")


@pytest.mark.parametrize("closed", [True, False])
def test_the_interpreter_ends_quietly_while_it_is_kept(closed: bool, tmp_path: object) -> None:
    """Closed or not, and with every warning shown."""
    code = f"""
        import asyncio
        from openrtc_introspect_core import Introspector

        async def main():
            # What a busy machine does to the loop is no block here, and is not logged.
            introspector = Introspector(socket_path={str(tmp_path)!r} + "/w.sock", slow_session_threshold_ms=60_000)
            introspector.attach()
            await asyncio.sleep(0.1)
            if {closed}:
                introspector.close()

        asyncio.run(main())
    """
    command = [sys.executable, "-W", "error", "-c", textwrap.dedent(code)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
