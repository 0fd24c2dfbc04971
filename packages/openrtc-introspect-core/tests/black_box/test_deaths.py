"""Workers that die, in processes of their own, and what their boxes say afterwards."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from openrtc_introspect_core._native import native
from openrtc_introspect_core.black_box import Box, read_box, snapshot_now

RunScript = Callable[..., "subprocess.CompletedProcess[str]"]

WITHIN_S = 60.0
pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="has neither signals nor boxes")

WORKER = """
    import asyncio, ctypes, os, signal, sys, time
    from openrtc_introspect_core import Introspector
    from openrtc_introspect_core._introspector import parts_of

    async def written(introspector):
        from openrtc_introspect_core.black_box import read_box
        while read_box(parts_of(introspector).shared.box.path).snapshot is None:
            await asyncio.sleep(0.01)

    async def main():
        async with Introspector(name="w", socket_path=False) as introspector:
            with introspector.session("job-1", agent_name="a", metadata={"tenant": "acme"}):
                await written(introspector)
                END

    asyncio.run(main())
"""


def the_box(directory: Path) -> Box:
    """Return the only box."""
    (path,) = directory.glob("*.box")
    return read_box(path)


def ids(box: Box) -> list[str]:
    return [row.session_id for row in box.snapshot.sessions] if box.snapshot is not None else []


@pytest.mark.parametrize(
    ("end", "code"),
    [
        ("os.kill(os.getpid(), signal.SIGKILL)", -signal.SIGKILL),
        ("os.kill(os.getpid(), signal.SIGSEGV)", -signal.SIGSEGV),
        ("ctypes.string_at(0)", -signal.SIGSEGV),
        ("os.abort()", -signal.SIGABRT),
        ("os.kill(os.getpid(), signal.SIGTERM); time.sleep(60)", -signal.SIGTERM),
        ("os._exit(3)", 3),
        ("raise MemoryError", 1),
    ],
)
def test_a_death_leaves_the_box(run_script: RunScript, runtime_dir: Path, end: str, code: int) -> None:
    """It says who lived."""
    done = run_script(WORKER.replace("END", end))
    assert done.returncode == code, done.stderr
    box = the_box(runtime_dir)
    assert (box.alive, box.worker, ids(box)) == (False, "w", ["job-1"])
    assert box.snapshot is not None
    assert (box.snapshot.sessions[0].tenant, len(box.memory) > 0) == ("acme", True)


LAST_LOOK = """
    import asyncio, ctypes, os, time
    from openrtc_introspect_core import Introspector
    from openrtc_introspect_core._introspector import parts_of
    from openrtc_introspect_core.black_box import read_box

    def compute(path):
        deadline = time.monotonic() + 40.0
        while time.monotonic() < deadline:
            for _ in range(1000):
                sum(range(1000))
            snapshot = read_box(path).snapshot
            if snapshot and any(block.session_id for block in snapshot.blocks_in_progress):
                break

    async def main():
        async with Introspector(name="w", socket_path=False) as introspector:
            with introspector.session("job-1", agent_name="a"):
                await asyncio.sleep(0.1)
                compute(parts_of(introspector).shared.box.path)
                ctypes.PyDLL(None).usleep(300_000)  # keeps the GIL
                os._exit(3)

    asyncio.run(main())
"""


@pytest.mark.gil
@pytest.mark.skipif(native is not None, reason="a thread in C looks while the GIL is kept")
def test_with_the_meter_in_python_the_last_look_is_left(run_script: RunScript, runtime_dir: Path) -> None:
    """Who held the loop since when, at which line, until then: what the C code did after it is not claimed."""
    assert run_script(LAST_LOOK).returncode == 3
    box = the_box(runtime_dir)
    (block,) = snapshot_now(box, time.time()).blocks_in_progress
    assert box.snapshot is not None
    assert (box.loops, box.meter, block.session_id) == ([], "Python", "job-1")
    assert block.location is not None
    assert block.location.function in ("compute", "main")
    assert block.started_at + block.duration_ms / 1000.0 == pytest.approx(box.snapshot.taken_at, abs=0.01)


@pytest.mark.parametrize("end", ["pass", "raise SystemExit(3)", "raise KeyboardInterrupt", "raise ValueError"])
def test_a_clean_end_leaves_none(run_script: RunScript, runtime_dir: Path, end: str) -> None:
    """Whatever exception ends the program."""
    run_script(WORKER.replace("END", end))
    assert list(runtime_dir.iterdir()) == []


@pytest.mark.parametrize(
    ("end", "left"), [("pass", 0), ("raise SystemExit(3)", 0), ("raise ValueError", 0), ("raise MemoryError", 1)]
)
def test_a_program_that_ends_without_closing_leaves_none(
    run_script: RunScript, runtime_dir: Path, end: str, left: int
) -> None:
    """The interpreter's exit removes it, unless the program ends for want of memory."""
    code = """
        import asyncio
        from openrtc_introspect_core import Introspector
        async def main():
            kept.append(Introspector(socket_path=False))
            kept[0].attach()
        kept = []
        asyncio.run(main())
        END
    """
    done = run_script(code.replace("END", end))
    assert done.returncode == {"pass": 0, "raise SystemExit(3)": 3}.get(end, 1), done.stderr
    assert len(list(runtime_dir.iterdir())) == left


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_process_of_multiprocessing_that_ends_without_closing_leaves_none(
    run_script: RunScript, runtime_dir: Path, method: str
) -> None:
    """Its end is as clean as that of a program."""
    code = f"""
        import asyncio, multiprocessing
        from openrtc_introspect_core import Introspector

        async def main():
            Introspector(name="w", socket_path=False).attach()

        def child():
            asyncio.run(main())

        if __name__ == "__main__":
            process = multiprocessing.get_context("{method}").Process(target=child)
            process.start()
            process.join()
            print(process.exitcode)
    """
    script = runtime_dir / "program.py"
    script.write_text(textwrap.dedent(code), encoding="utf-8")
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout, list(runtime_dir.glob("*.box"))) == ("0\n", []), done.stderr


def test_the_next_worker_leaves_the_box_of_a_dead_one(run_script: RunScript, runtime_dir: Path) -> None:
    """It stays for a day; and it does not get in the way."""
    run_script(WORKER.replace("END", "os._exit(3)"))
    run_script(WORKER.replace("END", "pass"))
    assert ids(the_box(runtime_dir)) == ["job-1"]


def test_the_next_worker_removes_what_is_older_than_a_day(run_script: RunScript, runtime_dir: Path) -> None:
    """Not on its loop's thread."""
    run_script(WORKER.replace("END", "os._exit(3)"))
    (path,) = runtime_dir.glob("*.box")
    os.utime(path, (time.time() - 90_000,) * 2)
    run_script(WORKER.replace("END", "pass"))
    assert list(runtime_dir.iterdir()) == []


# --- forked children -----------------------------------------------------------------------------

FORKING = """
    import asyncio, atexit, os, signal, sys, time
    from openrtc_introspect_core import Introspector
    from openrtc_introspect_core._introspector import parts_of

    async def main():
        async with Introspector(name="w", socket_path=False) as introspector:
            with introspector.session("job-1", agent_name="a"):
                shared = parts_of(introspector).shared
                descriptors = shared.box.fd, shared.stall_log_fd
                child = os.fork()
                if not child:
                    CHILD
                PARENT

    asyncio.run(main())
"""


def test_a_forked_child_neither_writes_nor_removes_the_box(run_script: RunScript, runtime_dir: Path) -> None:
    """It closes the descriptors; what it runs at its exit removes nothing."""
    child = """
                    assert (shared.box.fd, shared.stall_log_fd) == (-1, None)
                    for each in descriptors:
                        try:
                            os.fstat(each)
                        except OSError:
                            continue
                        os._exit(9)
                    shared.box.write_worker(b"{}")
                    introspector.close()
                    atexit._run_exitfuncs()
                    os._exit(0)
    """.strip()
    parent = """
                assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
                from openrtc_introspect_core.black_box import read_box
                print(read_box(shared.box.path).alive, shared.box.fd == descriptors[0])
    """.strip()
    done = run_script(FORKING.replace("CHILD", child).replace("PARENT", parent))
    assert (done.returncode, done.stdout) == (0, "True True\n"), done.stderr
    assert list(runtime_dir.iterdir()) == []


def test_a_forked_child_does_not_keep_its_dead_parent_alive(runtime_dir: Path) -> None:
    """The lock is gone with the parent."""
    code = FORKING.replace("CHILD", "print(flush=True) or sys.stdin.read() or os._exit(0)")
    code = code.replace("PARENT", "time.sleep(60)")
    command = [sys.executable, "-W", "ignore", "-c", textwrap.dedent(code)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as parent:
        assert parent.stdin is not None
        assert parent.stdout is not None
        assert parent.stdout.readline() == b"\n"
        assert the_box(runtime_dir).alive
        parent.kill()
        parent.wait(WITHIN_S)
        assert not the_box(runtime_dir).alive
        parent.stdin.close()
        assert parent.stdout.read() == b""  # the child has ended


# --- disks that are full, and files that are too many --------------------------------------------

LIMITED = """
    import asyncio, os, resource, signal, sys
    from openrtc_introspect_core import Introspector
    from openrtc_introspect_core._introspector import parts_of
    from openrtc_introspect_core._service import introspection
    introspection.has_gil = lambda: True  # no standing note
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

    async def until(condition):
        while not condition():
            await asyncio.sleep(0.01)

    async def main():
        START
        async with Introspector(name="w", memory_interval_s=0.05) as introspector:
            notes = lambda: introspector.snapshot().worker.notes
            with introspector.session("job-1", agent_name="a"):
                LATER
                await until(lambda: len(notes()) == 1)
                steps = introspector.snapshot().sessions[0].steps
                await until(lambda: introspector.snapshot().sessions[0].steps > steps)
            await asyncio.sleep(1.2)
            print(*notes(), sep="\\n")
        print(os.listdir(os.environ["OPENRTC_RUNTIME_DIR"]))
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.getrlimit(resource.RLIMIT_FSIZE)[1],) * 2)

    asyncio.run(main())
"""
LIMIT = "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("start", "later", "note"),
    [
        (LIMIT, "", "there is no black box, a death of this worker will leave no trace: File too large"),
        (
            "",
            """
                from openrtc_introspect_core.black_box import read_box
                await until(lambda: read_box(parts_of(introspector).shared.box.path).snapshot is not None)
                LIMIT
            """.strip().replace("LIMIT", LIMIT),
            "the black box is no longer written, it keeps what it has: File too large",
        ),
    ],
    ids=["at the start", "later"],
)
def test_a_disk_that_takes_no_more_switches_it_off(run_script: RunScript, start: str, later: str, note: str) -> None:
    """It is noted once, sessions go on, and the end removes what there is."""
    done = run_script(LIMITED.replace("START", start).replace("LATER", later))
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{note}\n[]\n"
    lines = [line for line in done.stderr.splitlines() if not line.startswith("[slow-")]
    assert lines == [f"introspection of w: {note}"]


def test_without_file_descriptors_there_is_none(run_script: RunScript) -> None:
    """The worker starts if it serves no socket, and its note says why."""
    code = """
        import asyncio, os, random, resource, sys
        import anyio._backends._asyncio, psutil
        from openrtc_introspect_core import Introspector
        from openrtc_introspect_core._os.host_vitals import own_process
        import openrtc_introspect_core._service.box_record
        from openrtc_introspect_core._service import rss_shares, worker_service

        async def main():
            own_process(os.getpid())
            resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
            held = []
            try:
                while True:
                    held.append(os.open(os.devnull, os.O_RDONLY))
            except OSError:
                pass
            introspector = Introspector(socket_path=False, stacks=False)
            introspector.attach()
            for each in held:
                os.close(each)
            print(*introspector.snapshot().worker.notes, sep="\\n")
            await introspector.aclose()

        asyncio.run(main())
    """
    done = run_script(code)
    assert done.returncode == 0, done.stderr
    notes = done.stdout.splitlines()
    assert notes[:2] == [
        "there is no black box, a death of this worker will leave no trace: Too many open files",
        "the stall log cannot be written, it goes nowhere: Too many open files",
    ]
