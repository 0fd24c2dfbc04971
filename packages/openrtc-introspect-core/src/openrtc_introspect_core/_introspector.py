"""The Introspector: the object that a host makes, and asks."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from ._base import lazy_imports
from ._base.clock import Clock, perf_counter
from ._base.errors import ArgumentError, StateError
from ._base.validation import check_metadata, check_text
from ._loops.running_loop import Loop, loop_to_attach
from ._service.inspection import tasks_of
from ._service.introspection import Introspection, give_way
from ._service.own_socket import until_ended, wait_until_ended
from ._service.worker_source import WorkerSource
from ._sessions.no_session import NoSession
from ._sessions.scope import SessionScope
from ._sessions.settings import Settings, SocketPath, StallLog
from .wire._messages import Block, CpuMethod, MemoryMethod, Snapshot, TaskInfo, Waits, WaitsRequest


class Introspector:
    """Measures the sessions of a worker from inside, and serves snapshots of them.

        async with Introspector() as introspector:
            with introspector.session("job-c1d550", agent_name="restaurant", metadata={"tenant": "acme"}):
                await handle_call()

    `async with` attaches it to the running loop, asyncio's own, uvloop or Trio, and serves snapshots on a private
    socket. A process with a loop in each of several threads has one introspector for all of them: it is started on
    one loop, and attached to each other loop by `attach()`, called from that loop's thread.

    While it is attached, the loop's thread runs the step meter (and, on uvloop, a heartbeat while sessions live). All
    else happens on daemon threads; all introspectors of the process share them. On exit nothing is left: no socket,
    no changed method and, within a second, no thread. No error of the introspector reaches a session: a probe that
    fails is switched off, logged once, and named in the snapshot's notes.

    name: the worker's name, at most 64 printable characters. `openrtc` and the socket's file name show it.
    cpu: "exact" times every step of every task. "sampled" reads 1 / `sample_interval_s` times a second which
        session's task runs; this is statistical, and docs/benchmarks.md describes its bias. "off" does neither.
    memory: "share" divides the process's RSS equally among the live sessions, each `memory_interval_s` seconds.
        "heap" and "traced" add the bytes that each session's own steps have allocated less those they freed, as
        the allocator (glibc, jemalloc, tcmalloc) or Python counts them; docs/measuring.md says what each cannot see.
        Both need cpu="exact". "heap" raises ArgumentError on entering if Python's objects are in no such account.
    slow_session_threshold_ms: a block is a span longer than this in which the loop ran nothing else. Milliseconds.
    slow_status_s: the seconds for which a session shows as slow after its block.
    memory_interval_s: the seconds between two samples of RSS; at least 0.01.
    sample_interval_s: the seconds between two samples of cpu="sampled"; at least 0.001.
    budget_pct: the limit on what timing steps may cost, in percent of one core; 0: no limit. Above the limit only one
        step in several is timed, chosen at random, and counts for that many. Sums are then unbiased estimates, and
        the snapshot says so. With memory="heap" or "traced" every step is timed: memory is charged with each step.
    memory_limit_mb, max_sessions: limits that are shown beside what is used, and not enforced here; 0: none.
        AgentPool enforces them. 1 MB is 1024 × 1024 bytes.
    socket_path: the path of the socket, in a directory of the user's own. None: in the user's runtime directory,
        named by the worker's name and pid. False: no socket.
    black_box: True: a file beside the socket, or in the user's runtime directory if there is no socket, says what the
        worker is doing while it cannot answer, and did before it died; docs/black-box.md describes it. A clean end
        removes it. False: no file.
    stall_log: where a block is described while it lasts: a file descriptor, or a file that has one, which is
        duplicated at the start. "stderr": that of sys.stderr at the start, if it has one. None: nowhere.
    stacks: False: no watchdog reads the loop's frames; blocks then have no line, and fewer causes.
    project_roots: the folders of the user's own code; a block's line is taken from them if possible. None: all code
        except the standard library and installed packages.
    clock: a function that returns seconds and never goes back; for tests. With a clock of the caller's own the
        watchdog does not run.

    Raises ArgumentError for an argument outside of these ranges. On entering: StateError if it was started before or
    no loop is running, EndpointError if the socket cannot be made safely.
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
        black_box: bool = True,
        stall_log: StallLog = "stderr",
        stacks: bool = True,
        project_roots: Sequence[str | os.PathLike[str]] | None = None,
        clock: Clock = perf_counter,
    ) -> None:
        settings = Settings(
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
            black_box=black_box,
            stall_log=stall_log,
            stacks=stacks,
            project_roots=project_roots,
        )
        self._parts = Introspection(settings, clock)

    # --- starting and ending ---------------------------------------------------------------------

    async def __aenter__(self) -> Introspector:
        if self._parts.builder is not None:
            state = "closed" if self._parts.shared.sessions.state == "closed" else "attached already"
            raise StateError(
                f"introspector {self.name!r} is {state}: make a new one to start again; "
                "`attach()` adds another loop to one that runs"
            )
        self.attach()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._parts.ended_by(error)
        await self.aclose()

    def attach(self, loop: Loop | None = None) -> None:
        """Attach to `loop`, by default the running one. `async with` does so as well.

        Called on the loop's own thread. The first call starts everything; another call adds another loop. A loop that
        is closed, or whose thread has ended, is detached by itself within two seconds. Sessions on a loop that is not
        attached are not measured.

        Raises StateError if the introspector is closed or attached to this loop already, if the loop is closed or runs
        elsewhere, or if there is none; EndpointError if the socket cannot be made safely. Nothing is left half-started.
        """
        if self._parts.shared.sessions.state == "closed":
            raise StateError(f"introspector {self.name!r} is closed: make a new one to start again")
        target = loop_to_attach(loop)
        if self._parts.give_way is None:
            give_way()
        self._parts.attach(target)
        lazy_imports.load(__name__.partition(".")[0])
        self._parts.loops.begin_anew(target)  # on a busy machine, threads start slowly: that is no block of the host's

    def detach(self, loop: Loop | None = None) -> None:
        """Detach from `loop`, by default the running one, from any thread.

        Its other loops stay attached.

        Sessions of the loop stay listed until their scopes are left, with what was charged to them until now.
        Raises StateError if this introspector is not attached to the loop.
        """
        self._parts.detach(loop if loop is not None else loop_to_attach(None))

    def close(self) -> None:
        """Detach from all loops and leave nothing behind. Idempotent.

        Waits until its work on other threads has ended, and its log records are handled, at most two seconds in all.
        The threads themselves are shared by the process: they end within a second after its last introspector closed.
        """
        endings = self._parts.begin_closing()
        if endings:
            wait_until_ended(endings)
        self._parts.loops.close()

    async def aclose(self) -> None:
        """Close as `close` does, without holding the loop while it waits.

        `async with` does so on leaving.
        """
        endings = self._parts.begin_closing()
        if endings:  # none in a forked child, in which asyncio knows of no running loop
            await until_ended(endings)
        self._parts.loops.close()

    # --- sessions --------------------------------------------------------------------------------

    @property
    def name(self) -> str:
        """Return the worker's name."""
        return self._parts.shared.settings.name

    @property
    def socket_path(self) -> Path | None:
        """Return the path of its socket.

        None before and after it serves, and if it serves no socket.
        """
        return self._parts.socket.path if self._parts.socket is not None else None

    @property
    def draining(self) -> bool:
        """Return whether the host takes no new sessions.

        The host sets it; it is shown, and has no other effect.
        """
        return self._parts.builder is not None and self._parts.builder.draining

    @draining.setter
    def draining(self, value: bool) -> None:
        if self._parts.builder is not None:
            self._parts.builder.draining = value

    def note(self, topic: str, text: str | None) -> None:
        """Show the host's text on a topic among the snapshot's notes.

        It stays until it is replaced; None removes it.
        """
        self._parts.shared.notes.of_host(topic, text)

    def session(self, session_id: str, *, agent_name: str, metadata: Mapping[str, Any] | None = None) -> SessionScope:
        """Return a context manager, the scope of a session.

        The code inside, and every task created inside, belongs to the session.

        It is entered once, by `with`, on the loop that runs the session. It yields the Session.

        session_id: 1–256 characters, not that of a live session. agent_name: 1–256 characters.
        metadata: any mapping; only `metadata["tenant"]`, a str, is ever shown or sent.

        Raises ArgumentError for these, and StateError if the introspector is not attached.
        """
        check_text("session_id", session_id)
        check_text("agent_name", agent_name)
        sessions = self._parts.shared.sessions
        sessions.check_free(session_id)
        sessions.check_open()
        return SessionScope(sessions, session_id, agent_name, check_metadata(metadata))

    def no_session(self) -> NoSession:
        """Return a context manager: the code inside, and every task created inside, belongs to no session of this one.

            with introspector.no_session():
                self.writer = asyncio.create_task(self.write_rows())

        For what serves all sessions and is begun by the first one that needs it, such as the worker task of a shared
        client: a task that is created in a session's context is the session's for as long as it lives. The function
        `no_session()` of the package does the same where no introspector is at hand.
        """
        return NoSession(lambda: (self._parts.shared.sessions,))

    # --- reading ---------------------------------------------------------------------------------

    def snapshot(self) -> Snapshot:
        """Return what is known of the worker, its loops and its sessions now.

        From any thread.

        Also after its end. Raises StateError before its start.
        """
        return self._parts.check_started().snapshot()

    def blocks(self, since: int = 0) -> list[Block]:
        """Return the blocks whose `seq` is above `since`, of the last 256, oldest first.

        From any thread.
        """
        return self._parts.shared.history.since(since)

    def tasks(self, session_id: str) -> list[TaskInfo]:
        """Return a live session's tasks by name, at most 500.

        Each shows where it waits, and for which other. From any thread.

        Raises ArgumentError if no live session has this id, StateError if the introspector is not attached.
        """
        sessions = self._parts.shared.sessions
        session = sessions.live.get(session_id)
        if session is None:
            raise ArgumentError(f"no live session has the id {session_id!r}")
        sessions.check_open()
        return tasks_of(session, [loop.hook for loop in self._parts.loops], self._parts.shared.places)[0]

    def waits(self) -> Waits:
        """Return what the tasks of all sessions wait for, in groups, with who has it.

        From any thread. It takes up to a second in a worker of thousands of sessions; their loops go on meanwhile.

        Raises StateError if the introspector is not attached.
        """
        self._parts.shared.sessions.check_open()
        return WorkerSource(self._parts.check_started()).waits(WaitsRequest(id=0))


def parts_of(introspector: Introspector) -> Introspection:
    """Return the parts of an introspector, for the pytest plugin and for tests.

    Not a public interface.
    """
    return introspector._parts
