"""The loop that serves sockets, in a process whose asyncio was patched."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import anyio._backends._asyncio
import pytest

PATCHES = {
    "tasks": """
        def patch():
            asyncio.Task = asyncio.tasks._CTask = asyncio.tasks.Task = asyncio.tasks._PyTask
            asyncio.Future = asyncio.futures._CFuture = asyncio.futures.Future = asyncio.futures._PyFuture
    """,
    "loops": """
        def patch():
            def broken(*_):
                raise RuntimeError("replaced")

            kinds = asyncio.SelectorEventLoop, asyncio.BaseEventLoop
            for kind in kinds:
                for name in ("run_forever", "run_until_complete", "_run_once", "_check_running", "create_task",
                             "call_soon", "call_later", "call_at", "call_soon_threadsafe", "stop", "create_future"):
                    kept.setdefault(kind, {})[name] = vars(kind).get(name)
                    setattr(kind, name, broken)

        kept = {}
    """,
    "running": """
        def patch():
            def broken(*_, **__):
                raise RuntimeError("replaced")

            asyncio.run = asyncio.Runner = asyncio.TaskGroup = asyncio.wait_for = broken
            if not ANYIO_TAKES_CREATE_TASK:
                asyncio.create_task = broken
            asyncio.new_event_loop = asyncio.get_event_loop = asyncio.set_event_loop = broken
    """,
}


def run(patch: str, when: str) -> subprocess.CompletedProcess[str]:
    """A worker that does not run on asyncio, attached to a loop that never runs; the socket is asked twice."""
    # An older anyio takes this name when it is loaded, which is after the host has put another function there.
    takes = hasattr(anyio._backends._asyncio, "create_task")
    parts = {
        "head": "import asyncio, os, sys, tempfile\nloop = asyncio.SelectorEventLoop()\n"
        f"ANYIO_TAKES_CREATE_TASK = {takes}\n",
        "patch": textwrap.dedent(PATCHES[patch]),
        "import": "from openrtc_introspect_core import Introspector, read_snapshot\n"
        "from openrtc_introspect_core._service import introspection\n",
        "attach": textwrap.dedent(
            """
            directory = tempfile.mkdtemp(prefix="rt")
            introspection.has_gil = lambda: True  # no standing note
            introspector = Introspector(socket_path=os.path.join(directory, "w.sock"))
            introspector.attach(loop)
            """
        ),
        "ask": textwrap.dedent(
            """
            for _ in range(2):
                snapshot = read_snapshot(introspector.socket_path, timeout_s=20)
                assert snapshot.worker.pid == os.getpid()
                assert snapshot.worker.notes == [], snapshot.worker.notes
            introspector.close()
            assert os.listdir(directory) == []
            os.rmdir(directory)
            print("answered")
            os._exit(0)
            """
        ),
        "call": "patch()\n",
    }
    orders = {
        "before the import": ("head", "patch", "call", "import", "attach", "ask"),
        "after the import": ("head", "patch", "import", "call", "attach", "ask"),
        "while it serves": ("head", "patch", "import", "attach", "call", "ask"),
    }
    code = "".join(parts[each] for each in orders[when])
    command = [sys.executable, "-W", "ignore", "-c", code]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("when", ["before the import", "after the import", "while it serves"])
def test_the_socket_answers_where_tasks_are_pure_python(when: str) -> None:
    """As nest_asyncio has them; Python 3.14's `current_task` does not return them."""
    done = run("tasks", when)
    assert (done.returncode, done.stdout) == (0, "answered\n"), done.stderr


@pytest.mark.parametrize("patch", ["loops", "running"])
@pytest.mark.parametrize("when", ["after the import", "while it serves"])
def test_the_socket_answers_whatever_a_host_has_put_in_asyncio_s_place(patch: str, when: str) -> None:
    """Methods of the loops' classes, and what programs run loops with."""
    done = run(patch, when)
    assert (done.returncode, done.stdout) == (0, "answered\n"), done.stderr
