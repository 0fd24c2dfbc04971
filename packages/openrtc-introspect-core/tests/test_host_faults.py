"""Faults of the host take the course that they take without us, and the accounting is right afterwards."""

from __future__ import annotations

import asyncio
import builtins
import gc
import os
import random
import re
import subprocess
import sys
import tempfile
import textwrap
import time
import weakref
from collections.abc import Callable, Coroutine, Generator, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from openrtc_introspect_core import EndpointError, Introspector, current_session
from openrtc_introspect_core.wire import discover
from openrtc_introspect_core.wire._places import worker_dir
from openrtc_introspect_testing._loops.fake_loop import FakeLoop

Run = Callable[[Coroutine[Any, Any, Any]], Any]
WITHIN_S = 60.0

posix_only = pytest.mark.skipif(sys.platform == "win32", reason="serves no socket")


def run_script(
    code: str, *arguments: str, options: tuple[str, ...] = ("-W", "default")
) -> subprocess.CompletedProcess[str]:
    """Run `code` in a process of its own, by default with every warning shown. Return the ended process.

    Log lines of blocks are removed from its stderr: a busy machine may cause some.
    """
    command = [sys.executable, *options, "-c", textwrap.dedent(code), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=WITHIN_S, check=False)
    done.stderr = "".join(line for line in done.stderr.splitlines(True) if not line.startswith(("[slow-", "[blocked-")))
    return done


def found_here() -> list[Path]:
    """Return the live sockets of this test's own directory: others may run workers on this machine."""
    return [worker.path for worker in discover() if worker.path.parent == worker_dir()]


# --- tasks cancelled at random points ------------------------------------------------------------

MS = 0.001


class Counted(Coroutine[Any, Any, Any]):
    """A coroutine that counts its steps itself, and what they take: the truth to compare with."""

    def __init__(self, coro: Coroutine[Any, Any, Any], truth: list[float], clock: Callable[[], float]) -> None:
        self._coro, self._truth, self._clock = coro, truth, clock

    def _step(self, step: Callable[..., Any], *given: Any) -> Any:
        began = self._clock()
        try:
            return step(*given)
        finally:
            self._truth[0] += 1
            self._truth[1] += self._clock() - began

    def send(self, value: Any) -> Any:
        return self._step(self._coro.send, value)

    def throw(self, *given: Any) -> Any:
        return self._step(self._coro.throw, *given)

    def close(self) -> None:
        self._coro.close()

    def __await__(self) -> Generator[Any, Any, Any]:
        return (yield from self._coro.__await__())


class Stop(BaseException):
    """An exception of the host's own."""


ERRORS: dict[str, Callable[[], BaseException]] = {
    "error": lambda: ValueError("wrong"),
    "group": lambda: ExceptionGroup("several", [ValueError("a"), KeyError("b")]),
    "base": lambda: Stop("now"),
    "base group": lambda: BaseExceptionGroup("several", [Stop("a")]),
    "exit": lambda: GeneratorExit("early"),
    "stop": lambda: StopIteration(7),
    "cancelled": lambda: asyncio.CancelledError("by itself"),
}

_numbers = st.integers(0, 5)
_op = st.one_of(
    st.tuples(st.just("sleep"), st.integers(0, 30)),
    st.tuples(st.just("hold"), st.integers(1, 9)),
    st.tuples(st.just("cancel"), _numbers),
    st.tuples(st.just("await"), _numbers),
    st.tuples(st.just("shield"), _numbers),
    st.tuples(st.just("timeout"), st.integers(0, 20)),
    st.tuples(st.just("swallow"), st.integers(0, 20)),
    st.tuples(st.just("clean up"), st.integers(0, 20)),
    st.tuples(st.just("spawn"), _numbers),
    st.tuples(st.just("group"), st.integers(1, 3)),
    st.tuples(st.just("raise"), st.sampled_from(sorted(ERRORS))),
)
PROGRAMS = st.lists(st.lists(_op, max_size=6), min_size=1, max_size=6)


async def play(program: list[list[tuple[str, Any]]], log: list[Any], truth: list[float]) -> None:
    """Run a task for each list of operations; the log gets what happens, and when."""
    loop: Any = asyncio.get_running_loop()
    tasks: list[asyncio.Task[Any]] = []
    spawned = 0

    def record(*event: Any) -> None:
        log.append((round(loop.time() * 1000), *event))

    def start(name: str, coro: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        task = asyncio.create_task(Counted(coro, truth, loop.clock), name=name)
        tasks.append(task)
        return task

    async def nap(me: str, ms: int) -> str:
        record(me, "naps")
        await asyncio.sleep(ms * MS)
        return me

    async def follow(me: str, ops: list[tuple[str, Any]]) -> str:
        nonlocal spawned
        for op, what in ops:
            record(me, op, what)
            match op:
                case "sleep":
                    await asyncio.sleep(what * MS)
                case "hold":
                    loop.block(what * MS)
                case "cancel":
                    record(tasks[what % len(tasks)].cancel(f"by {me}"))
                case "await" | "shield":
                    other = tasks[what % len(tasks)]
                    if other is not asyncio.current_task():
                        waited: Any = asyncio.shield(other) if op == "shield" else other
                        done, _ = await asyncio.wait([asyncio.ensure_future(waited)], timeout=20 * MS)
                        record(me, len(done))
                case "timeout":
                    try:
                        async with asyncio.timeout(what * MS):
                            await asyncio.sleep(10 * MS)
                    except TimeoutError:
                        record(me, "timed out")
                case "swallow":
                    try:
                        await asyncio.sleep(what * MS)
                    except asyncio.CancelledError as error:
                        record(me, "swallowed", *error.args)
                case "clean up":
                    try:
                        await asyncio.sleep(what * MS)
                    finally:
                        await asyncio.sleep(MS)
                        record(me, "clean")
                case "spawn":
                    if spawned < 20:
                        spawned += 1
                        start(f"{me}/{spawned}", follow(f"{me}/{spawned}", ops[-what:] if what else []))
                case "group":
                    async with asyncio.TaskGroup() as group:
                        for number in range(what):
                            child = Counted(nap(f"{me}.{number}", 3 * number), truth, loop.clock)
                            tasks.append(group.create_task(child, name=f"{me}.{number}"))
                case "raise":
                    error = ERRORS[what]()
                    raise error
        return me

    for number, ops in enumerate(program):
        start(f"task {number}", follow(f"task {number}", ops))
    seen = 0
    while seen < len(tasks):
        task = tasks[seen]
        await asyncio.wait([task])
        if task.cancelled():
            record(task.get_name(), "was cancelled")
        elif (error := task.exception()) is not None:
            record(task.get_name(), type(error).__name__, str(error))
        else:
            record(task.get_name(), task.result())
        seen += 1


def by_actor(log: list[Any]) -> dict[Any, list[Any]]:
    """Return what each task did, in its order."""
    found: dict[Any, list[Any]] = {}
    for entry in log:
        found.setdefault(entry[1], []).append(entry)
    return found


def _quiet(loop: Any) -> None:
    loop.set_exception_handler(lambda loop, context: None)  # a shielded task may fail unseen


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(program=PROGRAMS)
@example(program=[[("cancel", 0), ("group", 3)], [("sleep", 0), ("shield", 3), ("sleep", 0), ("sleep", 0)]])
@example(program=[[("hold", 5), ("raise", "error")]])  # a step that holds the loop and ends by an exception
def test_tasks_cancelled_anywhere_end_as_without_us(program: list[list[tuple[str, Any]]]) -> None:
    """The same happens at the same time, and the session is charged with what the steps themselves counted."""

    async def plain() -> Any:
        log: list[Any] = []
        _quiet(asyncio.get_running_loop())
        await play(program, log, [0, 0.0])
        return log

    async def metered() -> Any:
        log: list[Any] = []
        truth = [0, 0.0]
        loop: Any = asyncio.get_running_loop()
        _quiet(loop)
        async with Introspector(socket_path=False, stacks=False, clock=loop.clock) as introspector:
            with introspector.session("job-1", agent_name="a"):
                before = introspector.snapshot().sessions[0]
                await asyncio.create_task(_counted(play(program, log, truth), truth, loop.clock))
                row = introspector.snapshot().sessions[0]
            assert introspector.snapshot().worker.notes == []
        # Tasks that the helpers of asyncio make (a shield's, a wait's) run uncounted code of no length.
        return log, truth[1], row.cpu_s - before.cpu_s, row.tasks, row.steps - before.steps >= truth[0]

    def run_plain() -> list[Any]:
        with asyncio.Runner(loop_factory=FakeLoop) as runner:
            return runner.run(plain())

    expected = run_plain()
    with asyncio.Runner(loop_factory=FakeLoop) as runner:
        log, held, charged, left, all_steps = runner.run(metered())
    if log != expected:
        # asyncio keeps tasks in sets: what happens at one time, it does in an order that addresses decide.
        others = [(run_plain(), [object() for _ in range(number)])[0] for number in range(100)]
        assert any(other != expected for other in others), (log, expected)
        assert by_actor(log) == by_actor(expected)
    assert charged == pytest.approx(held, abs=1e-9)
    assert left == 1
    assert all_steps


async def _counted(coro: Coroutine[Any, Any, Any], truth: list[float], clock: Callable[[], float]) -> None:
    """Count the steps of `play`, and not its time, which its tasks count already."""
    inner = [0, 0.0]
    await Counted(coro, inner, clock)
    truth[0] += inner[0]


# --- exceptions ----------------------------------------------------------------------------------


def _every_builtin_exception() -> list[type[BaseException]]:
    found = {kind for kind in vars(builtins).values() if isinstance(kind, type) and issubclass(kind, BaseException)}
    return sorted(found, key=lambda kind: kind.__name__)


def _made(kind: type[BaseException]) -> BaseException:
    if issubclass(kind, BaseExceptionGroup):
        return kind("several", [ValueError("one")])
    if issubclass(kind, UnicodeError) and kind is not UnicodeError:
        return (
            kind("ascii", "é", 0, 1, "no")
            if kind is UnicodeEncodeError
            else (
                kind(b"\xff".decode("latin-1"), 0, 1, "no")
                if kind is UnicodeTranslateError
                else kind("ascii", b"\xff", 0, 1, "no")
            )
        )
    return kind("now")


@pytest.mark.parametrize("kind", _every_builtin_exception(), ids=lambda kind: kind.__name__)
def test_every_exception_ends_a_task_as_without_us(kind: type[BaseException]) -> None:
    """KeyboardInterrupt and SystemExit, which end the loop, come out of it, and the scope is left."""

    def outcome(introspector: Introspector | None) -> Any:
        outcomes: list[Any] = []

        async def fail() -> None:
            await asyncio.sleep(0)
            raise _made(kind)

        async def main() -> None:
            if introspector is None:
                task = asyncio.create_task(fail())
            else:
                with introspector.session("job-1", agent_name="a"):
                    task = asyncio.create_task(fail())
            await asyncio.wait([task])
            outcomes.append("cancelled" if task.cancelled() else (type(task.exception()), str(task.exception())))

        loop = asyncio.new_event_loop()
        try:
            if introspector is not None:
                introspector.attach(loop)
            try:
                loop.run_until_complete(main())
            except BaseException as error:
                outcomes.append((type(error), str(error)))
                for task in asyncio.all_tasks(loop):
                    task.cancel()
                loop.run_until_complete(asyncio.sleep(0.01))
            if introspector is not None:
                snapshot = introspector.snapshot()
                assert snapshot.worker.notes == []
                assert snapshot.sessions == []
        finally:
            if introspector is not None:
                introspector.close()
            loop.close()
        return outcomes

    assert outcome(Introspector(socket_path=False)) == outcome(None)


@pytest.mark.parametrize("kind", _every_builtin_exception(), ids=lambda kind: kind.__name__)
def test_a_scope_lets_every_exception_through(kind: type[BaseException], run_virtually: Run) -> None:
    """An Exception counts as errored; an end from outside does not."""

    async def main() -> None:
        async with Introspector(socket_path=False) as introspector:
            given = _made(kind)
            caught: list[BaseException] = []
            try:
                with introspector.session("job-1", agent_name="a"):
                    raise given
            except BaseException as error:
                caught.append(error)
            assert caught == [given]
            assert introspector.snapshot().worker.errored == isinstance(given, Exception)
            assert current_session() is None

    run_virtually(main())


# --- generators ----------------------------------------------------------------------------------


def test_generators_with_a_scope_that_are_closed_early_end_their_session(run: Run) -> None:
    """They are closed by `close`, by the collector or by the loop's shutdown, in whatever context."""

    async def main() -> Introspector:
        async with Introspector(socket_path=False) as introspector:

            def scoped(session_id: str) -> Iterator[int]:
                with introspector.session(session_id, agent_name="a"):
                    yield from range(10)

            async def scoped_too(session_id: str) -> Any:
                with introspector.session(session_id, agent_name="a"):
                    for number in range(10):
                        yield number

            def live() -> list[str]:
                return [row.session_id for row in introspector.snapshot().sessions]

            early = scoped("closed")
            next(early)
            early.close()
            dropped = scoped("dropped")
            next(dropped)
            elsewhere: Any = scoped("closed elsewhere")

            async def begin() -> None:
                next(elsewhere)

            await asyncio.create_task(begin())
            assert live() == ["dropped", "closed elsewhere"]
            del dropped
            elsewhere.close()
            gc.collect()
            assert live() == []
            async for _ in scoped_too("left"):
                break
            stream = scoped_too("closed")
            await anext(stream)
            await stream.aclose()
            gc.collect()
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            assert live() == []
            assert introspector.snapshot().worker.notes == []
            assert current_session() is None
        return introspector

    run(main())


# --- loops ---------------------------------------------------------------------------------------


@pytest.mark.gil
@pytest.mark.parametrize("factory", ["asyncio.new_event_loop", "uvloop.new_event_loop"])
@pytest.mark.parametrize("metered", [False, True], ids=["without", "with"])
def test_a_loop_stopped_restarted_and_closed_with_tasks_pending(factory: str, metered: bool) -> None:
    """asyncio's words on the pending task are all that is printed, with us as without."""
    code = f"""
        import asyncio, contextlib, gc, time, uvloop
        from openrtc_introspect_core import Introspector

        loop = {factory}()
        introspector = Introspector(socket_path=False) if {metered} else None
        if introspector is not None:
            introspector.attach(loop)

        def scope(name):
            return introspector.session(name, agent_name="a") if introspector is not None else contextlib.nullcontext()

        async def tick(results):
            with scope("tick"):
                for _ in range(5):
                    await asyncio.sleep(0.001)
                    results.append(1)

        async def forever():
            with scope("forever"):
                await asyncio.sleep(3600)

        results = []
        pending = loop.create_task(forever(), name="pending")
        for _ in range(3):
            loop.run_until_complete(tick(results))
        loop.call_later(0.01, loop.stop)
        loop.run_forever()
        time.sleep(0.1)  # stopped, not blocked
        loop.run_until_complete(tick(results))
        assert len(results) == 20
        if introspector is not None:
            snapshot = introspector.snapshot()
            assert snapshot.worker.started == 5, snapshot
            assert snapshot.worker.notes == [], snapshot
            assert [row.session_id for row in snapshot.sessions] == ["forever"]
            # On uvloop the stop shows as a block of no session: its heartbeat cannot distinguish them.
            blocks = [block for block in introspector.blocks() if block.duration_ms >= 90]
            assert all(block.session_id is None for block in blocks)
            assert not blocks or snapshot.worker.loop == "uvloop", blocks
        loop.close()
        if introspector is not None:
            introspector.snapshot()
            introspector.close()
        pending = None
        gc.collect()
        print("over")
    """
    done = run_script(code)
    assert (done.returncode, done.stdout) == (0, "over\n"), done.stderr
    assert done.stderr.count("Task was destroyed but it is pending!") == 1
    assert "openrtc_introspect_core" not in done.stderr


_ENDINGS = {
    "exit": "sys.exit(3)",
    "_exit": "os._exit(3)",
    "_exit of a thread": "threading.Timer(0.05, os._exit, [3]).start(); await asyncio.sleep(60)",
    "exit of a callback": "asyncio.get_running_loop().call_soon(sys.exit, 3); await asyncio.sleep(60)",
    "at exit": "atexit.register(lambda: introspector.snapshot()); sys.exit(3)",
    "daemon threads": (
        "threading.Thread(target=call_for_ever, daemon=True).start(); await asyncio.sleep(0.05); sys.exit(3)"
    ),
}


@posix_only
@pytest.mark.parametrize(
    ("factory", "ending"),
    [
        *(pytest.param("asyncio.new_event_loop", ending, id=f"asyncio-{name}") for name, ending in _ENDINGS.items()),
        pytest.param("uvloop.new_event_loop", _ENDINGS["exit"], id="uvloop-exit"),
        pytest.param("uvloop.new_event_loop", _ENDINGS["daemon threads"], id="uvloop-daemon threads"),
    ],
)
def test_the_interpreter_ends_while_it_runs(runtime_dir: Path, factory: str, ending: str) -> None:
    """It ends at once, with its exit code, and prints nothing."""
    code = f"""
        import asyncio, atexit, os, sys, threading, uvloop
        from openrtc_introspect_core import Introspector

        introspector = Introspector()

        def call_for_ever():
            number = 0
            while True:
                number += 1
                with introspector.session(f"thread-{{number}}", agent_name="a"):
                    introspector.snapshot()

        async def call():
            with introspector.session("job-1", agent_name="a"):
                while True:
                    await asyncio.sleep(0.001)

        async def main():
            introspector.attach()
            calling = asyncio.create_task(call())
            await asyncio.sleep(0.02)
            {ending}

        with asyncio.Runner(loop_factory={factory}) as runner:
            runner.run(main())
    """
    done = run_script(code)
    assert (done.returncode, done.stdout, done.stderr) == (3, "", "")


def test_a_loop_in_a_daemon_thread_ends_with_the_interpreter(runtime_dir: Path) -> None:
    """It ends even in the middle of a step."""
    code = """
        import asyncio, threading, time
        from openrtc_introspect_core import Introspector

        started = threading.Event()

        async def main():
            async with Introspector() as introspector:
                with introspector.session("job-1", agent_name="a"):
                    started.set()
                    while True:
                        time.sleep(0.06)
                        await asyncio.sleep(0)

        threading.Thread(target=asyncio.run, args=[main()], daemon=True).start()
        started.wait(30)
        time.sleep(0.1)
    """
    done = run_script(code)
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr == ""


# --- processes -----------------------------------------------------------------------------------


@pytest.mark.gil
@posix_only
def test_a_child_forked_in_mid_step_goes_on_alone(runtime_dir: Path) -> None:
    """It leaves its scopes, closes, and may be introspected itself; the parent's socket and ledger are not touched."""
    code = """
        import asyncio, os
        from openrtc_introspect_core import Introspector, read_snapshot

        async def in_child():
            async with Introspector(name="child") as introspector:
                snapshot = await asyncio.to_thread(read_snapshot, introspector.socket_path)
                assert snapshot.worker.pid == os.getpid()

        async def call(introspector):
            with introspector.session("job-1", agent_name="a"):
                await asyncio.sleep(0.01)
                pid = os.fork()  # in the middle of a step
            if pid == 0:
                try:
                    introspector.aclose().send(None)  # as `async with` does; asyncio forgets in a child that it runs
                except StopIteration:
                    asyncio.run(in_child())
                    os._exit(7)
                finally:
                    os._exit(8)
            return pid

        async def main():
            async with Introspector() as introspector:
                for turn in range(1, 6):
                    pid = await asyncio.create_task(call(introspector))
                    _, status = await asyncio.to_thread(os.waitpid, pid, 0)
                    assert os.waitstatus_to_exitcode(status) == 7, status
                    assert introspector.socket_path.is_socket()
                    snapshot = await asyncio.to_thread(read_snapshot, introspector.socket_path)
                    assert snapshot.worker.notes == [], snapshot
                    assert snapshot.worker.started == turn
            print("parent")

        asyncio.run(main())
    """
    done = run_script(code, options=("-W", "ignore::DeprecationWarning"))
    assert (done.returncode, done.stdout, done.stderr) == (0, "parent\n", "")
    assert list(runtime_dir.iterdir()) == []


@posix_only
def test_a_child_forked_in_mid_step_reports_no_block_of_the_parent(runtime_dir: Path) -> None:
    """The step goes on in the child for longer than the threshold; the parent alone logs its own part of it."""
    code = """
        import asyncio, logging, os, signal, time
        from openrtc_introspect_core import Introspector
        from openrtc_introspect_core._base.log import flush

        class Handler(logging.Handler):
            def emit(self, record):
                os.write(1, f"{'parent' if os.getpid() == parent else 'child'} {record.getMessage()[:31]}\\n".encode())

        def leave():
            flush(10)
            os._exit(0)

        async def call():
            loop = asyncio.get_running_loop()
            time.sleep(0.1)
            if os.fork() == 0:
                signal.alarm(20)
                time.sleep(0.1)
                loop.call_soon(leave)  # right after the step, which ends here in the child
                return
            os.wait()

        async def main():
            async with Introspector() as introspector:
                with introspector.session("job-1", agent_name="a"):
                    await asyncio.create_task(call())

        parent = os.getpid()
        logging.getLogger("openrtc.introspect").addHandler(Handler())
        asyncio.run(main())
    """
    done = run_script(code, options=("-W", "ignore::DeprecationWarning"))
    assert done.stdout == "parent [slow-session] session_id=job-1\n", done.stderr
    assert done.returncode == 0


@posix_only
def test_a_process_that_replaces_itself_is_found_once(runtime_dir: Path) -> None:
    """The new program's worker has the same pid and name; the old socket has no owner, and is not listed."""
    code = """
        import asyncio, os, sys
        from openrtc_introspect_core import Introspector, read_snapshot
        from openrtc_introspect_core.wire import discover
        from openrtc_introspect_core.wire._places import worker_dir

        async def main(again):
            async with Introspector(name="w") as introspector:
                with introspector.session("job-1", agent_name="a"):
                    if not again:
                        os.execv(sys.executable, [sys.executable, "-c", sys.argv[1], sys.argv[1], "again"])
                    (found,) = [each for each in discover() if each.path.parent == worker_dir()]
                    assert found.path == introspector.socket_path
                    assert found.pid == os.getpid()
                    print((await asyncio.to_thread(read_snapshot, found.path)).worker.pid == os.getpid())

        asyncio.run(main(len(sys.argv) > 2))
    """
    text = textwrap.dedent(code)
    done = run_script(text, text)
    assert (done.returncode, done.stdout, done.stderr) == (0, "True\n", "")


_FOREVER = """
    import asyncio, sys
    from openrtc_introspect_core import Introspector

    async def main():
        async with Introspector(name="w", socket_path=sys.argv[1] if len(sys.argv) > 1 else None) as introspector:
            print(introspector.socket_path, flush=True)
            await asyncio.sleep(60)

    asyncio.run(main())
"""


def _killed_worker(*arguments: str) -> Path:
    command = [sys.executable, "-c", textwrap.dedent(_FOREVER), *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        path = Path(process.stdout.readline().strip())
        process.kill()
    return path


@posix_only
def test_a_killed_worker_s_socket_is_cleaned_up_by_the_next(runtime_dir: Path, run_on_asyncio: Run) -> None:
    """Until then no client takes it for a worker."""
    path = _killed_worker()
    assert path.is_socket()
    assert found_here() == []
    os.utime(path, (time.time() - 60,) * 2)

    async def main() -> None:
        async with Introspector(name="w") as introspector:
            assert not path.exists()
            assert found_here() == [introspector.socket_path]

    run_on_asyncio(main())


@posix_only
@pytest.mark.parametrize("ahead_s", [-86_400, 86_400], ids=["into the future", "into the past"])
def test_a_socket_from_before_the_clock_was_set_is_replaced(
    runtime_dir: Path, run_on_asyncio: Run, ahead_s: float
) -> None:
    """With the clock set back or forward, it is not taken for one that was made a moment ago."""
    path = _killed_worker(str(runtime_dir / "w.sock"))
    os.utime(path, (time.time() + ahead_s,) * 2)

    async def main() -> None:
        async with Introspector(socket_path=path):
            assert found_here() == [path]

    run_on_asyncio(main())


# --- exhausted resources -------------------------------------------------------------------------

_MOUNTED = """
    import asyncio, ctypes, os, sys
    from openrtc_introspect_core import EndpointError, Introspector
    libc = ctypes.CDLL(None, use_errno=True)
    CLONE_NEWNS, MS_REC, MS_PRIVATE, MS_REMOUNT, MS_RDONLY = 0x20000, 0x4000, 1 << 18, 32, 1
    if libc.unshare(CLONE_NEWNS) or libc.mount(None, b"/", None, MS_REC | MS_PRIVATE, None):
        sys.exit(77)
    place = sys.argv[1].encode()
    if libc.mount(b"none", place, b"tmpfs", 0, b"mode=0700,nr_inodes=" + sys.argv[2].encode()):
        sys.exit(77)
    if sys.argv[3] == "read-only" and libc.mount(None, place, None, MS_REMOUNT | MS_RDONLY, None):
        sys.exit(77)

    async def main():
        loop = asyncio.get_running_loop()
        try:
            async with Introspector():
                pass
        except EndpointError as error:
            print(error)
        assert loop.get_task_factory() is None
        async with Introspector(socket_path=False) as introspector:
            with introspector.session("job-1", agent_name="a"):
                await asyncio.sleep(0)
            (note,) = introspector.snapshot().worker.notes
            assert note.startswith("there is no black box, "), note
        async with Introspector(socket_path=False, black_box=False) as introspector:
            assert introspector.snapshot().worker.notes == []

    asyncio.run(main())
    assert os.listdir(place) in ([], [b"openrtc"]), os.listdir(place)
"""


@pytest.mark.gil
@pytest.mark.skipif(sys.platform != "linux", reason="mounts a file system of its own")
@pytest.mark.parametrize(
    ("inodes", "mode", "problem"),
    [
        ("1", "", "cannot create socket directory .*: No space left on device; set OPENRTC_RUNTIME_DIR"),
        ("2", "", "cannot create socket .*: No space left on device"),
        ("9", "read-only", "cannot create socket directory .*: Read-only file system; set OPENRTC_RUNTIME_DIR"),
    ],
    ids=["full for the directory", "full for the socket", "read-only"],
)
def test_a_runtime_directory_that_takes_no_socket_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, inodes: str, mode: str, problem: str
) -> None:
    """The start raises one line that says what to do; without a socket it meters all the same."""
    place = Path(tempfile.mkdtemp(dir="/tmp"))
    monkeypatch.setenv("OPENRTC_RUNTIME_DIR", str(place / "openrtc"))
    try:
        done = run_script(_MOUNTED, str(place), inodes, mode)
    finally:
        place.rmdir()
    if done.returncode == 77:
        pytest.skip("this user may not mount a file system of its own")
    assert done.returncode == 0, done.stderr
    assert re.fullmatch("introspection of worker: there is no black box, .*\n", done.stderr)
    assert len(done.stdout.splitlines()) == 1
    assert re.match(problem, done.stdout)


@pytest.mark.gil
@posix_only
def test_file_descriptors_that_run_out_pass(runtime_dir: Path) -> None:
    """Sessions go on, unreadable figures stay and are noted, clients wait; afterwards all is as before."""
    code = """
        import asyncio, os, resource, socket, threading
        from openrtc_introspect_core import Introspector, read_snapshot

        async def until(condition):
            while not condition():
                await asyncio.sleep(0.01)

        async def main():
            async with Introspector(memory_interval_s=0.05) as introspector:
                with introspector.session("job-1", agent_name="a"):
                    steps = lambda: introspector.snapshot().sessions[0].steps
                    await until(lambda: introspector.snapshot().worker.host.cpu_pct is not None)
                    waiting = [socket.socket(socket.AF_UNIX) for _ in range(3)]
                    resource.setrlimit(resource.RLIMIT_NOFILE, (96, 96))
                    held = []
                    try:
                        while True:
                            held.append(os.open(os.devnull, os.O_RDONLY))
                    except OSError:
                        pass
                    for each in waiting:
                        each.connect(str(introspector.socket_path))
                    await until(lambda: len(introspector.snapshot().worker.notes) == 2)
                    worker = introspector.snapshot().worker
                    assert all("Too many open files" in note for note in worker.notes), worker
                    assert worker.rss_mb > 1 and worker.host.threads >= 2, worker
                    before = steps()
                    await asyncio.sleep(0.01)
                    assert steps() > before
                    for each in held:
                        os.close(each)
                    await until(lambda: introspector.snapshot().worker.notes == [])
                    for each in waiting:
                        each.settimeout(30)
                        assert (await asyncio.to_thread(each.recv, 10)) == b'{"type":"h'
                        each.close()
                    snapshot = await asyncio.to_thread(read_snapshot, introspector.socket_path, timeout_s=30)
                    assert [row.session_id for row in snapshot.sessions] == ["job-1"]
            print("over")

        asyncio.run(main())
    """
    done = run_script(code)
    assert (done.returncode, done.stdout, done.stderr) == (0, "over\n", "")


@posix_only
def test_a_host_that_closes_all_files_goes_on(runtime_dir: Path) -> None:
    """As programs do that become daemons: introspection ends, which is logged, and no thread of ours raises."""
    done = run_script(
        """
        import asyncio, os
        from openrtc_introspect_core import Introspector

        introspector = Introspector(name="daemon")

        async def main():
            introspector.attach()
            await asyncio.sleep(0.05)

        asyncio.run(main())
        os.closerange(3, 4096)
        introspector.close()
        print("goes on")
        """
    )
    assert (done.returncode, done.stdout) == (0, "goes on\n"), done.stderr
    assert "Exception in thread" not in done.stderr
    assert "could not be released" not in done.stderr


@posix_only
@pytest.mark.parametrize("spare", [0, 2, 3, 5, 6])
def test_a_start_without_file_descriptors_works_or_leaves_nothing(runtime_dir: Path, spare: int) -> None:
    """It never starts without its service."""
    code = """
        import asyncio, os, resource, sys, threading, time
        import anyio._backends._asyncio, psutil
        from openrtc_introspect_core import Introspector, read_snapshot
        import openrtc_introspect_core._os.host_vitals
        from openrtc_introspect_core._service import rss_shares, worker_service

        async def main():
            loop = asyncio.get_running_loop()
            resource.setrlimit(resource.RLIMIT_NOFILE, (96, 96))
            held = []
            try:
                while True:
                    held.append(os.open(os.devnull, os.O_RDONLY))
            except OSError:
                pass
            for each in held[: int(sys.argv[1])]:
                os.close(each)
            introspector = Introspector()
            try:
                introspector.attach()
            except OSError as error:
                assert "Too many open files" in str(error), error
                for each in held[int(sys.argv[1]) :]:
                    os.close(each)
                assert loop.get_task_factory() is None
                assert os.listdir(os.environ["OPENRTC_RUNTIME_DIR"]) == []
                while any("openrtc" in each.name for each in threading.enumerate()):  # one may be about to start
                    time.sleep(0.01)
                return
            for each in held[int(sys.argv[1]) :]:
                os.close(each)
            snapshot = await asyncio.to_thread(read_snapshot, introspector.socket_path, timeout_s=30)
            assert snapshot.worker.pid == os.getpid()
            await introspector.aclose()

        asyncio.run(main())
    """
    done = run_script(code, str(spare))
    assert (done.returncode, done.stdout) == (0, "")
    # CPython's own: a loop that could not be made complains when it is collected.
    assert "openrtc_introspect_core" not in done.stderr


def test_wall_clock_jumps_change_no_figure(run_virtually: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ages, shares and the order and distance of times are those of a clock that is never set."""
    real = time.time
    ahead = random.Random(7)

    async def main() -> list[Any]:
        loop: Any = asyncio.get_running_loop()
        async with Introspector(socket_path=False, clock=loop.clock, stacks=False) as introspector:
            with introspector.session("job-1", agent_name="a"):
                taken = []
                for _ in range(6):
                    offset = ahead.uniform(-1e6, 1e6)
                    monkeypatch.setattr(time, "time", lambda offset=offset: real() + offset)
                    await asyncio.sleep(1)
                    loop.block(0.1)
                    taken.append(introspector.snapshot())
            return taken

    taken = run_virtually(main())
    distances = [round(later.taken_at - before.taken_at, 3) for before, later in pairwise(taken)]
    assert distances == [1.1] * 5
    assert len({row.started_at for snapshot in taken for row in snapshot.sessions}) == 1
    assert [round(snapshot.sessions[0].duration_s, 3) for snapshot in taken] == [1.1, 2.2, 3.3, 4.4, 5.5, 6.6]


# --- memory and depth ----------------------------------------------------------------------------


def test_without_a_collector_nothing_of_a_session_stays(run: Run) -> None:
    """Tasks leave no cycle behind, however they end: what they held is freed at once."""

    class Held:
        pass

    async def main() -> list[Any]:
        held: list[weakref.ref[Held]] = []
        async with Introspector(socket_path=False) as introspector:

            async def work(end: str) -> None:
                mine = Held()
                held.append(weakref.ref(mine))
                await asyncio.sleep(0)
                if end == "error":
                    raise ValueError("wrong")
                await asyncio.sleep(0 if end == "result" else 60)

            async def call(number: int, end: str) -> None:
                with introspector.session(f"job-{number}", agent_name="a"):
                    tasks = [asyncio.create_task(work(end)) for _ in range(3)]
                    await asyncio.sleep(0)
                    await asyncio.sleep(0)
                    if end == "cancel":
                        for task in tasks:
                            task.cancel()
                    await asyncio.wait(tasks)
                    for task in tasks:
                        if not task.cancelled():
                            task.exception()

            for number, end in enumerate(("result", "error", "cancel") * 3):
                await asyncio.create_task(call(number, end))
            await asyncio.sleep(0)
            return [reference() for reference in held]

    gc.collect()
    gc.disable()
    try:
        assert run(main()) == [None] * 27
    finally:
        gc.enable()


@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited")
def test_a_recursion_limit_hit_in_a_step_is_the_host_s_own_error(run_virtually: Run) -> None:
    """A step makes tasks as deep as it can: the error is raised there, and the session's count of tasks is right."""

    async def main() -> tuple[int, int, int]:
        loop: Any = asyncio.get_running_loop()
        loop.set_exception_handler(lambda loop, context: None)  # a task that was made and could not be scheduled
        made: list[asyncio.Task[None]] = []
        failed = 0
        async with Introspector(socket_path=False, clock=loop.clock, stacks=False) as introspector:

            async def child() -> None:
                await asyncio.sleep(0)

            def at_depth(depth: int) -> None:
                if depth:
                    at_depth(depth - 1)
                else:
                    made.append(asyncio.create_task(child()))

            with introspector.session("outer", agent_name="a"):
                limit = sys.getrecursionlimit()
                for depth in range(limit - 120, limit):
                    try:
                        at_depth(depth)
                    except RecursionError:
                        failed += 1
                await asyncio.wait(made)
                gc.collect()
                (row,) = introspector.snapshot().sessions
            assert introspector.snapshot().worker.notes == []
            assert current_session() is None
        return len(made), failed, row.tasks

    made, failed, left = run_virtually(main())
    assert made
    assert failed
    assert left == 1


def test_settings_that_cannot_work_are_refused_at_once(runtime_dir: Path, run_on_asyncio: Run) -> None:
    """One is a directory that is gone by the time it starts."""

    async def main() -> None:
        introspector = Introspector(socket_path=runtime_dir / ("d" * 20) / "w.sock")
        (runtime_dir / ("d" * 20)).write_text("mine")
        with pytest.raises(EndpointError, match="is not a directory"):
            introspector.attach()

    run_on_asyncio(main())


@posix_only
@pytest.mark.parametrize("cpu", ["exact", "sampled"])
def test_threads_of_ours_import_nothing(runtime_dir: Path, cpu: str) -> None:
    """If the host forked during an import, the module's import lock would be held for ever in the child."""
    code = """
        import sys, threading
        seen = set()

        def audit(event, arguments):
            if event == "import" and threading.current_thread().name.startswith("openrtc"):
                seen.add(arguments[0])

        sys.addaudithook(audit)
        import asyncio, json, socket, time
        from openrtc_introspect_core import Introspector

        REQUESTS = [
            {"type": "snapshot"}, {"type": "blocks"}, {"type": "tasks", "session_id": "job-1"}, {"type": "stacks"},
            {"type": "nope"}, {"type": "watch", "interval_s": 0.1},
        ]

        def ask(path):
            with socket.socket(socket.AF_UNIX) as client:
                client.connect(str(path))
                lines = client.makefile("rw")
                lines.readline()
                for request in REQUESTS:
                    lines.write(json.dumps({**request, "id": 1}) + chr(10))
                    lines.flush()
                    lines.readline()
                lines.readline()

        async def main():
            async with Introspector(cpu=sys.argv[1]) as introspector:
                with introspector.session("job-1", agent_name="a"):
                    await asyncio.sleep(0.01)
                    time.sleep(0.1)
                    await asyncio.sleep(0.01)
                    await asyncio.to_thread(ask, introspector.socket_path)
                    while introspector.snapshot().worker.host.cpu_pct is None:
                        await asyncio.sleep(0.01)

        asyncio.run(main())
        print(sorted(seen))
    """
    done = run_script(code, cpu)
    assert (done.returncode, done.stdout) == (0, "[]\n"), done.stderr
