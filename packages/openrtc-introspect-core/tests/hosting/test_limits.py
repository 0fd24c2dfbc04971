"""What ends a pool before its sessions do: memory, and signals; real signals go to real processes."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from openrtc_introspect_core import AgentPool, PoolSession, Snapshot, StateError, read_snapshot
from openrtc_introspect_core._base.log import flush

Run = Callable[[Coroutine[Any, Any, Any]], Any]
WITHIN_S = 60.0


class Memory:
    """A pool that has one endless session, and as much memory as is said."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **arguments: Any) -> None:
        # Blocks that a busy machine causes do not count.
        self.pool = AgentPool(introspection={"socket_path": False}, slow_session_threshold_ms=60_000, **arguments)
        self.pool.add("agent", self._work, sessions=1)
        self.used = 10.0
        monkeypatch.setattr(self.pool._place, "rss_mb", lambda: self.used)

    async def _work(self, session: PoolSession) -> None:
        await asyncio.sleep(30)

    def snapshot(self) -> Snapshot:
        assert self.pool.introspector is not None
        return self.pool.introspector.snapshot()


def test_at_its_memory_limit_it_drains(
    run_virtually: Run, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """No new sessions, those that run finish, and `serve` returns; log, note and status tell why."""
    memory = Memory(monkeypatch, memory_limit_mb=100)

    async def main() -> Any:
        serving = asyncio.create_task(memory.pool.serve())
        await asyncio.sleep(5)
        memory.used = 100.0
        await asyncio.sleep(2)
        with pytest.raises(StateError, match="takes no new sessions"):
            await memory.pool.start_session("agent")
        snapshot = memory.snapshot()
        await serving
        return snapshot

    snapshot = run_virtually(main())
    assert (snapshot.worker.draining, snapshot.sessions[0].status) == (True, "draining")
    assert snapshot.worker.notes == ["draining: memory reached 100 MB, the limit is 100"]
    assert flush(WITHIN_S)
    assert caplog.messages == ["pool worker drains: RSS is 100 MB, memory_limit_mb is 100; it waits for 1 session"]
    assert (memory.pool.started, memory.pool.failed, memory.pool.active) == (1, 0, 0)


def test_at_80_percent_it_warns_once(
    run_virtually: Run, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """One log line however often it comes back there; the note stands for as long as it is true."""
    memory = Memory(monkeypatch, memory_limit_mb=100)

    async def main() -> Any:
        serving = asyncio.create_task(memory.pool.serve())
        notes = []
        for used in (79.9, 80.0, 85.0, 70.0, 90.0):
            memory.used = used
            await asyncio.sleep(1.5)
            notes.append(len(memory.snapshot().worker.notes))
        memory.pool.drain()
        await serving
        return notes

    assert run_virtually(main()) == [0, 1, 1, 0, 1]
    assert flush(WITHIN_S)
    assert caplog.messages == [
        "pool worker: RSS is 80 MB, 80 % of memory_limit_mb, which is 100: it drains at the limit"
    ]


def test_the_memory_that_counts_is_the_process_s_own(run_virtually: Run, caplog: pytest.LogCaptureFixture) -> None:
    """A limit that no process can keep drains at once."""
    pool = AgentPool(memory_limit_mb=1, introspection={"socket_path": False})

    async def work(session: PoolSession) -> None:
        await asyncio.sleep(1)

    pool.add("agent", work, sessions=1)
    run_virtually(pool.serve())
    assert pool.started == 1
    assert flush(WITHIN_S)
    assert [message for message in caplog.messages if "memory_limit_mb is 1;" in message]


# --- signals -------------------------------------------------------------------------------------

POOL = """
    import asyncio, os, sys
    import anyio
    from openrtc_introspect_core import AgentPool

    async def patient(session):
        print("started", flush=True)
        try:
            while not os.path.exists(sys.argv[1]):
                await asyncio.sleep(0.01)
        finally:
            print("cleaned up", flush=True)

    async def stubborn(session):
        print("started", flush=True)
        with anyio.CancelScope(shield=True):
            await asyncio.sleep(3600)

    pool = AgentPool(name="signalled", slow_session_threshold_ms=60_000)  # a busy machine's blocks are not looked at
    pool.add("agent", globals()[sys.argv[2]], sessions=2)
    pool.run()
    print("returned", pool.failed)
"""


@dataclass
class Running:
    """A pool in a process of its own, whose two sessions end once the flag's file exists."""

    process: subprocess.Popen[str]
    socket: Path
    flag: Path

    def kill(self, number: signal.Signals) -> None:
        os.kill(self.process.pid, number)

    def said(self) -> str:
        """Its next log line."""
        assert self.process.stderr is not None
        return self.process.stderr.readline()

    def end(self) -> tuple[int, str, str]:
        """Exit code, output and what else it logged."""
        output, errors = self.process.communicate(timeout=WITHIN_S)
        assert not self.socket.exists()
        return self.process.returncode, output, errors


@pytest.fixture
def start() -> Iterator[Callable[..., Running]]:
    with ExitStack() as stack:

        def start(agent: str = "patient") -> Running:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="rt")))
            flag = folder / "go"
            process = subprocess.Popen(
                [sys.executable, "-c", textwrap.dedent(POOL), str(flag), agent],
                env={**os.environ, "OPENRTC_RUNTIME_DIR": str(folder)},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            stack.enter_context(process)
            stack.callback(process.kill)
            assert process.stdout is not None
            assert [process.stdout.readline() for _ in range(2)] == ["started\n"] * 2
            return Running(process, folder / f"signalled-{process.pid}.sock", flag)

        yield start


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_drains(number: signal.Signals, start: Callable[..., Running]) -> None:
    """The log says for how many it waits and what another signal does; those finish; `run` returns as usual."""
    running = start()
    assert not read_snapshot(running.socket).worker.draining
    running.kill(number)
    again = " (Ctrl-C again)" if number == signal.SIGINT else ""
    assert running.said() == (
        f"pool signalled drains on {number.name}: it waits for 2 sessions to end; "
        f"a second signal{again} cancels what runs\n"
    )
    deadline = time.monotonic() + WITHIN_S
    while {row.status for row in read_snapshot(running.socket).sessions} != {"draining"}:
        assert time.monotonic() < deadline
    running.flag.touch()
    assert running.end() == (0, "cleaned up\n" * 2 + "returned 0\n", "")


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_the_second_signal_ends_it_at_once(number: signal.Signals, code: int, start: Callable[..., Running]) -> None:
    """Sessions are cancelled and clean up, the socket goes, and the exit code names the signal."""
    running = start()
    running.kill(signal.SIGTERM)
    assert "drains on SIGTERM" in running.said()
    running.kill(number)
    assert running.end() == (
        code,
        "cleaned up\n" * 2,
        f"pool signalled stops on {number.name}, a second signal: cancels 2 sessions\n",
    )


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_third_signal_waits_for_nobody(number: signal.Signals, start: Callable[..., Running]) -> None:
    """Sessions that resist cancellation cannot keep the process alive."""
    running = start("stubborn")
    for said in ("drains on", "a second signal: cancels 2 sessions"):
        running.kill(number)
        assert said in running.said()
    deadline = time.monotonic() + WITHIN_S
    while running.process.poll() is None:  # it may still be about to give the signal back
        assert time.monotonic() < deadline
        running.kill(number)
        time.sleep(0.05)
    assert running.process.returncode == -number


def test_afterwards_signals_do_what_they_did_before(run: Run) -> None:
    """Whoever goes on after the pool is interrupted as ever."""

    async def main() -> Any:
        pool = AgentPool(enable_introspection=False)
        before = signal.getsignal(signal.SIGINT)

        async def work(session: PoolSession) -> None:
            signal.raise_signal(signal.SIGTERM)
            await asyncio.sleep(0.01)
            signal.raise_signal(signal.SIGTERM)
            await asyncio.sleep(3600)

        pool.add("agent", work, sessions=1)
        await pool.serve(handle_signals=True)
        return pool.ended_by, signal.getsignal(signal.SIGINT) == before, signal.getsignal(signal.SIGTERM)

    assert run(main()) == (signal.SIGTERM, True, signal.SIG_DFL)


def test_signals_need_the_main_thread() -> None:
    """Elsewhere the error says what to do."""
    problems: list[Exception] = []

    def elsewhere() -> None:
        try:
            AgentPool(enable_introspection=False).run()
        except StateError as error:
            problems.append(error)

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join(WITHIN_S)
    assert [str(problem) for problem in problems] == [
        "signals reach the main thread only: serve there, or without handle_signals"
    ]
