"""All parts of one introspector, from their start to their end."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from .._accounting.budget import Budget
from .._accounting.gc_monitor import GcMonitor
from .._accounting.thread_calls import ThreadCalls
from .._base import fork
from .._base.clock import Clock, WallTime, perf_counter
from .._base.errors import StateError
from .._base.gil import MISSING_WITHOUT_GIL, has_gil
from .._base.interrupts import is_interrupt
from .._base.notes import Notes
from .._blocks.history import BlockHistory
from .._blocks.watchdog import Watchdog
from .._loops.running_loop import Loop
from .._loops.sampler import Sampler
from .._loops.thread_seams import see_libraries_loaded_since
from .._native import trouble
from .._os.stacks import Places
from .._os.thread_usage import HostPressure
from .._sessions.no_session import open_registries
from .._sessions.registry import SessionRegistry
from .._sessions.settings import Settings
from .._waits.thread_starts import ThreadStarts
from .._waits.wait_sampler import WaitSampler
from ..wire._endpoint import sockets_available
from .attached_loop import AttachedLoop
from .attached_loops import AttachedLoops
from .housekeeping import Housekeeping
from .loop_statistics import MARK_INTERVAL_S
from .outlived import OutlivedSessions
from .own_box import abandon_box, close_box, open_box, open_stall_log
from .own_cost import OwnCost
from .own_socket import OwnSocket
from .shared import Shared
from .snapshot_builder import SnapshotBuilder
from .worker_service import WorkerService, server_class
from .worker_source import WorkerSource, hello

if TYPE_CHECKING:  # loaded when needed: programs that only import the package do not wait for them
    from .._os.host_vitals import HostVitals
    from .box_record import BoxRecord
    from .rss_shares import ShareOfRss


class Introspection:
    """Puts the parts of one introspector together.

    It is started with its first loop, and ended once.

    `shared.sessions.state` is its state: "not started", "open" or "closed".
    """

    def __init__(self, settings: Settings, clock: Clock) -> None:
        notes, wall = Notes(settings.name), WallTime(clock)
        sessions = SessionRegistry(settings.name, clock, notes)
        self.shared = Shared(
            settings=settings,
            clock=clock,
            wall=wall,
            notes=notes,
            sessions=sessions,
            history=BlockHistory(wall, settings.slow_status_s),
            places=(places := Places(settings.project_roots)),
            pressure=HostPressure(),
            gc_monitor=GcMonitor(
                clock, lambda thread_id: self.loops.ledger_of(thread_id), partial(notes.add, "collections")
            ),
            thread_calls=ThreadCalls(clock, partial(notes.add, "threads")),
            thread_starts=ThreadStarts(
                sessions.binding, places, lambda: self.loops.hook_here(), partial(notes.add, "thread starts")
            ),
        )
        self.loops = AttachedLoops(self.shared, self._loop_detached)
        open_registries.add(sessions)
        self.shared.gc_monitor.calls_of = self.loops.calls_of
        self.shared.gc_monitor.owner_here = lambda: sessions.binding.get(None)
        sessions.loop_here = self.loops.here
        sessions.on_live = self.sessions_live
        self.socket: OwnSocket | None = None
        """None before and after it serves, and if it serves no socket."""
        self.builder: SnapshotBuilder | None = None
        """None before the start; kept after the end."""
        self._housekeeping: Housekeeping | None = None
        self._cost: OwnCost | None = None
        self._service: WorkerService | None = None
        self._box_record: BoxRecord | None = None
        self._box_is_kept = False
        self.give_way: Callable[[], None] | None = None
        """Called before the host attaches an introspector of its own. None: this one is the host's, and stays."""
        self.each_tick: Callable[[], None] = _nothing  # called about once a second, on the service thread

    # --- loops -----------------------------------------------------------------------------------

    def attach(self, target: Loop) -> None:
        """Attach to `target`, and start everything with the first loop.

        Raise StateError or EndpointError.
        """
        sessions = self.shared.sessions
        with sessions.lock:
            self.loops.check_new(target)
            if self.builder is None:
                self._start(target)
            else:
                self.loops.attach(target, sampling_period=self.builder.budget.sampling_period)

    def detach(self, target: Loop) -> None:
        """Detach from `target`. Raise StateError if it is not attached."""
        with self.shared.sessions.lock:
            self.loops.detach(target)

    def _loop_detached(self, loop: AttachedLoop) -> None:
        """Keep what is shown of a loop after it was detached."""
        if self.builder is not None:
            self.builder.loop_detached(loop)
        if self._cost is not None:
            self._cost.loop_detached(loop)

    def sessions_live(self, some: bool) -> None:
        """Pass on that the first session has started, or the last one has ended.

        Raise nothing but interrupts.
        """
        try:
            self.loops.sessions_live(some)
            for thread in self.shared.threads:
                thread.sessions_live(some)
        except Exception as error:
            if is_interrupt(error):
                raise
            problem = f"what observes loops while sessions live could not be started or stopped: {error!r}"
            self.shared.notes.add("sessions", problem, error)

    def watch_without_sessions(self) -> None:
        """Observe loops whether or not sessions live, as test suites need it."""
        self.shared.sessions.on_live = lambda some: self.sessions_live(True)
        self.sessions_live(True)

    # --- starting --------------------------------------------------------------------------------

    def _start(self, target: Loop) -> None:
        # Imported here, because psutil and anyio are not loaded for programs that only import the package; and before
        # the loop is attached, because loading them takes long enough to be a block.
        from .._os.host_vitals import CGROUP_UNREAD, HostVitals, own_process
        from .box_record import BoxRecord
        from .rss_shares import ShareOfRss

        shared = self.shared
        if shared.settings.memory != "share":
            from .._accounting.heap_methods import heap_for

            shared.heap = heap_for(shared.settings.memory, shared.clock)
        shared.sessions.given_back = shared.heap.given_back if shared.heap is not None else None
        self._open_socket()
        try:
            process = own_process(os.getpid())
            epoch = os.urandom(8).hex()
            open_box(shared, self.socket, epoch)
            open_stall_log(shared)
            self._make_threads()
            self._note_limits()
            if shared.heap is not None:
                shared.heap.start()
            self.loops.attach(target)
            shared.gc_monitor.attach()
            shared.thread_starts.attach()
            host = HostVitals(process, partial(shared.notes.add, "cgroup", CGROUP_UNREAD))
            builder = self._assemble(ShareOfRss(process), host, epoch)
            self._box_record = BoxRecord(shared.box, builder) if shared.box is not None else None
            shared.hold_seen = self._hold_seen
            shared.sessions.state = "open"
            self._start_threads()
        except BaseException:
            self._undo_start()
            raise
        fork.attached.add(self)
        if shared.sessions.state == "closed":  # by a signal handler, maybe before all threads had started
            self._end()

    def _open_socket(self) -> None:
        settings = self.shared.settings
        if settings.socket_path is None and not sockets_available():
            text = "this platform has no Unix sockets: sessions are metered, and nothing is served"
            self.shared.notes.add("socket", text)
        elif settings.socket_path is not False:
            server_class()
            self.socket = OwnSocket(settings.name, settings.path)

    def _make_threads(self) -> None:
        shared = self.shared
        if shared.settings.cpu == "sampled":
            on_fault = partial(shared.notes.add, "sampler")
            shared.sampler = Sampler(shared.clock, shared.settings.sample_interval_s, on_fault)
        if shared.settings.stacks:
            shared.watchdog = Watchdog(shared.clock, partial(shared.notes.add, "watchdog"))

    def _assemble(self, memory: ShareOfRss, host: HostVitals, epoch: str) -> SnapshotBuilder:
        """Make housekeeping, the snapshot builder, and the service that runs both. Return the builder."""
        shared = self.shared
        settings, clock = shared.settings, shared.clock
        cost, budget = OwnCost(shared), Budget(settings.budget_pct)
        outlived = OutlivedSessions(shared, self.loops)
        if settings.cpu == "exact":
            shared.waits = WaitSampler(shared.sessions, clock)
        builder = SnapshotBuilder(shared, self.loops, memory, host, budget, cost, outlived, epoch=epoch)
        self._service = WorkerService(
            listener=self.socket.listener if self.socket is not None else None,
            source=WorkerSource(builder),
            hello=hello(settings.name, builder.epoch),
            clock=clock,
            interval_s=min(MARK_INTERVAL_S, settings.memory_interval_s),
            idle=lambda: not shared.sessions.live,
            tick=self.tick,
            on_fault=lambda probe, error: shared.notes.add(probe, f"{probe} is switched off: {error!r}", error),
        )
        self._housekeeping = Housekeeping(shared, self.loops, memory, host, budget, cost, outlived, shared.waits)
        self.builder, self._cost = builder, cost
        return builder

    def _start_threads(self) -> None:
        shared = self.shared
        for thread in (*shared.threads, self._service):
            # On a clock of the caller's own, the watchdog's real ticks would find blocks that are none.
            if thread is not None and (thread is not shared.watchdog or shared.clock is perf_counter):
                thread.start()

    def _note_limits(self) -> None:
        if trouble is not None:
            self.shared.notes.add("meter", trouble)
        if not has_gil():
            self.shared.notes.limit("gil", MISSING_WITHOUT_GIL)
        if self.shared.heap is not None:
            self.shared.notes.limit("heap", self.shared.heap.blind_to)

    def _undo_start(self) -> None:
        """Leave nothing of a start that failed."""
        shared = self.shared
        self._end()
        self.builder = self._housekeeping = self._cost = self._service = self._box_record = None
        shared.sampler = shared.watchdog = None
        if shared.sessions.state == "open":  # and not closed meanwhile, by a signal handler
            shared.sessions.state = "not started"
        self.loops.close()
        self.loops.clear()

    # --- once a second ---------------------------------------------------------------------------

    def tick(self, now: float) -> float | None:
        """Do what is due. The service thread calls it about once a second.

        Return the seconds after which something is due again. None: that is not known.
        """
        housekeeping, service, cost = self._housekeeping, self._service, self._cost
        if housekeeping is None or service is None or cost is None:
            return None
        if self.shared.settings.cpu == "exact":
            self.loops.measure_step_costs()
        self.each_tick()
        cost.service_cpu_s = service.cpu_s
        see_libraries_loaded_since()
        due = housekeeping.tick(now)
        self.loops.detach_ended(now)
        if self._box_record is not None:
            self._box_record.tick(now)
        return due - self.shared.clock()

    def _hold_seen(self, now: float) -> None:
        """Have what holds a loop recorded soon: C code may keep the GIL from the next moment on."""
        if self._box_record is not None and self._service is not None and self._box_record.hold_seen(now):
            self._service.tick_soon()

    # --- ending ----------------------------------------------------------------------------------

    def ended_by(self, error: BaseException | None) -> None:
        """Take note of the exception that ends the worker: if it is for want of memory, the black box is kept."""
        if error is not None and self.shared.box is not None:
            from ..black_box._writer import died_of_memory

            self._box_is_kept = died_of_memory(error)

    def begin_closing(self) -> list[Watchdog | Sampler | WorkerService]:
        """Detach from everything.

        Return the threads that may still work for it; none if it was not open.
        """
        shared = self.shared
        if shared.sessions.state != "open":
            return []
        shared.sessions.state = "closed"
        return self._end()

    def _end(self) -> list[Watchdog | Sampler | WorkerService]:
        """Release everything. Idempotent. Return the threads that may still work for it."""
        shared = self.shared
        fork.attached.discard(self)
        threads: list[Watchdog | Sampler | WorkerService] = [*shared.threads]
        if self._service is not None:
            threads.append(self._service)
        with shared.notes.releasing(shared.settings.name) as parts:
            parts.callback(close_box, shared, keep=self._box_is_kept)
            parts.callback(self._close_socket)
            for thread in threads:
                parts.callback(thread.stop)
            parts.callback(self._detach_all)
        return threads

    def _detach_all(self) -> None:
        shared = self.shared
        with shared.notes.releasing(shared.settings.name) as parts:
            parts.callback(shared.gc_monitor.detach)
            parts.callback(shared.thread_starts.detach)
            if shared.heap is not None:
                parts.callback(shared.heap.stop)
            self.loops.detach_all(parts)

    def _close_socket(self) -> None:
        own, self.socket = self.socket, None
        if own is not None:
            own.remove()
            if self._service is None:  # the service closes its own listener
                own.listener.close()

    def abandon_after_fork(self) -> None:
        """End it in a forked child.

        None of its threads runs there, and the socket belongs to the parent. So does the step under way: its block is
        the parent's to report.
        """
        self.shared.sessions.state = "closed"
        self.shared.history.logged = False
        self._detach_all()
        abandon_box(self.shared)
        if self.socket is not None:
            self.socket.listener.close()

    def check_started(self) -> SnapshotBuilder:
        """Return the builder of its snapshots, also after its end.

        Raise StateError before its start.
        """
        if self.builder is None:
            name = self.shared.settings.name
            raise StateError(f"introspector {name!r} is not started: use `async with Introspector(...)`")
        return self.builder


def _nothing() -> None:
    pass


def give_way() -> None:
    """Have introspectors that are not the host's give way to one that is."""
    for each in list(fork.attached):
        if isinstance(each, Introspection) and each.give_way is not None:
            each.give_way()
