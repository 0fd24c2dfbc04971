"""What is seen of a program that was run with introspection and opens no session: its top-level tasks, on any loop."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from openrtc_introspect_core import Block, Snapshot, read_blocks, read_snapshot
from openrtc_introspect_core._base.gil import has_gil

pytestmark = pytest.mark.slow

WITHIN_S = 120.0

TOOLS = """
import asyncio, sys, threading, time

def wait_here():
    "Say that all is there to be seen, and wait for the test."
    print("ready", flush=True)
    sys.stdin.readline()

async def wait():
    await asyncio.get_running_loop().run_in_executor(None, wait_here)
"""


class Running:
    """A program that runs with introspection, and waits until it is ended."""

    def __init__(self, process: subprocess.Popen[str], folder: Path) -> None:
        self._process = process
        self._folder = folder

    def sockets(self) -> list[Path]:
        """Return the sockets of its processes."""
        return sorted(self._folder.glob("*.sock"))

    def snapshot(self) -> Snapshot:
        """Return what its only process shows."""
        (socket,) = self.sockets()
        return read_snapshot(socket)

    def snapshot_when(self, condition: Callable[[Snapshot], bool]) -> Snapshot:
        """Return what it shows once the condition is true of that."""
        deadline = time.monotonic() + WITHIN_S
        while not condition(snapshot := self.snapshot()):
            assert time.monotonic() < deadline, snapshot
            time.sleep(0.05)
        return snapshot

    def names(self) -> dict[str, str]:
        """Return the agent of each of its sessions, by the session's id."""
        return {row.session_id: row.agent_name for row in self.snapshot().sessions}

    def blocks(self) -> list[Block]:
        """Return the blocks of its only process."""
        (socket,) = self.sockets()
        return read_blocks(socket).blocks

    def goes_on(self) -> None:
        """Let it go on until it is ready once more."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        assert self._process.stdout.readline() == "ready\n"

    def end(self) -> str:
        """Let it go on. Return its errors; it has to end well, and leave no socket."""
        _, errors = self._process.communicate("\n", timeout=WITHIN_S)
        assert self._process.returncode == 0, errors
        assert list(self._folder.iterdir()) == []
        return errors


@contextlib.contextmanager
def running(folder: Path, text: str, *options: str) -> Iterator[Running]:
    """Run a program until it says that it is ready."""
    script, sockets = folder / "my_worker.py", folder / "run"
    script.write_text(TOOLS + textwrap.dedent(text))
    sockets.mkdir(mode=0o700, exist_ok=True)
    with subprocess.Popen(
        [sys.executable, "-m", "openrtc_introspect_core", *options, script.name],
        cwd=folder,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stderr is not None
            if process.stdout.readline() != "ready\n":
                pytest.fail(process.stderr.read())
            yield Running(process, sockets)
        finally:
            process.kill()


@pytest.fixture
def folder(runtime_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The program's folder, in which it serves, too."""
    monkeypatch.setenv("OPENRTC_RUNTIME_DIR", str(runtime_dir / "run"))
    return runtime_dir


def line_of(folder: Path, text: str) -> str:
    """Return the place of the program's only line with this text."""
    lines = (folder / "my_worker.py").read_text().splitlines()
    (number,) = [number for number, line in enumerate(lines, start=1) if text in line]
    return f"my_worker.py:{number}"


CALLS = """
async def call(seconds):
    time.sleep(seconds)
    await asyncio.create_task(part())

async def part():
    await asyncio.Event().wait()

async def failing():
    raise LookupError("no menu")

async def main():
    tasks = [asyncio.create_task(call(0)) for _ in range(3)]  # these
    tasks.append(asyncio.create_task(call(0.3), name="job-7"))
    tasks.append(asyncio.create_task(failing()))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    await wait()
    for task in asyncio.all_tasks() - {asyncio.current_task()}:
        task.cancel()
    del tasks
"""


STARTS = [
    "asyncio.run(main())",
    "import uvloop; uvloop.run(main())",
    "loop = asyncio.new_event_loop(); task = loop.create_task(main()); loop.run_until_complete(task); loop.close()",
]


@pytest.mark.parametrize("start", STARTS)
def test_each_task_that_the_main_task_creates_is_a_session(start: str, folder: Path) -> None:
    """It is named by its task or its function, its agent is the line; what it creates is its own; blocks are its."""
    with running(folder, CALLS + start) as program:
        snapshot = program.snapshot_when(lambda snapshot: snapshot.worker.errored == 1)
        shown = {row.session_id: row.agent_name for row in snapshot.sessions if row.status != "errored"}
        calls = line_of(folder, "# these")
        job = line_of(folder, 'name="job-7"')
        main = shown.pop("main")
        assert main.startswith("my_worker.py:")
        assert shown == {"call": calls, "call-2": calls, "call-3": calls, "job-7": job}
        assert [(row.session_id, row.tasks) for row in snapshot.sessions if row.agent_name == job] == [("job-7", 2)]
        (block,) = [block for block in program.blocks() if block.session_id == "job-7"]
        if has_gil():
            assert block.location is not None
            assert f"my_worker.py:{block.location.line}" == line_of(folder, "time.sleep(seconds)")
        assert snapshot.worker.name == "my_worker"
        errors = program.end()
    assert "no menu" in errors
    assert "slow-session" not in errors


@pytest.mark.parametrize("start", STARTS[:2])
def test_connections_of_a_server_are_sessions_whoever_has_started_it(start: str, folder: Path) -> None:
    """The session of a task that starts a server does not have what the server's clients cause."""
    text = """
    async def serve():
        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        ports.append(server.sockets[0].getsockname()[1])
        started.set()
        await asyncio.Event().wait()

    async def answer(reader, writer):
        arrived.release()
        await reader.read()
        writer.close()

    async def main():
        global started, arrived
        started, arrived = asyncio.Event(), asyncio.Semaphore(0)
        server = asyncio.create_task(serve())
        await started.wait()
        clients = [await asyncio.open_connection("127.0.0.1", ports[0]) for _ in range(2)]
        for _ in clients:
            await arrived.acquire()
        await wait()
        for _, writer in clients:
            writer.close()
        server.cancel()

    ports = []
    """
    with running(folder, textwrap.dedent(text) + start) as program:
        assert {"main", "serve", "answer", "answer-2"} == set(program.names())
        program.end()


def test_thousands_of_short_tasks_share_one_session(folder: Path) -> None:
    """The first ones of a line have one each; so the table does not grow without bound."""
    text = """
    async def short():
        await asyncio.sleep(0)

    async def main():
        for _ in range(5000):
            await asyncio.create_task(short())
        lasting = [asyncio.create_task(asyncio.sleep(600)) for _ in range(3000)]
        await asyncio.sleep(0)
        await wait()
        for each in lasting:
            each.cancel()

    asyncio.run(main())
    """
    with running(folder, text) as program:
        snapshot = program.snapshot()
        rows = {row.session_id: row for row in snapshot.sessions}
        assert {"main", "short (others)", "sleep (others)"} <= set(rows)
        assert rows["short (others)"].steps > 1000
        assert 1000 < rows["sleep (others)"].tasks <= 2800
        assert 200 < len(rows) < 1010
        program.end()


def test_loops_in_several_threads_are_one_worker(folder: Path) -> None:
    """Each loop's main task is a session, and loops that are closed are gone."""
    text = """
    async def call(arrived):
        arrived.wait()
        await asyncio.get_running_loop().run_in_executor(None, over.wait)

    over, arrived = threading.Event(), threading.Barrier(4)
    for _ in range(20):
        asyncio.run(asyncio.sleep(0))
    threads = [threading.Thread(target=lambda: asyncio.run(call(arrived))) for _ in range(3)]
    for each in threads:
        each.start()
    arrived.wait()
    wait_here()
    over.set()
    """
    with running(folder, text) as program:
        snapshot = program.snapshot()
        assert len(snapshot.worker.loops) == 3
        assert {"call", "call-2", "call-3"} == {row.session_id for row in snapshot.sessions}
        assert len({row.loop for row in snapshot.sessions}) == 3
        program.end()


def test_loops_that_are_never_closed_are_not_kept(folder: Path) -> None:
    """Python frees them, and their files. One that has a task is kept while that may go on, and seen as before."""
    program = """
        async def call():
            while True:
                time.sleep(0.1)
                await asyncio.sleep(0)

        async def main():
            pass

        busy = asyncio.new_event_loop()
        calling = busy.create_task(call(), name="call")
        busy.run_until_complete(asyncio.sleep(0))
        for _ in range(20):
            asyncio.new_event_loop().run_until_complete(main())
        asyncio.new_event_loop().run_until_complete(wait())
        busy.run_until_complete(asyncio.sleep(0.01))
        wait_here()
        calling.cancel()
        busy.run_until_complete(asyncio.wait([calling]))
        busy.close()
    """
    with running(folder, program) as seen:
        loops = seen.snapshot().worker.loops
        seen.goes_on()
        blocked = {block.session_id for block in seen.blocks()}
        seen.end()
    assert len(loops) <= 2
    assert blocked - {None} == {"call"}  # on a busy machine, a block may be of nobody


def test_on_trio_each_task_that_the_main_task_spawns_is_a_session(folder: Path) -> None:
    """Also those of a server that the main task runs."""
    text = """
    import trio

    async def call():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(part)

    async def part():
        await trio.sleep_forever()

    async def answer(stream):
        await stream.receive_some()

    async def main():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(call)
            nursery.start_soon(call)
            listeners = await nursery.start(trio.serve_tcp, answer, 0)
            stream = await trio.testing.open_stream_to_socket_listener(listeners[0])
            await trio.testing.wait_all_tasks_blocked()
            await trio.to_thread.run_sync(wait_here)
            nursery.cancel_scope.cancel()

    import trio.testing
    trio.run(main)
    """
    with running(folder, text) as program:
        rows = {row.session_id: row.tasks for row in program.snapshot().sessions}
        assert rows["main"] == 1
        assert rows["call"] == rows["call-2"] == 2
        program.end()


def test_a_spawned_process_is_a_worker_of_its_own(folder: Path) -> None:
    """It imports the program's module as ever."""
    text = """
    async def call(ready, over):
        ready.set()
        await asyncio.get_running_loop().run_in_executor(None, over.wait)

    def child(ready, over):
        asyncio.run(call(ready, over))

    if __name__ == "__main__":
        import multiprocessing
        context = multiprocessing.get_context("spawn")
        ready, over = context.Event(), context.Event()
        process = context.Process(target=child, args=[ready, over])
        async def main():
            process.start()
            await asyncio.get_running_loop().run_in_executor(None, ready.wait)
            await wait()
        asyncio.run(main())
        over.set()
        process.join()
        sys.exit(process.exitcode)
    """
    with running(folder, text) as program:
        shown = [{row.session_id for row in read_snapshot(socket).sessions} for socket in program.sockets()]
        assert sorted(shown, key=sorted) == [{"call"}, {"main"}]
        program.end()


def test_it_gives_way_to_the_program_s_own_introspector(folder: Path) -> None:
    """The program's has the loop, the socket and the sessions alone, and no error is printed."""
    text = """
    from openrtc_introspect_core import Introspector, current_session

    async def call():
        with introspector.session("job-1", agent_name="restaurant"):
            assert current_session().session_id == "job-1"
            await over.wait()

    async def main():
        global introspector, over
        over = asyncio.Event()
        before = asyncio.create_task(asyncio.sleep(0))
        async with Introspector(name="its-own") as introspector:
            task = asyncio.create_task(call())
            await asyncio.sleep(0)
            await wait()
            over.set()
            await task
        await asyncio.create_task(asyncio.sleep(0))

    asyncio.run(main())
    asyncio.run(asyncio.sleep(0))
    """
    with running(folder, text, "--name", "ours") as program:
        snapshot = program.snapshot()
        assert snapshot.worker.name == "its-own"
        assert [row.session_id for row in snapshot.sessions] == ["job-1"]
        assert program.end() == ""


def test_options_set_the_name_the_threshold_and_the_socket(folder: Path) -> None:
    """They stand before the program."""
    text = """
    async def call():
        time.sleep(0.2)

    async def main():
        await asyncio.create_task(call())
        await wait()

    asyncio.run(main())
    """
    (folder / "run").mkdir(mode=0o700)
    socket = folder / "run/its.sock"
    options = ("--name", "voice-a", "--slow-session-threshold-ms=30000", "--socket-path", str(socket))
    with running(folder, text, *options) as program:
        assert program.sockets() == [socket]
        snapshot = program.snapshot()
        assert (snapshot.worker.name, snapshot.worker.blocks) == ("voice-a", 0)
        program.end()


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ([], "name a program"),
        (["-"], "name a program"),
        (["-m"], "name a program"),
        (["--colour", "x.py"], "no such option: --colour"),
        (["--name"], "--name takes a value"),
        (["--name", "\n", "x.py"], "name must be at most 64 printable characters"),
        (["--slow-session-threshold-ms", "soon", "x.py"], "takes a number of milliseconds, got 'soon'"),
        (["--slow-session-threshold-ms", "0", "x.py"], "must be greater than 0"),
    ],
)
def test_a_wrong_command_line_is_one_line_and_exit_code_2(arguments: list[str], problem: str, folder: Path) -> None:
    """No program is run."""
    command = [sys.executable, "-m", "openrtc_introspect_core", *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=WITHIN_S, check=False)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert problem in done.stderr


def test_a_socket_that_cannot_be_made_is_one_line_and_the_program_runs_on(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is not measured then."""
    (folder / "run").write_text("no folder")
    (folder / "my_worker.py").write_text(
        TOOLS + "asyncio.run(asyncio.sleep(0)); asyncio.run(asyncio.sleep(0)); print('ran')"
    )
    command = [sys.executable, "-m", "openrtc_introspect_core", "my_worker.py"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=WITHIN_S, check=False)
    assert (done.returncode, done.stdout) == (0, "ran\n"), done.stderr
    assert done.stderr.startswith("openrtc: ")
    assert done.stderr.count("\n") == 1
