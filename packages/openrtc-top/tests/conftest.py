"""Fixtures: snapshots made up, real workers, and a terminal to run the command in."""

from __future__ import annotations

import codecs
import contextlib
import fcntl
import os
import re
import select
import shutil
import struct
import subprocess
import sys
import tempfile
import termios
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from openrtc_introspect_core.black_box import LoopState
from openrtc_introspect_core.black_box._layout import Header
from openrtc_introspect_core.black_box._records import WorkerRecord
from openrtc_introspect_core.black_box._writer import BoxWriter
from openrtc_introspect_core.wire import (
    Block,
    Delayed,
    ExecutorInfo,
    Holder,
    Host,
    Location,
    LoopTime,
    SessionRow,
    Snapshot,
    Tasks,
    TasksRequest,
    ThreadCallGroup,
    Waiter,
    WaitGroup,
    Waits,
    WaitsRequest,
    WorkerInfo,
    _places,
    socket_name,
)
from openrtc_introspect_testing import FakeWorker

DEADLINE_S = 60.0

MakeSession = Callable[..., SessionRow]
MakeSnapshot = Callable[..., Snapshot]


def session(session_id: str = "job-1", **fields: Any) -> SessionRow:
    """A well-behaved session; fields say what is different about it."""
    defaults: dict[str, Any] = {"agent_name": "dental", "cpu_pct": 1.5, "mem_mb": 37.2, "peak_mb": 41.0, **fields}
    return SessionRow(session_id=session_id, **defaults)


def snapshot(*sessions: SessionRow, taken_at: float = 1000.0, blocks: Any = (), **fields: Any) -> Snapshot:
    """A snapshot of a worker with these sessions; fields are the worker's."""
    defaults: dict[str, Any] = {
        "name": "voice-a",
        "pid": 41213,
        "epoch": "first",
        "loop": "asyncio",
        "python": "3.13.1",
        "meter": "C",
        "uptime_s": 8040.0,
        "sessions": len(sessions),
        "rss_mb": 1945.0,
        "memory_limit_mb": 4096.0,
        "max_sessions": 80,
        "rss_trend_mb_per_min": 12.2,
        "loop_time": LoopTime(sessions_pct=49.0, untagged_pct=3.0, gc_pct=1.0, other_pct=4.0, idle_pct=43.0),
        "lag_p99_ms": 14.0,
        "lag_max_ms": 3200.0,
        "lag_method": "iterations",
        "introspection_pct": 0.31,
        "host": Host(cpu_pct=46.0, cores=8, load_1m=1.2, process_cpu_pct=63.0, threads=7),
        **fields,
    }
    worker = WorkerInfo(**defaults)
    return Snapshot(seq=1, taken_at=taken_at, worker=worker, sessions=list(sessions), blocks_in_progress=list(blocks))


def a_block(**fields: Any) -> Block:
    """A block in progress since 3.2 s before the second 1000."""
    defaults: dict[str, Any] = {
        "seq": 0,
        "session_id": "job-c1d550",
        "agent_name": "restaurant",
        "in_progress": True,
        "running_since": 996.8,
        "cause": "sync-call",
        "location": Location("agents/restaurant.py", 42, "lookup_menu"),
        "delayed": [Delayed(f"job-{number}", 10.0) for number in range(37)],
        **fields,
    }
    return Block(**defaults)


def a_past_block(seq: int = 1, **fields: Any) -> Block:
    """A block that is over: it began 40 s before the second 1000, and each later one 10 s later."""
    defaults: dict[str, Any] = {
        "session_id": "job-c1d550",
        "agent_name": "restaurant",
        "task_name": "entrypoint",
        "started_at": 950.0 + 10 * seq,
        "duration_ms": 71.0,
        "cause": "sync-call",
        "location": Location("agents/restaurant.py", 42, "lookup_menu"),
        "stack": [
            Location("agents/restaurant.py", 18, "entrypoint"),
            Location("agents/restaurant.py", 42, "lookup_menu"),
            Location("requests/sessions.py", 589, "Session.request"),
        ],
        "delayed": [Delayed(f"job-{number}", 60.0 - number) for number in range(37)],
        **fields,
    }
    return Block(seq=seq, **defaults)


def some_blocks() -> list[Block]:
    """Blocks of several causes, oldest first."""
    return [
        a_past_block(
            1,
            session_id=None,
            agent_name=None,
            task_name=None,
            cause="burst",
            detail="job-77ab02 31 ms, job-9f00e1 12 ms",
            location=None,
            stack=[],
            delayed=[Delayed("job-1c33aa", 50.0, exact=False), Delayed("job-9f00e1", 55.0)],
        ),
        a_past_block(
            2,
            session_id=None,
            agent_name=None,
            cause="gc",
            detail="generation 2, 41 ms of it",
            location=None,
            stack=[],
            delayed=[Delayed("job-c1d550", 62.0, exact=False)],
        ),
        a_past_block(3, cause="import", detail="pandas", duration_ms=1240.0, delayed=None),
        a_past_block(4, session_id="job-77ab02", agent_name="dental", cause=None, delayed=[]),
        a_past_block(5),
    ]


@pytest.fixture
def make_past() -> Callable[..., Block]:
    return a_past_block


@pytest.fixture
def past_blocks() -> list[Block]:
    return some_blocks()


@pytest.fixture
def utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Local time is UTC."""
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.fixture
def make_session() -> MakeSession:
    return session


@pytest.fixture
def make_snapshot() -> MakeSnapshot:
    return snapshot


@pytest.fixture
def make_block() -> Callable[..., Block]:
    return a_block


BOOK = Location("agents/restaurant.py", 57, "book")
HOLDER = Holder(
    session_id="job-77ab02",
    agent_name="dental",
    task_name="Task-9",
    since=988.0,
    location=Location("agents/dental.py", 31, "answer"),
    taken_at=Location("agents/dental.py", 30, "answer"),
    waits="timer",
)


def some_waits(*groups: WaitGroup, **fields: Any) -> Waits:
    """37 sessions that wait for a lock at the second 1000, and three for a time; or these groups."""
    waiters = [
        Waiter(
            session_id=f"job-{number:02}",
            agent_name="restaurant",
            tenant="acme",
            task_name=f"Task-{number}",
            since=989.0 + number / 2,
            location=BOOK,
        )
        for number in range(20)
    ]
    report = Location("agents/common.py", 77, "report")
    found = groups or (
        WaitGroup(
            kind="lock",
            what="asyncio.Lock",
            shared=True,
            location=BOOK,
            sessions=37,
            tasks=38,
            stuck=36,
            since=989.0,
            waiters=waiters,
            holders=[HOLDER],
        ),
        WaitGroup(kind="timer", what="sleep", location=report, sessions=3, tasks=3, since=996.0),
    )
    return Waits(id=0, **{"taken_at": 1000.0, "sessions": 40, "tasks": 96, "groups": list(found), **fields})


def a_full_executor() -> ExecutorInfo:
    """All its threads are busy, and calls queue."""
    call = ThreadCallGroup(
        session_id="job-c1d550",
        function="render_menu",
        location=Location("agents/menu.py", 12, "render_menu"),
        running=8,
        queued=5,
        longest_running_s=9.5,
        longest_queued_s=4.25,
    )
    return ExecutorInfo(
        name="default", kind="executor", max_threads=8, busy=8, queued=5, longest_queued_s=4.25, calls=[call]
    )


@pytest.fixture
def make_waits() -> Callable[..., Waits]:
    return some_waits


@pytest.fixture
def full_executor() -> ExecutorInfo:
    return a_full_executor()


@pytest.fixture(autouse=True)
def no_other_users(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other users of this machine have no directory for sockets, so that nothing is said of it."""
    monkeypatch.setattr(_places, "all_dirs", list)


# --- black boxes ---------------------------------------------------------------------------------


@pytest.fixture
def make_box(runtime_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., BoxWriter]]:
    """Make the black box of a worker of this process, with one loop; `dead` makes it that of a worker that died.

    Only these boxes are found, and only workers in their directory.
    """
    monkeypatch.setattr(_places, "default_dirs", list)
    made: list[BoxWriter] = []

    def make(
        name: str = "voice-a",
        *,
        socket: Path | None = None,
        held_s: float | None = None,
        keeper: int = 1,
        dead: bool = False,
        at: float | None = None,
        sessions: Any = (),
        blocks: Any = (),
        **record: Any,
    ) -> BoxWriter:
        now = time.time() if at is None else at
        header = Header(worker=name, pid=record.pop("pid", 41213), epoch="first", version="1.2.3", started_at=now - 60)
        box = BoxWriter(header, socket or _places.worker_dir() / f"{socket_name(name)}-{header.pid}.sock")
        made.append(box)
        state = LoopState(at=now, state="free")
        if held_s is not None:
            state = LoopState(
                at=now,
                state="held",
                since=now - held_s,
                keeper=keeper,
                session_id="job-c1d550",
                agent_name="restaurant",
                stack=[Location("agents/call.py", 18, "entrypoint"), Location("agents/menu.py", 42, "lookup_menu")],
            )
        told = snapshot(*sessions, taken_at=now - 9.0, name=name, pid=header.pid, blocks=[])
        given = {"at": now - 9.0, "snapshot": told, "threads": [7], "names": ["main"], "blocks": list(blocks), **record}
        box.write_worker(msgspec.json.encode(WorkerRecord(**given)))
        index = box.take_loop()
        assert index is not None
        box.write_loop(index, state)
        if dead:
            box.close()
        return box

    yield make
    for box in made:
        box.remove()
        box.close()


class FrozenWorker(FakeWorker):
    """A worker that takes connections and says nothing until it thaws, nor do others of this process."""

    def __init__(self, snapshots: Any, **options: Any) -> None:
        super().__init__(snapshots, **options)
        self.thawed = threading.Event()

    def snapshot(self) -> Snapshot:
        self._freeze()
        return super().snapshot()

    def blocks(self, since: int) -> list[Block]:
        self._freeze()
        return super().blocks(since)

    def tasks(self, request: TasksRequest) -> Tasks | None:
        self._freeze()
        return super().tasks(request)

    def waits(self, request: WaitsRequest) -> Waits:
        self._freeze()
        return super().waits(request)

    def _freeze(self) -> None:
        self.thawed.wait(DEADLINE_S)  # on the thread that serves all


@pytest.fixture
def frozen(make_box: Callable[..., BoxWriter], runtime_dir: Path) -> Iterator[Callable[..., FrozenWorker]]:
    """Start a worker that does not answer, with a black box that says what holds its loop."""
    with contextlib.ExitStack() as running:

        def start(name: str = "voice-a", *, held_s: float | None = 8.0, **box: Any) -> FrozenWorker:
            rows = [session("job-c1d550", agent_name="restaurant", tasks=2), session("job-77ab02")]
            path = runtime_dir / f"{socket_name(name)}-41213.sock"
            make_box(name, socket=path, held_s=held_s, sessions=rows, **box)
            worker = FrozenWorker([snapshot(*rows, name=name, taken_at=time.time())], path=path)
            running.enter_context(worker)
            running.callback(worker.thawed.set)
            return worker

        yield start


# --- real workers --------------------------------------------------------------------------------

# Nothing holds its loop but a busy machine, which is no block.
_WORKER = """
import asyncio, sys
from openrtc_introspect_core import Introspector

async def call(introspector, number):
    agent, tenant = ("dental", "acme") if number % 2 else ("restaurant", "globex")
    with introspector.session(f"job-{number:04}", agent_name=agent, metadata={"tenant": tenant}):
        await asyncio.Event().wait()

async def main():
    async with Introspector(name=sys.argv[1], slow_session_threshold_ms=60_000) as introspector:
        calls = [asyncio.create_task(call(introspector, number)) for number in range(int(sys.argv[2]))]
        await asyncio.sleep(0)
        print("ready", flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
        for task in calls:
            task.cancel()

asyncio.run(main())
"""

# The culprit holds the loop for so long, 0.1 s or more, each time a line comes in, and says when it is over. What a
# busy machine holds it for is mostly less, and then no block.
_BLOCKING_WORKER = """
import asyncio, sys, time
from openrtc_introspect_core import Introspector

def lookup_menu(seconds):
    time.sleep(seconds)

async def victim(introspector):
    with introspector.session("job-victim", agent_name="dental"):
        while True:
            await asyncio.sleep(0.01)

async def main():
    async with Introspector(name=sys.argv[1], slow_session_threshold_ms=95) as introspector:
        waiting = asyncio.create_task(victim(introspector))
        with introspector.session("job-culprit", agent_name="restaurant", metadata={"tenant": "acme"}):
            print("ready", flush=True)
            while line := await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline):
                lookup_menu(float(line))
                await asyncio.sleep(0)
                print("over", flush=True)
        waiting.cancel()

asyncio.run(main())
"""


@pytest.fixture
def runtime_dir(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where workers put their sockets. Not pytest's tmp_path: a socket's path has to be short."""
    folder = Path(tempfile.mkdtemp(prefix="openrtc-"))
    monkeypatch.setenv("OPENRTC_RUNTIME_DIR", str(folder))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(autouse=True)
def config_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Where the view remembers things: never the home of whoever runs the tests."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    return tmp_path / "config"


@pytest.fixture
def start_worker(runtime_dir: Path) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Starts a worker of this name with so many sessions; a process of its own."""
    with contextlib.ExitStack() as stack:

        def start(name: str, sessions: int = 3, code: str = _WORKER) -> subprocess.Popen[bytes]:
            worker = subprocess.Popen(
                [sys.executable, "-c", code, name, str(sessions)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
            )
            stack.callback(_end, worker)
            assert worker.stdout is not None
            assert worker.stdout.readline() == b"ready\n"
            return worker

        yield start


@pytest.fixture
def start_blocking(start_worker: Callable[..., subprocess.Popen[bytes]]) -> Callable[..., Callable[..., None]]:
    """Starts a worker with a culprit and a victim; what it returns makes the culprit block."""

    def start(name: str) -> Callable[..., None]:
        worker = start_worker(name, code=_BLOCKING_WORKER)
        assert worker.stdin is not None
        assert worker.stdout is not None

        def block(seconds: float, *, wait: bool = True) -> None:
            worker.stdin.write(f"{seconds}\n".encode())
            worker.stdin.flush()
            assert not wait or worker.stdout.readline() == b"over\n"

        return block

    return start


def _end(worker: subprocess.Popen[bytes]) -> None:
    """At once: how workers end in peace is for other tests, and one of these may be in the middle of a block."""
    with worker:
        worker.kill()


@pytest.fixture
def openrtc() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs the command as a process, its output in pipes."""

    def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "openrtc_top", *arguments],
            capture_output=True,
            text=True,
            timeout=DEADLINE_S,
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            check=False,
        )

    return run


# --- a terminal ----------------------------------------------------------------------------------

# Popen has made the child the leader of a session; this makes the terminal that session's own.
_IN_TERMINAL = """
import fcntl, sys, termios
fcntl.ioctl(1, termios.TIOCSCTTY, 0)
from openrtc_top.__main__ import main
main()
"""
_BEGUN = re.compile(r"\x1b(\[\??[0-9;]*)?$")
"""A code whose end is still to come."""
_TOKEN = re.compile(r"\x1b\[(\??)([0-9;]*)([A-Za-z])|\r|\n|[^\x1b\r\n]+|\x1b")


class FakeTerminal:
    """A pseudo-terminal with the command in it, and what would be on its screen."""

    def __init__(self, arguments: list[str], columns: int, lines: int, stdin: int | None, **environment: str) -> None:
        self._master, self._slave = os.openpty()
        self.attributes = termios.tcgetattr(self._slave)
        self.rows: list[str] = []
        self.written = ""
        # A read may end anywhere: in a character, in a code, or in a row.
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._rest = ""
        self._row = self._column = 0
        self.resize(columns, lines)
        environment = {**os.environ, "TERM": "xterm-256color", **environment}
        self.process = subprocess.Popen(
            [sys.executable, "-c", _IN_TERMINAL, *arguments],
            stdin=self._slave if stdin is None else stdin,
            stdout=self._slave,
            stderr=self._slave,
            env={name: value for name, value in environment.items() if value},
            start_new_session=True,
        )

    def resize(self, columns: int, lines: int) -> None:
        """Give the terminal another size."""
        self.rows = [""] * lines
        fcntl.ioctl(self._slave, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def press(self, keys: str) -> None:
        """Type."""
        os.write(self._master, keys.encode())

    def wait_for(self, condition: Callable[[str], object]) -> str:
        """Read until what is on the screen fulfils the condition."""
        deadline = time.monotonic() + DEADLINE_S
        while not condition(self.screen):
            running = self.process.poll() is None and time.monotonic() < deadline
            self._read(0.05)
            assert running or condition(self.screen), f"this is on the screen:\n{self.screen}"
        return self.screen

    def wait_for_end(self) -> int:
        """The exit code; what was written until then is read."""
        deadline = time.monotonic() + DEADLINE_S
        while self.process.poll() is None:
            assert time.monotonic() < deadline, f"it does not end; on the screen:\n{self.screen}"
            self._read(0.05)
        self._read(0.05)
        return self.process.returncode

    @property
    def screen(self) -> str:
        """The lines on the screen, without blanks at their ends."""
        return "\n".join(row.rstrip() for row in self.rows)

    @property
    def attributes_now(self) -> list[Any]:
        """How the terminal is set: echo, canonical mode …"""
        return termios.tcgetattr(self._slave)

    def close(self) -> None:
        """End what still runs."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self._master)
        os.close(self._slave)

    def _read(self, timeout: float) -> None:
        while select.select([self._master], [], [], timeout)[0]:
            data = self._decoder.decode(os.read(self._master, 65536))
            self.written += data
            self._show(self._rest + data)
            timeout = 0.0

    def _show(self, data: str) -> None:
        begun = _BEGUN.search(data)
        self._rest = begun[0] if begun else ""
        for token in _TOKEN.finditer(data.removesuffix(self._rest)):
            text, private, parameters, final = token[0], token[1], token[2], token[3]
            if final == "H":
                self._row, self._column = int(parameters or 1) - 1, 0
            elif final == "K":
                self._put(self._row, self._column, "", cut=True)
            elif final == "J":
                self.rows = [""] * len(self.rows)
            elif final or private or text[0] in "\x1b\r\n":
                continue
            else:
                self._put(self._row, self._column, text)
                self._column += len(text)

    def _put(self, row: int, column: int, text: str, *, cut: bool = False) -> None:
        if row < len(self.rows):
            old = self.rows[row]
            rest = "" if cut else old[column + len(text) :]
            self.rows[row] = old[:column].ljust(column) + text + rest


@pytest.fixture
def in_terminal() -> Iterator[Callable[..., FakeTerminal]]:
    """Runs the command in a terminal of this size."""
    with contextlib.ExitStack() as stack:

        def run(
            *arguments: str, columns: int = 120, lines: int = 30, stdin: int | None = None, **environment: str
        ) -> FakeTerminal:
            terminal = FakeTerminal(list(arguments), columns, lines, stdin, **environment)
            stack.callback(terminal.close)
            return terminal

        yield run
