"""The Introspector: attaches to event loops, and puts everything together.

Long, because each part that there is, is made, handed to the others and ended here, a few lines for each; what they do
is theirs.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from . import _fork
from ._attached import AttachedLoop
from ._blocks import BlockLog
from ._budget import NOT_MEASURED, STEP_COSTS, Budget
from ._clock import Clock, WallTime, perf_counter
from ._collections import Collections
from ._errors import ArgumentError, StateError
from ._failures import Failures
from ._gil import BLIND_TO, has_gil
from ._ledger import Ledger
from ._loop_times import MARK_INTERVAL_S
from ._notes import Notes
from ._report import Reporter
from ._running_loop import Loop, loop_to_attach, told
from ._sampler import Sampler
from ._scope import SessionScope
from ._service import Served, Service, hello, server_class
from ._serving import OwnSocket, until_ended, wait_until_ended
from ._sessions import (
    Binding,
    SessionTable,
    check_metadata,
    check_text,
)
from ._settings import Settings, SocketPath
from ._stacks import Places
from ._tasks import tasks_of
from ._threadwork import ThreadWork
from ._usage import HostPressure
from ._watchdog import Watchdog
from .wire._endpoint import sockets_available
from .wire._messages import (
    Block,
    CpuMethod,
    MemoryMethod,
    Snapshot,
    TaskInfo,
)

if TYPE_CHECKING:
    from ._heap import Heap


class Introspector:
    """Measures the sessions of event loops, from inside, and serves what it knows on a private socket.

        async with Introspector() as introspector:
            with introspector.session("job-c1d550", agent_name="restaurant", metadata={"tenant": "acme"}):
                await handle_call()

    A process with a loop in each of several threads has one introspector for all of them: it is started
    on one loop, and attached to the others with `attach()`, each from its own thread.

    While it is attached a loop runs the step meter (and, on uvloop, a heartbeat while sessions
    live); all else happens on daemon threads, which all introspectors of the process share. On exit
    nothing is left: no socket, no changed method and, within a second, no thread. No error of its own
    reaches a session: a probe that fails is switched off, logged once, and named in the snapshot's notes.

    cpu: "exact" times every task step; "sampled" looks 1 / `sample_interval_s` times a second who
        runs (statistical, see docs/benchmarks.md for its bias); "off" does neither.
    memory: "share": RSS / live sessions, each `memory_interval_s` seconds; "heap" and "traced" add what
        each session's own steps have allocated less what they freed, by glibc's account or Python's
        (docs/measuring.md says what each cannot see). They need cpu="exact".
    slow_session_threshold_ms: a block is a span of more than this in which the loop ran nothing else.
    slow_status_s: seconds that a session shows as slow after its block.
    budget_pct: what timing steps may cost, percent of one core, 0 for no limit. Above it one step in so many
        is timed, drawn at random, and counts for as many: sums are then estimates without bias, and the
        snapshot says so. Not where memory is booked with each step.
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
        budget_pct: float = 1.0,
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
            budget_pct=budget_pct,
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
        self._failures = Failures()
        self._blocks = BlockLog(self._wall, self._settings.slow_status_s)
        self._places = Places(self._settings.project_roots)
        self._pressure = HostPressure()
        self._notes = Notes(name)
        self._loops: list[AttachedLoop] = []
        """Those attached now, the first one first."""
        self._gone: deque[tuple[float, AttachedLoop]] = deque()
        """(when, loop): those let go of lately, whose threads' usage someone may be reading yet."""
        self._step_costs = STEP_COSTS if clock is perf_counter else {}
        """By kind of loop, as far as they were measured."""
        self._attached = 0
        """How many there have been."""
        self._collections = Collections(clock, self._ledger_of, partial(self._notes.add, "collections"))
        self._thread_work = ThreadWork(clock, partial(self._notes.add, "threads"))
        self._heap: Heap | None = None
        self._threads: list[Watchdog | Sampler] = []
        self._sampler: Sampler | None = None
        self._watchdog: Watchdog | None = None
        self._reporter: Reporter | None = None
        self._service: Service | None = None
        self._socket: OwnSocket | None = None
        self._closed = False

    # --- starting and ending ---------------------------------------------------------------------

    async def __aenter__(self) -> Introspector:
        if self._reporter is not None:
            state = "closed" if self._closed else "attached already"
            raise StateError(
                f"introspector {self.name!r} is {state}: make a new one to start again; "
                "`attach()` adds another loop to one that runs"
            )
        self.attach()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    def attach(self, loop: Loop | None = None) -> None:
        """Attaches to `loop`, by default the running one; `async with` does. From the loop's own thread.

        The first time starts everything; again, from another loop, adds that one. A loop that is closed,
        or whose thread has ended, is let go of by itself within two seconds. What runs on a loop that is
        not attached is not measured.

        Raises StateError where this introspector is attached to the loop already or was closed, the
        loop is closed, or there is none; EndpointError. Nothing is left half-started.
        """
        if self._closed:
            raise StateError(f"introspector {self.name!r} is closed: make a new one to start again")
        target = loop_to_attach(loop)
        with self._sessions.lock:
            if any(each.hook.is_loop(target) for each in self._loops):
                raise StateError(f"introspector {self.name!r} is attached already to {told(target)}: once is enough")
            if self._reporter is not None:
                self._add(target)
            else:
                self._start(target)

    def detach(self, loop: Loop | None = None) -> None:
        """Lets go of `loop`, by default the running one. From any thread. Introspection goes on without it.

        Its sessions stay listed until their scopes are left, with what they had until now.
        Raises StateError where this introspector is not attached to it.
        """
        target = loop if loop is not None else loop_to_attach(None)
        with self._sessions.lock:
            for each in self._loops:
                if each.hook.is_loop(target):
                    self._let_go(each)
                    return
        raise StateError(f"introspector {self.name!r} is not attached to {told(target)}: attach it first")

    def _add(self, target: Loop) -> None:
        loop = AttachedLoop(
            target,
            self._attached + 1,
            binding=self._binding,
            settings=self._settings,
            clock=self._clock,
            wall=self._wall,
            log=self._blocks,
            places=self._places,
            collections=self._collections,
            pressure=self._pressure,
            thread_work=self._thread_work,
            heap=self._heap,
            watchdog=self._watchdog,
            sampler=self._sampler,
            notes=self._notes,
        )
        try:
            loop.attach(target)
        except BaseException:
            loop.detach()
            loop.close()
            raise
        loop.step_cost = self._step_costs.get(loop.hook.kind, NOT_MEASURED)
        loop.ledger.thin(self._reporter.budget.one_in if self._reporter is not None else 1)
        self._attached += 1
        self._loops.append(loop)
        self._tell_loops()
        if self._sessions.live:
            loop.hook.sessions_live(True)

    def _let_go(self, loop: AttachedLoop) -> None:
        loop.detach()
        if self._reporter is not None:
            self._reporter.let_go(loop)
        self._loops.remove(loop)
        self._gone.append((self._clock(), loop))
        self._tell_loops()

    def _tell_loops(self) -> None:
        """Blocks say which loop they held where there are several."""
        for loop in self._loops:
            loop.detector.told_loop = loop.name if len(self._loops) > 1 else None

    def _start(self, target: Loop) -> None:
        # Here, because they load psutil and anyio, which whoever only imports the package need not wait for.
        from ._heap import heap_for
        from ._host import HostVitals, own_process
        from ._memory import ShareOfRss

        self._heap = heap_for(self._settings.memory, self._clock)
        if self._settings.socket_path is None and not sockets_available():
            self._notes.add("socket", "this platform has no Unix sockets: sessions are metered, and nothing is served")
        elif self._settings.socket_path is not False:
            server_class()
            self._socket = OwnSocket(self.name, self._settings.path)
        try:
            process = own_process(os.getpid())
            if self._settings.cpu == "sampled":
                self._sampler = Sampler(
                    self._clock,
                    self._settings.sample_interval_s,
                    partial(self._notes.add, "sampler"),
                )
                self._threads.append(self._sampler)
            if self._settings.stacks:
                self._watchdog = Watchdog(self._clock, partial(self._notes.add, "watchdog"))
                self._threads.append(self._watchdog)
            if not has_gil():
                self._notes.limit("gil", BLIND_TO)
            if self._heap is not None:
                self._notes.limit("heap", self._heap.blind_to)
                self._heap.start()
            self._add(target)
            self._collections.attach()
            reporter = Reporter(
                settings=self._settings,
                clock=self._clock,
                wall=self._wall,
                sessions=self._sessions,
                failures=self._failures,
                loops=self._loops,
                blocks=self._blocks,
                pressure=self._pressure,
                thread_work=self._thread_work,
                heap=self._heap,
                memory=ShareOfRss(process),
                host=HostVitals(process),
                threads=self._threads,
                notes=self._notes,
                budget=Budget(self._settings.budget_pct),
            )
            self._service = Service(
                listener=self._socket.listener if self._socket is not None else None,
                source=Served(reporter, self._places),
                hello=hello(self.name, reporter.epoch),
                clock=self._clock,
                interval_s=min(MARK_INTERVAL_S, self._settings.memory_interval_s),
                idle=lambda: not self._sessions.live,
                tick=self._tick,
                on_fault=lambda probe, error: self._notes.add(probe, f"{probe} is switched off: {error!r}", error),
            )
            self._reporter = reporter
            for thread in (*self._threads, self._service):
                # Real ticks on a clock that is not the real one would see what is not there.
                if thread is not self._watchdog or self._clock is perf_counter:
                    thread.start()
        except BaseException:
            self._detach_all()
            for helper in self._threads:
                helper.stop()
            self._reporter = self._service = self._sampler = self._watchdog = None
            self._threads.clear()
            self._close_usage()
            self._loops.clear()
            self._close_socket()
            raise
        _fork.attached.add(self)

    def close(self) -> None:
        """Detaches and leaves no trace. Idempotent.

        Waits for what is under way on other threads, and for what it logged to be handled, at most two seconds in
        all. The threads themselves are the process's: they end by themselves within a second after the last
        introspector closed.
        """
        endings = self._begin_closing()
        if endings:
            wait_until_ended(endings)
        self._close_usage()

    async def aclose(self) -> None:
        """As `close`, without holding the loop meanwhile."""
        threads = self._begin_closing()
        if threads:  # in a forked child there are none, and no loop is known to run
            await until_ended(threads)
        self._close_usage()

    def _begin_closing(self) -> list[Watchdog | Sampler | Service]:
        if self._reporter is None or self._closed:
            return []
        self._closed = True
        _fork.attached.discard(self)
        threads: list[Watchdog | Sampler | Service] = [*self._threads]
        if self._service is not None:
            threads.append(self._service)
        with self._notes.letting_go(self.name) as parts:
            parts.callback(self._close_socket)
            for thread in threads:
                parts.callback(thread.stop)
            parts.callback(self._detach_all)
        return threads

    def _detach_all(self) -> None:
        with self._notes.letting_go(self.name) as parts:
            parts.callback(self._collections.detach)
            if self._heap is not None:
                parts.callback(self._heap.stop)
            for loop in reversed(self._loops):
                parts.callback(loop.detach)

    def _close_usage(self) -> None:
        for loop in (*self._loops, *(loop for _, loop in self._gone)):
            loop.close()

    def _close_socket(self) -> None:
        own, self._socket = self._socket, None
        if own is not None:
            own.remove()
            if self._service is None:  # which closes its own
                own.listener.close()

    def abandon_after_fork(self) -> None:
        """In a forked child there are no threads, and the socket is the parent's."""
        self._closed = True
        self._detach_all()
        if self._socket is not None:
            self._socket.listener.close()

    # --- sessions --------------------------------------------------------------------------------

    @property
    def name(self) -> str:
        return self._settings.name

    @property
    def socket_path(self) -> Path | None:
        """Where it serves; None before and after, and where it serves nowhere."""
        return self._socket.path if self._socket is not None else None

    @property
    def draining(self) -> bool:
        """Whether the host takes no new sessions. Set by the host; shown, nothing more."""
        return self._reporter is not None and self._reporter.draining

    @draining.setter
    def draining(self, value: bool) -> None:
        if self._reporter is not None:
            self._reporter.draining = value

    def note(self, topic: str, text: str | None) -> None:
        """Shows a line of the host's own among the snapshot's notes, until it is replaced; None takes it away."""
        self._notes.of_host(topic, text)

    def session(self, session_id: str, *, agent_name: str, metadata: Mapping[str, Any] | None = None) -> SessionScope:
        """A context manager: what runs inside, and every task created inside, is this session's.

        session_id: 1–256 characters, not that of a live session. agent_name: 1–256 characters.
        metadata: only `metadata["tenant"]`, a str, is ever shown or sent.
        Raises ArgumentError, and StateError where the introspector is not attached.
        """
        check_text("session_id", session_id)
        check_text("agent_name", agent_name)
        self._sessions.check_free(session_id)
        self._check_started()
        return SessionScope(self, session_id, agent_name, check_metadata(metadata))

    def _check_started(self) -> None:
        if self._reporter is None or self._closed:
            state = "closed" if self._closed else "not started"
            raise StateError(
                f"introspector {self.name!r} is {state}: its sessions go inside `async with Introspector(...)`"
            )

    def _loop_here(self) -> AttachedLoop | None:
        """The attached loop that the calling code runs on."""
        return next((loop for loop in tuple(self._loops) if loop.hook.runs_here()), None)

    def _ledger_of(self, thread_id: int) -> Ledger | None:
        loops = [loop for loop in tuple(self._loops) if loop.hook.thread_id == thread_id and loop.hook.runs()]
        return loops[0].ledger if loops else None

    def _sessions_live(self, some: bool) -> None:
        try:
            for loop in self._loops:
                loop.hook.sessions_live(some)
            for thread in self._threads:
                thread.sessions_live(some)
        except Exception as error:
            self._notes.add("sessions", f"what watches sessions could not be told of them: {error!r}", error)

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
        self._check_started()
        return tasks_of(session, [loop.hook for loop in tuple(self._loops)], self._places)[0]

    # --- once a second ---------------------------------------------------------------------------

    def _tick(self, now: float) -> None:
        reporter, service = self._reporter, self._service
        if reporter is None or service is None:
            return
        for loop in tuple(self._loops):
            if loop.step_cost is NOT_MEASURED and self._settings.cpu == "exact":
                loop.step_cost = self._step_costs[loop.hook.kind] = loop.measure_step_cost()
        reporter.service_cpu_s = service.cpu_s
        reporter.tick(now)
        for loop in tuple(self._loops):
            if loop.hook.loses_tasks():
                self._notes.add(
                    "create_task",
                    "the loop's create_task was replaced while introspection runs: unless the new one calls the old, "
                    "tasks created since are not seen",
                )
            if loop.hook.ended():
                with self._sessions.lock:
                    if loop in self._loops and not self._closed:
                        self._let_go(loop)
        with self._sessions.lock:
            while self._gone and now - self._gone[0][0] >= MARK_INTERVAL_S:
                self._gone.popleft()[1].close()
