"""Sessions as processes: starting and ending them, and how they ended.

Processes are spawned, not forked, so they have none of the pool's threads, sockets and files. Starting one takes a
while and is done on a thread. If the pool is killed, its processes end by themselves; see child.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import os
import pickle
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from pathlib import Path
from types import TracebackType
from typing import Any

import anyio
import anyio.to_thread
import msgspec
import psutil

from .._base.errors import ArgumentError, SessionFailed
from .._base.log import QueuedLogger
from .._base.units import MIB
from .._loops.asyncio_names import kind_of
from . import child
from .child import HELD_BACK, Order, Outcome
from .hosted import Entrypoint, PoolSession, check_entrypoint
from .process_report import ProcessReport

logger = QueuedLogger("openrtc.pool")

NOTE = "process mode: each session is a process of its own, so introspection is skipped; cpu and mem are its process's"

_POLL_S = 1.0
_REAP_S = 0.002


class InProcesses:
    """A place that runs each session in a process of its own.

    report: the worker's socket and notes. None: introspection is off.
    grace_s: seconds that a cancelled session has before its process is killed.

    Raises ArgumentError on platforms without POSIX signals.
    """

    def __init__(self, report: ProcessReport | None, grace_s: float) -> None:
        if not hasattr(signal, "pthread_sigmask"):
            raise ArgumentError(
                "isolation='process' needs POSIX signals, which this platform lacks: use isolation='coroutine'"
            )
        self._report = report
        self._grace_s = grace_s
        self._context = multiprocessing.get_context("spawn")
        self._running: dict[str, int] = {}
        """Process ids by session id."""

    async def __aenter__(self) -> InProcesses:
        self._starting = anyio.CapacityLimiter(1)
        if self._report is not None:
            self._report.open(kind_here())
            self._report.note("isolation", NOTE)
            logger.warning("pool %s: %s", self._report.name, NOTE)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._report is not None:
            await self._report.aclose()

    @property
    def socket_path(self) -> Path | None:
        return self._report.socket_path if self._report is not None else None

    def check(self, agent: str, entrypoint: Entrypoint) -> None:
        check_entrypoint(agent, entrypoint)
        problem = ""
        try:
            pickle.dumps(entrypoint)
        except Exception as error:
            problem = f": {error}"
        main: Any = sys.modules["__main__"]
        if getattr(entrypoint, "__module__", None) == "__main__" and not (
            getattr(main, "__file__", None) or getattr(main, "__spec__", None)
        ):
            problem = ": its main module is no file"
        if problem:
            raise ArgumentError(
                f"entrypoint of agent {agent!r} must be a function at the top of a module for isolation='process', "
                f"so that another process can import it; got {entrypoint!r}{problem}"
            )

    def check_metadata(self, metadata: Mapping[str, Any]) -> None:
        try:
            pickle.dumps(metadata)
        except Exception as error:
            raise ArgumentError(f"metadata must be picklable for isolation='process': {error}") from None

    def rss_mb(self) -> float:
        """Return the RSS of this process and all sessions', in MB.

        Shared memory counts in each process.
        """
        total = 0.0
        for pid in (os.getpid(), *self._running.values()):
            with contextlib.suppress(psutil.Error):
                total += psutil.Process(pid).memory_info().rss / MIB
        return total

    def drain(self) -> None:
        if self._report is not None:
            self._report.draining = True

    def note(self, topic: str, text: str | None) -> None:
        if self._report is not None:
            self._report.note(topic, text)

    async def run(self, session: PoolSession, entrypoint: Entrypoint) -> None:
        order = Order(
            pickle.dumps(entrypoint),
            session.session_id,
            session.agent_name,
            session.metadata,
            kind_here(),
            self._grace_s,
        )
        ours, theirs = self._context.Pipe(duplex=False)
        process = self._context.Process(
            target=child.main, args=(order, theirs), name=f"{session.agent_name} {session.session_id}"
        )
        with ours, self._accounted(session) as started:
            with theirs:
                await anyio.to_thread.run_sync(_start, process, limiter=self._starting)
            try:
                started(process.pid or 0)
                try:
                    await _ended(process)
                except anyio.get_cancelled_exc_class():
                    with anyio.CancelScope(shield=True):
                        await self._end(session, process)
                    _raise_reported(_outcome(ours))
                    raise
                _check_end(process, _outcome(ours))
            finally:
                if process.exitcode is None:  # starting or waiting has failed: the process must not outlive it
                    process.kill()
                    process.join()
                process.close()

    @contextlib.contextmanager
    def _accounted(self, session: PoolSession) -> Iterator[Callable[[int], None]]:
        """Report the session while the `with` block lasts.

        Yields a function that takes its process id.
        """
        with contextlib.ExitStack() as stack:
            hosted = None
            if self._report is not None:
                hosted = stack.enter_context(
                    self._report.session(session.session_id, session.agent_name, session.metadata)
                )

            def started(pid: int) -> None:
                self._running[session.session_id] = pid
                if hosted is not None:
                    hosted.attach(pid)

            try:
                yield started
            finally:
                self._running.pop(session.session_id, None)

    async def _end(self, session: PoolSession, process: SpawnProcess) -> None:
        process.terminate()
        with anyio.move_on_after(self._grace_s):
            await _ended(process)
            return
        logger.warning(
            "session %s of agent %s did not end within %g s of SIGTERM: its process is killed",
            session.session_id,
            session.agent_name,
            self._grace_s,
        )
        with contextlib.suppress(ProcessLookupError, PermissionError):  # it may not lead its group so early
            os.killpg(process.pid or 0, signal.SIGKILL)
        process.kill()
        await _ended(process)


def kind_here() -> str:
    """Return the kind of the running loop: "asyncio", "uvloop", "trio", or the package that runs another loop.

    A session's process uses the same one if it is one of these three, else asyncio's own.
    """
    try:
        return kind_of(asyncio.get_running_loop())
    except RuntimeError:  # no asyncio loop runs, and anyio knows only one other
        return "trio"


def _start(process: SpawnProcess) -> None:
    # All spawned processes share the resource tracker; starting it would undo the mask below.
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, HELD_BACK)
    try:
        process.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


async def _ended(process: SpawnProcess) -> None:
    """Wait until the process has ended and is reaped."""
    while process.exitcode is None:
        with anyio.move_on_after(_POLL_S) as waiting:  # the pipe may be open in processes that it started
            await anyio.wait_readable(process.sentinel)
        if not waiting.cancelled_caught and process.exitcode is None:
            await anyio.sleep(_REAP_S)


def _outcome(pipe: Connection) -> Outcome | None:
    """Return what the process reported before it ended. None: nothing."""
    try:
        return msgspec.json.decode(pipe.recv_bytes(), type=Outcome) if pipe.poll() else None
    except (EOFError, OSError, msgspec.MsgspecError):
        return None


def _raise_reported(outcome: Outcome | None) -> None:
    if outcome is not None and outcome.state == "errored":
        raise SessionFailed(outcome.error, traceback=outcome.traceback)


def _check_end(process: SpawnProcess, outcome: Outcome | None) -> None:
    """Raise SessionFailed unless the session ended without an error."""
    _raise_reported(outcome)
    code = process.exitcode or 0
    if outcome is None and code > 0:
        raise SessionFailed(f"exit code {code}", exit_code=code)
    if outcome is None and code < 0:
        try:
            name = signal.Signals(-code).name
        except ValueError:
            name = f"signal {-code}"
        raise SessionFailed(f"killed by {name}", exit_code=code)
