"""The Introspector: attaches to the running loop, and puts everything together."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import time
from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from pathlib import Path
from types import TracebackType
from typing import Any

from . import _fork
from ._asyncio import AsyncioHook, loop_to_attach
from ._blocks import BlockLog
from ._clock import Clock, WallTime, perf_counter
from ._collections import Collections
from ._detector import Detector
from ._errors import ArgumentError, StateError
from ._ledger import Ledger, Overrun
from ._meter import step_cost
from ._report import MARK_INTERVAL_S, Reporter
from ._sampler import Sampler
from ._scope import SessionScope
from ._sessions import (
    Binding,
    SessionTable,
    check_metadata,
    check_text,
)
from ._settings import Settings, SocketPath
from ._stacks import Places
from ._tasks import tasks_of
from ._usage import ThreadUsage
from ._watchdog import Watchdog
from .wire._endpoint import file_identity, open_listener, sockets_available
from .wire._messages import (
    Block,
    CpuMethod,
    MemoryMethod,
    Snapshot,
    TaskInfo,
)

logger = logging.getLogger("openrtc.introspect")

_CLOSE_WITHIN_S = 2.0


class Introspector:
    """Measures the sessions of one event loop, from inside, and serves what it knows on a private socket.

        async with Introspector() as introspector:
            with introspector.session("job-c1d550", agent_name="restaurant", metadata={"tenant": "acme"}):
                await handle_call()

    While it is attached the loop runs the step meter (and, on uvloop, a heartbeat while sessions
    live); all else happens on a daemon thread. On exit nothing is left: no thread, no socket, no
    task factory. No error of its own reaches a session: a probe that fails is switched off, logged
    once, and named in the snapshot's notes.

    cpu: "exact" times every task step; "sampled" looks 1 / `sample_interval_s` times a second who
        runs (statistical, see docs/benchmarks.md for its bias); "off" does neither.
    memory: "share": RSS / live sessions, each `memory_interval_s` seconds.
    slow_session_threshold_ms: a block is a span of more than this in which the loop ran nothing else.
    slow_status_s: seconds that a session shows as slow after its block.
    memory_limit_mb, max_sessions: shown beside what is used, 0 for none. AgentPool keeps them.
    socket_path: None: in the user's runtime directory, under the worker's name and pid; False: serve
        no socket; a path: there. Its directory must be the user's own.
    stacks: False: no watchdog looks at the loop's frames; blocks then have no line, and fewer causes.
    project_roots: folders of the user's own code, which a block's line is looked for in; None: all code
        but the standard library and installed packages.
    clock: seconds that never go back; for tests. With a clock of your own the watchdog does not run.

    Raises ArgumentError for a value outside of what it accepts; on entering, StateError where it was
    started before or no loop is running, and EndpointError where the socket cannot be made safely.
    """

    def __init__(
        self,
        *,
        name: str = "worker",
        cpu: CpuMethod = "exact",
        memory: MemoryMethod = "share",
        slow_session_threshold_ms: float = 50.0,
        slow_status_s: float = 5.0,
        memory_interval_s: float = 1.0,
        sample_interval_s: float = 0.01,
        memory_limit_mb: float = 0.0,
        max_sessions: int = 0,
        socket_path: SocketPath = None,
        stacks: bool = True,
        project_roots: Sequence[str | os.PathLike[str]] | None = None,
        clock: Clock = perf_counter,
    ) -> None:
        self._settings = Settings(
            name=name,
            cpu=cpu,
            memory=memory,
            slow_session_threshold_ms=slow_session_threshold_ms,
            slow_status_s=slow_status_s,
            memory_interval_s=memory_interval_s,
            sample_interval_s=sample_interval_s,
            memory_limit_mb=memory_limit_mb,
            max_sessions=max_sessions,
            socket_path=socket_path,
            stacks=stacks,
            project_roots=project_roots,
        )
        self._clock = clock
        self._wall = WallTime(clock)
        self._binding: Binding = ContextVar(f"openrtc_session_of_{name}")
        self._sessions = SessionTable()
        self._blocks = BlockLog(self._wall, self._settings.slow_status_s)
        self._ledger = Ledger(self._binding, clock, self._settings.threshold_s, self._step_overran)
        self._places = Places(self._settings.project_roots)
        self._detector: Detector | None = None
        self._watchdog: Watchdog | None = None
        self._usage: ThreadUsage | None = None
        self._collections: Collections | None = None
        self._notes: dict[str, str] = {}
        self._hook: AsyncioHook | None = None
        self._reporter: Reporter | None = None
        self._service: Any = None
        self._sampler: Sampler | None = None
        self._socket: Any = None
        self._socket_path: Path | None = None
        self._socket_file: tuple[int, int] | None = None
        self._closed = False

    # --- starting and ending ---------------------------------------------------------------------

    async def __aenter__(self) -> Introspector:
        self.attach()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    def attach(self, loop: asyncio.AbstractEventLoop | None = None) -> None:
        """Attaches to `loop`, by default the running one; `async with` does. From the loop's own thread.

        Raises StateError where this introspector was attached before, the loop is closed, or there
        is none; EndpointError. Nothing is left half-started.
        """
        if self._hook is not None:
            state = "closed" if self._closed else "attached already"
            raise StateError(f"introspector {self.name!r} is {state}: make a new one to start again")
        hook = AsyncioHook(
            loop_to_attach(loop),
            self._ledger,
            meter=self._settings.cpu == "exact",
            on_stall=self._loop_stalled,
            on_fault=lambda problem: self._fault("tagging", problem),
        )
        # Here, because they load psutil and anyio, which whoever only imports the package need not wait for.
        import psutil

        from ._host import HostVitals
        from ._memory import ShareOfRss
        from ._service import Served, Service, hello

        if self._settings.socket_path is None and not sockets_available():
            self._fault("socket", "this platform has no Unix sockets: sessions are metered, and nothing is served")
        elif self._settings.socket_path is not False:
            self._socket, self._socket_path = open_listener(self.name, self._settings.path)
            self._socket_file = file_identity(self._socket_path)
        try:
            process = psutil.Process()
            if self._settings.cpu == "sampled":
                self._sampler = Sampler(
                    hook,
                    self._clock,
                    self._settings.sample_interval_s,
                    lambda problem: self._fault("sampler", problem),
                )
            usage = self._usage = ThreadUsage(self._clock, hook.thread_id, threading.get_native_id())
            self._collections = Collections(self._ledger, hook.thread_id)
            if self._settings.stacks:
                self._watchdog = Watchdog(
                    hook, self._ledger, self._clock, usage, lambda problem: self._fault("watchdog", problem)
                )
                hook.on_wake = self._watchdog.wake
            self._detector = Detector(
                hook=hook,
                ledger=self._ledger,
                log=self._blocks,
                wall=self._wall,
                places=self._places,
                usage=usage,
                collections=self._collections,
                watchdog=self._watchdog,
                sampler=self._sampler,
            )
            hook.attach()
            self._collections.attach()
            reporter = self._reporter = Reporter(
                settings=self._settings,
                wall=self._wall,
                sessions=self._sessions,
                ledger=self._ledger,
                hook=hook,
                blocks=self._blocks,
                detector=self._detector,
                usage=usage,
                memory=ShareOfRss(process),
                host=HostVitals(process),
                sampler=self._sampler,
                watchdog=self._watchdog,
                notes=self._current_notes,
            )
            reporter.memory.sample(self._clock(), ())
            self._service = Service(
                listener=self._socket,
                source=Served(reporter, self._places),
                hello=hello(self.name, reporter.epoch),
                clock=self._clock,
                interval_s=min(MARK_INTERVAL_S, self._settings.memory_interval_s),
                idle=lambda: not self._sessions.live,
                tick=self._tick,
                on_fault=lambda probe, error: self._fault(probe, f"{probe} is switched off: {error!r}"),
            )
            self._hook = hook
            for thread in (self._sampler, self._watchdog, self._service):
                # Real ticks on a clock that is not the real one would see what is not there.
                if thread is not None and (thread is not self._watchdog or self._clock is perf_counter):
                    thread.start()
        except BaseException:
            self._detach(hook)
            for helper in (self._sampler, self._watchdog):
                if helper is not None:
                    helper.stop()
            self._hook = self._reporter = self._service = self._sampler = self._watchdog = None
            self._close_usage()
            self._close_socket()
            raise
        _fork.attached.add(self)

    def close(self) -> None:
        """Detaches and leaves no trace. Waits for its threads, at most two seconds. Idempotent."""
        threads = self._begin_closing()
        for thread in threads:
            thread.join(_CLOSE_WITHIN_S)
        self._close_usage()

    async def aclose(self) -> None:
        """As `close`, without holding the loop meanwhile."""
        threads = self._begin_closing()
        if threads:  # in a forked child there are none, and no loop is known to run
            import anyio

            deadline = time.monotonic() + _CLOSE_WITHIN_S
            with anyio.CancelScope(shield=True):
                while any(t.is_alive() for t in threads) and time.monotonic() < deadline:  # noqa: ASYNC110
                    await anyio.sleep(0.001)  # threads end without telling a loop
        self._close_usage()

    def _begin_closing(self) -> list[Any]:
        if self._hook is None or self._closed:
            return []
        self._closed = True
        _fork.attached.discard(self)
        self._detach(self._hook)
        threads = [t for t in (self._service, self._sampler, self._watchdog) if t is not None]
        for thread in threads:
            thread.stop()
        self._close_socket()
        return threads

    def _detach(self, hook: AsyncioHook) -> None:
        hook.detach()
        if self._collections is not None:
            self._collections.detach()

    def _close_usage(self) -> None:
        if self._usage is not None:
            self._usage.close()

    def _close_socket(self) -> None:
        if self._socket_path is not None and self._socket_file == file_identity(self._socket_path):
            self._socket_path.unlink(missing_ok=True)
        if self._socket is not None and self._service is None:  # the service closes its own
            self._socket.close()
        self._socket_path = None

    def abandon_after_fork(self) -> None:
        """In a forked child there are no threads, and the socket is the parent's."""
        self._closed = True
        if self._hook is not None:
            self._detach(self._hook)
        if self._socket is not None:
            self._socket.close()

    # --- sessions --------------------------------------------------------------------------------

    @property
    def name(self) -> str:
        return self._settings.name

    @property
    def socket_path(self) -> Path | None:
        """Where it serves; None before and after, and where it serves nowhere."""
        return self._socket_path

    @property
    def draining(self) -> bool:
        """Whether the host takes no new sessions. Set by the host; shown, nothing more."""
        return self._reporter is not None and self._reporter.draining

    @draining.setter
    def draining(self, value: bool) -> None:
        if self._reporter is not None:
            self._reporter.draining = value

    def session(self, session_id: str, *, agent_name: str, metadata: Mapping[str, Any] | None = None) -> SessionScope:
        """A context manager: what runs inside, and every task created inside, is this session's.

        session_id: 1–256 characters, not that of a live session. agent_name: 1–256 characters.
        metadata: only `metadata["tenant"]`, a str, is ever shown or sent.
        Raises ArgumentError, and StateError where the introspector is not attached.
        """
        check_text("session_id", session_id)
        check_text("agent_name", agent_name)
        self._sessions.check_free(session_id)
        self._attached_hook()
        return SessionScope(self, session_id, agent_name, check_metadata(metadata))

    def _attached_hook(self) -> AsyncioHook:
        if self._hook is None or self._closed:
            state = "closed" if self._closed else "not started"
            raise StateError(
                f"introspector {self.name!r} is {state}: its sessions go inside `async with Introspector(...)`"
            )
        return self._hook

    def _sessions_live(self, some: bool) -> None:
        if self._hook is not None:
            self._hook.sessions_live(some)
        for thread in (self._sampler, self._watchdog):
            if thread is not None:
                thread.sessions_live(some)

    # --- reading ---------------------------------------------------------------------------------

    def snapshot(self) -> Snapshot:
        """Everything now. From any thread. Raises StateError before it was attached."""
        if self._reporter is None:
            raise StateError(f"introspector {self.name!r} is not started: use `async with Introspector(...)`")
        return self._reporter.snapshot(breathe=False)

    def blocks(self, since: int = 0) -> list[Block]:
        """The last 256 blocks whose number is above `since`, oldest first. From any thread."""
        return self._blocks.since(since)

    def tasks(self, session_id: str) -> list[TaskInfo]:
        """A live session's tasks by name, at most 500: where each waits, and which waits for which. From any thread.

        Raises ArgumentError where no live session has this id.
        """
        session = self._sessions.live.get(session_id)
        if session is None:
            raise ArgumentError(f"no live session has the id {session_id!r}")
        return tasks_of(session, self._attached_hook(), self._places)[0]

    # --- what the probes report ------------------------------------------------------------------

    def _step_overran(self, overrun: Overrun) -> None:
        if self._detector is None or self._closed or "blocks" in self._notes:
            return
        try:
            self._detector.step_overran(overrun)
        except Exception as error:
            self._fault("blocks", f"a block could not be recorded: {error!r}")

    def _loop_stalled(self, start: float, end: float) -> None:
        if self._detector is None or self._closed or "blocks" in self._notes:
            return
        try:
            self._detector.loop_stalled(start, end)
        except Exception as error:
            self._fault("blocks", f"a block could not be recorded: {error!r}")

    def _tick(self, now: float) -> None:
        reporter = self._reporter
        if reporter is None:
            return
        if not reporter.costs.step_s and self._settings.cpu == "exact":
            reporter.costs.step_s = step_cost(lambda: Ledger(ContextVar("calibration"), self._clock, float("inf")))
        reporter.costs.thread_s = self._service.cpu_s
        reporter.tick(now)
        if self._hook is not None and self._hook.replaced_factory():
            self._fault(
                "task factory",
                "the task factory was replaced while introspection runs: unless the new one calls the old, "
                "tasks created since are not seen",
            )

    def _fault(self, probe: str, problem: str) -> None:
        if probe not in self._notes:
            self._notes[probe] = problem
            logger.warning("introspection of %s: %s", self.name, problem)

    def _current_notes(self) -> list[str]:
        return list(self._notes.values())
