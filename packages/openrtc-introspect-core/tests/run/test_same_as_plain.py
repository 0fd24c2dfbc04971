"""A program that is run with introspection ends, prints and is found as by a plain run of Python."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

WITHIN_S = 120.0
RUN = ("-m", "openrtc_introspect_core")

PROGRAMS = {
    "prints": "print('a'); import sys; print('b', file=sys.stderr)",
    "exits with a code": "raise SystemExit(7)",
    "exits with a message": "import sys; sys.exit('no menu today')",
    "exits from a loop": "import asyncio, sys\nasync def main():\n    sys.exit(4)\nasyncio.run(main())",
    "exits at once": "import os; os._exit(5)",
    "knows its arguments": "import sys; print(sys.argv[1:], sys.argv[0] == __file__, len(sys.argv))",
    "knows its folder": "import sys; print(sys.path)",
    "is the main module": """
        import sys, __main__
        print(__name__, __file__, __package__, __spec__, __doc__, sorted(globals()))
        print(__main__.__dict__ is globals(), sys.modules["__main__"] is __main__, type(__loader__), __builtins__)
        if __name__ == "__main__":
            print("guarded")
    """,
    "reads stdin": "import sys; print(sys.stdin.read().upper())",
    "fails": "def main():\n    raise LookupError('no menu')\nmain()",
    "fails with a cause": "try:\n    1 / 0\nexcept ZeroDivisionError as error:\n    raise LookupError from error",
    "fails with a hook of its own": """
        import sys
        def excepthook(kind, error, traceback):
            print(kind, error, traceback.tb_lineno, traceback.tb_frame.f_code.co_name, file=sys.stderr)
        sys.excepthook = excepthook
        raise LookupError("no menu")
    """,
    "is no Python": "def main(:\n",
    "fails in a task": """
        import asyncio
        async def call():
            raise LookupError("no menu")
        async def main():
            await asyncio.create_task(call())
        asyncio.run(main())
    """,
    "fails in a task group": """
        import asyncio
        async def call(seconds):
            await asyncio.sleep(seconds)
            raise LookupError("no menu")
        async def main():
            async with asyncio.TaskGroup() as group:
                group.create_task(call(0))
                group.create_task(call(9))
        asyncio.run(main())
    """,
    "runs a loop by hand": """
        import asyncio
        loop = asyncio.new_event_loop()
        async def main():
            raise LookupError("no menu")
        task = loop.create_task(main())
        try:
            loop.run_until_complete(task)
        finally:
            loop.close()
    """,
    "runs forever": """
        import asyncio
        loop = asyncio.new_event_loop()
        def end():
            raise SystemExit(3)
        loop.call_soon(end)
        loop.run_forever()
    """,
    "runs a closed loop": """
        import asyncio
        loop = asyncio.new_event_loop()
        loop.close()
        loop.run_forever()
    """,
    "refuses what is no coroutine": "import asyncio\nasyncio.run(5)",
    "creates no task of what is no coroutine": """
        import asyncio
        async def main():
            asyncio.create_task(5)
        asyncio.run(main())
    """,
    "leaves an exception that nobody retrieves": """
        import asyncio
        async def call():
            raise LookupError("no menu")
        async def main():
            task = asyncio.create_task(call(), name="call")
            await asyncio.sleep(0.01)
            del task
        asyncio.run(main())
    """,
    "leaves a task that never ends": """
        import asyncio, gc
        async def call():
            await asyncio.Event().wait()
        async def main():
            asyncio.create_task(call(), name="call")
            await asyncio.sleep(0)
            gc.collect()
        asyncio.run(main())
    """,
    "serves on a taken port": """
        import asyncio, socket
        taken = socket.create_server(("127.0.0.1", 0))
        async def main():
            try:
                await asyncio.start_server(lambda *both: None, *taken.getsockname())
            except OSError as error:
                frames = []
                traceback = error.__traceback__
                while traceback:
                    frames.append(traceback.tb_frame.f_code.co_name)
                    traceback = traceback.tb_next
                print(frames)
        asyncio.run(main())
    """,
    "has its own exception handler": """
        import asyncio, threading
        threading.excepthook = lambda given: print("thread", given.exc_value)
        def run():
            asyncio.run(main())
        async def main():
            raise LookupError("no menu")
        thread = threading.Thread(target=run)
        thread.start()
        thread.join()
    """,
    "fails in a thread": """
        import asyncio, threading
        async def main():
            raise LookupError("no menu")
        thread = threading.Thread(target=asyncio.run, args=[main()], name="calls")
        thread.start()
        thread.join()
    """,
    "is interrupted": "import signal; signal.raise_signal(signal.SIGINT)",
    "is interrupted in a loop": """
        import asyncio, signal
        async def main():
            signal.raise_signal(signal.SIGINT)
            await asyncio.sleep(9)
        asyncio.run(main())
    """,
    "is interrupted in a loop by hand": """
        import asyncio, signal
        async def main():
            asyncio.get_running_loop().call_later(0.01, signal.raise_signal, signal.SIGINT)
            await asyncio.sleep(9)
        asyncio.new_event_loop().run_until_complete(main())
    """,
    "is terminated": "import os, signal; os.kill(os.getpid(), signal.SIGTERM)",
    "is killed in a loop": """
        import asyncio, os, signal
        async def main():
            os.kill(os.getpid(), signal.SIGKILL)
        asyncio.run(main())
    """,
    "ends on SIGTERM as it likes": """
        import asyncio, os, signal
        async def main():
            ended = asyncio.Event()
            asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
            os.kill(os.getpid(), signal.SIGTERM)
            await ended.wait()
            print("ended")
        asyncio.run(main())
        raise SystemExit(143)
    """,
    "forks": """
        import asyncio, os, warnings
        warnings.simplefilter("ignore")  # since Python 3.12 there is one if other threads run, and ours do
        async def main():
            await asyncio.sleep(0)
            print("main", flush=True)
        asyncio.run(main())
        child = os.fork()
        if not child:
            asyncio.run(main())
            raise SystemExit(6)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    """,
    "spawns": """
        import asyncio, multiprocessing, sys
        async def answer(number):
            await asyncio.sleep(0)
            return number * number
        def run(number):
            if number > 2:
                sys.exit(number)
            return asyncio.run(answer(number))
        if __name__ == "__main__":
            context = multiprocessing.get_context("spawn")
            with context.Pool(1) as pool:
                print(pool.map(run, [1, 2]))
            process = context.Process(target=run, args=[3])
            process.start()
            process.join()
            print(process.exitcode)
    """,
    "registers handlers of its end": """
        import atexit, asyncio
        atexit.register(print, "over")
        async def main():
            pass
        asyncio.run(main())
        raise LookupError("no menu")
    """,
    "logs the numbers of its tasks": """
        import asyncio, time
        async def main():
            time.sleep(0.1)  # meanwhile introspection serves its socket
            print(asyncio.create_task(asyncio.sleep(0)).get_name())
        asyncio.run(main())
    """,
    "runs a loop as it ends": """
        import atexit, asyncio
        async def main():
            print("main")
        atexit.register(lambda: asyncio.run(main()))
        asyncio.run(main())
    """,
    "ends from a task": """
        import asyncio, sys
        async def call():
            sys.exit(6)
        async def main():
            task = asyncio.create_task(call(), name="call")
            await asyncio.sleep(9)
        try:
            asyncio.run(main())
        finally:
            pass  # on 3.11, what nobody catches does not get the outermost lines of its traceback
    """,
    "has a hook that fails": """
        import sys
        def excepthook(*error):
            raise RuntimeError("no hook")
        sys.excepthook = excepthook
        raise LookupError("no menu")
    """,
    "has nothing to do with loops": "print(sum(range(10)))",
    "sees no session": """
        import asyncio, contextvars
        async def main():
            from openrtc_introspect_core import current_session
            print(current_session(), await asyncio.create_task(call()))
        async def call():
            from openrtc_introspect_core import current_session
            return current_session()
        asyncio.run(main())
    """,
    "nests generators": """
        import asyncio
        async def numbers():
            try:
                for number in range(9):
                    yield number
            finally:
                print("closed")
        async def main():
            async for number in numbers():
                if number == 2:
                    break
            print(sorted(task.get_name() for task in asyncio.all_tasks()))
        asyncio.run(main())
    """,
}

ON_EACH_PYTHON = {
    *("is the main module", "is no Python", "fails", "fails in a task group", "runs a loop by hand", "spawns", "forks"),
    *("creates no task of what is no coroutine", "leaves an exception that nobody retrieves"),
    *("is interrupted in a loop", "serves on a taken port"),
}
"""What differs between versions of Python. The others are the same on each."""

ON_UVLOOP = {
    "fails": "import uvloop\nasync def main():\n    raise LookupError('no menu')\nuvloop.run(main())",
    "runs forever": """
        import uvloop
        loop = uvloop.new_event_loop()
        def end():
            raise SystemExit(3)
        loop.call_soon(end)
        loop.run_forever()
    """,
    "is interrupted": """
        import asyncio, signal, uvloop
        async def main():
            asyncio.get_running_loop().call_later(0.01, signal.raise_signal, signal.SIGINT)
            await asyncio.sleep(9)
        loop = uvloop.new_event_loop()
        loop.run_until_complete(main())
    """,
}

ON_TRIO = {
    "fails": """
        import trio
        async def call():
            raise LookupError("no menu")
        async def main():
            async with trio.open_nursery() as nursery:
                nursery.start_soon(call)
        trio.run(main)
    """,
    "is interrupted": """
        import signal, trio
        async def main():
            signal.raise_signal(signal.SIGINT)
            await trio.sleep(9)
        trio.run(main)
    """,
}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The program's folder; workers have their sockets elsewhere."""
    (tmp_path / "run").mkdir(mode=0o700)
    monkeypatch.setenv("OPENRTC_RUNTIME_DIR", str(tmp_path / "run"))
    monkeypatch.setenv("COLUMNS", "120")
    (tmp_path / "program").mkdir()
    return tmp_path / "program"


def ended(folder: Path, *arguments: str, stdin: str = "menu") -> tuple[int, str, str]:
    """Run Python with these arguments in the folder; return its exit status, its output, its errors."""
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        input=stdin,
        capture_output=True,
        text=True,
        timeout=WITHIN_S,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


def written(folder: Path, text: str) -> str:
    """Write a program, and return its name."""
    (folder / "my_worker.py").write_text(textwrap.dedent(text).lstrip() + "\n", encoding="utf-8")
    return "my_worker.py"


@pytest.mark.parametrize(
    "program",
    [name if name in ON_EACH_PYTHON else pytest.param(name, marks=pytest.mark.program) for name in PROGRAMS],
)
def test_a_script_ends_and_prints_as_by_a_plain_run(program: str, folder: Path) -> None:
    """Exit status, output, messages and tracebacks are the same."""
    script = written(folder, PROGRAMS[program])
    assert ended(folder, *RUN, script, "one", "--name", "two") == ended(folder, script, "one", "--name", "two")


@pytest.mark.parametrize("program", ON_UVLOOP)
def test_a_program_on_uvloop_ends_and_prints_as_by_a_plain_run(program: str, folder: Path) -> None:
    """Its loop runs in C, and frames of ours are in no traceback."""
    script = written(folder, ON_UVLOOP[program])
    assert ended(folder, *RUN, script) == ended(folder, script)


@pytest.mark.parametrize("program", ON_TRIO)
def test_a_program_on_trio_ends_and_prints_as_by_a_plain_run(program: str, folder: Path) -> None:
    """Also if a nursery raises a group of exceptions."""
    script = written(folder, ON_TRIO[program])
    assert ended(folder, *RUN, script) == ended(folder, script)


def test_in_debug_mode_creators_are_shown_from_the_program_on(folder: Path) -> None:
    """asyncio logs where a task was created whose exception nobody retrieves."""
    script = written(folder, PROGRAMS["leaves an exception that nobody retrieves"])
    assert ended(folder, "-X", "dev", *RUN, script) == ended(folder, "-X", "dev", script)


@pytest.mark.parametrize(
    "text", ["import sys; print(sys.argv, sys.path[0], __name__, sorted(globals()))", "x = 1\n1 / 0"]
)
def test_code_and_modules_run_as_by_python(text: str, folder: Path) -> None:
    """`-c` and `-m` have the arguments, the path and the tracebacks that they have without us."""
    written(folder, text)
    for program in (
        ("-c", text),
        ("-m", "my_worker"),
        ("-mmy_worker",),
        ("-m", "no_such_module"),
        ("no_such_file.py",),
    ):
        assert ended(folder, *RUN, *program, "one", "-x") == ended(folder, *program, "one", "-x")
    assert ended(folder, "-P", *RUN, "my_worker.py") == ended(folder, "-P", "my_worker.py")


def test_folders_archives_and_links_run_as_by_python(folder: Path) -> None:
    """A folder and an archive run their `__main__.py`; a link's own folder is not the one that is imported from."""
    text = "import sys; print(sys.argv, sys.path[:1], __name__, __file__, __package__)"
    (folder / "app").mkdir()
    (folder / "app/__main__.py").write_text(text)
    with zipfile.ZipFile(folder / "app.pyz", "w") as archive:
        archive.writestr("__main__.py", text)
    (folder / "linked.py").symlink_to(folder / "app/__main__.py")
    subprocess.run([sys.executable, "-m", "compileall", "-qb", "app"], cwd=folder, check=True)
    for program in ("app", "app.pyz", "linked.py", "app/__main__.pyc"):
        code, out, errors = ended(folder, *RUN, program, "one")
        assert (code, out, errors) == ended(folder, program, "one"), program
        assert out


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL, signal.SIGHUP])
def test_a_signal_from_outside_ends_the_program_with_the_same_status(number: signal.Signals, folder: Path) -> None:
    """It is the same process, so the wait status is the program's own."""
    script = written(
        folder,
        """
        import asyncio
        async def main():
            print("ready", flush=True)
            await asyncio.sleep(600)
        asyncio.run(main())
        """,
    )
    found = []
    for arguments in ([script], [*RUN, script]):
        with subprocess.Popen(
            [sys.executable, *arguments], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as process:
            try:
                assert process.stdout is not None
                assert process.stdout.readline() == "ready\n"
                os.kill(process.pid, number)
                _, errors = process.communicate(timeout=WITHIN_S)
            finally:
                process.kill()
            found.append((process.returncode, errors))
    assert found[0] == found[1]
    assert found[0][0] == -number
