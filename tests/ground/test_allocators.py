"""Memory by session in a worker that a preloaded allocator, or one of Python's own, serves.

Debian has them as libjemalloc2, libmimalloc2.0 and libtcmalloc-minimal4. A test is skipped if its library
is missing.
"""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

FOLDERS = ("/usr/lib", "/usr/lib64", "/usr/local/lib", f"/usr/lib/{os.uname().machine}-linux-gnu")
FILES = {"jemalloc": "libjemalloc.so.2", "mimalloc": "libmimalloc.so.2", "tcmalloc": "libtcmalloc_minimal.so.4"}

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="libraries are preloaded so on Linux")

WORKER = """
import asyncio, contextvars, threading
from openrtc_introspect_core import Introspector

async def in_session(introspector, name, work):
    async def session():
        with introspector.session(name, agent_name="test"):
            return await asyncio.create_task(work())
    return await asyncio.create_task(session(), context=contextvars.Context())

def taken():
    return [bytes(100_000) for _ in range(200)]

async def main():
    async with Introspector(memory=METHOD, socket_path=False, black_box=False, stall_log=None) as introspector:
        def heap_mb(name):
            return next(row.heap_mb for row in introspector.snapshot().sessions if row.session_id == name)

        def left_mb():
            return {each.session_id: round(each.at_least_mb) for each in introspector.snapshot().worker.left_behind}

        print(introspector.snapshot().worker.notes[-1].split(", ")[1])
        SCRIPT

asyncio.run(main())
"""

HOLDS = """
async def idle():
    await asyncio.sleep(0.2)
    return heap_mb("quiet")

async def work():
    quiet = asyncio.create_task(in_session(introspector, "quiet", idle))
    kept = taken()
    await asyncio.sleep(0)
    held = heap_mb("holds")
    kept.clear()
    await asyncio.sleep(0)
    return held, heap_mb("holds"), await quiet

held, after, quiet = await in_session(introspector, "holds", work)
print(18 < held < 23, abs(after) < 0.5, abs(quiet) < 0.5)
"""

IN_THREADS = """
async def work():
    kept = await asyncio.to_thread(taken)
    held = heap_mb("asks")
    kept.clear()
    await asyncio.sleep(0)
    return held, heap_mb("asks")

held, after = await in_session(introspector, "asks", work)
print(18 < held < 23, abs(after) < 0.5)
"""

LEAVES = """
kept = []

async def work():
    kept.extend(taken())

await in_session(introspector, "leaves", work)
await asyncio.sleep(0)
held = left_mb()
other = threading.Thread(target=kept.clear)  # nothing of the introspector's sees what this thread frees
other.start()
other.join()
print(18 < held["leaves"] < 23, left_mb()["leaves"] <= 1)
"""

STEPS = """
async def work():
    kept = []
    for _ in range(400):
        kept.append(bytes(50_000))
        await asyncio.sleep(0.0005)
    return heap_mb("steps"), kept

held, kept = await in_session(introspector, "steps", work)
notes = introspector.snapshot().worker.notes
print(18 < held < 23 or "drawn at random" in notes[0])
"""


def library(name: str) -> str:
    """Return the path of an allocator's library. Skip the test where there is none."""
    paths = [Path(folder) / FILES[name] for folder in FOLDERS]
    for path in paths:
        if path.exists():
            return str(path)
    return pytest.skip(f"{name} is not installed")


def run(script: str, meter: str, method: str = "heap", **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a worker, and return how it ended."""
    code = WORKER.replace("METHOD", repr(method)).replace("SCRIPT", textwrap.indent(script, " " * 8).strip())
    unset = {"LD_PRELOAD", "PYTHONMALLOC"}
    return subprocess.run(
        [sys.executable, "-c", code],
        env={name: value for name, value in os.environ.items() if name not in unset}
        | {"OPENRTC_INTROSPECT_METER": meter, **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )


def said(script: str, meter: str, **environment: str) -> list[str]:
    """Return the lines of a worker that ends well: the account that its note names, then the script's."""
    ended = run(script, meter, **environment)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout.splitlines()


def refused(meter: str, **environment: str) -> str:
    """Return the last line of the error that a worker ends with."""
    ended = run("", meter, **environment)
    assert (ended.returncode, ended.stdout) == (1, "")
    return ended.stderr.splitlines()[-1]


meters = pytest.mark.parametrize("meter", ["", "python"], ids=["c", "python"])
with_account = pytest.mark.parametrize(
    ("name", "account"),
    [
        ("jemalloc", "read from jemalloc (stats.allocated)"),
        ("tcmalloc", "read from tcmalloc (generic.current_allocated_bytes)"),
    ],
)


@meters
@with_account
def test_a_session_is_charged_with_what_it_holds_and_gives_back(name: str, account: str, meter: str) -> None:
    """20 MB in objects of 100 KB: the allocator rounds them up by up to 15 %. A quiet session has nothing."""
    assert said(HOLDS, meter, LD_PRELOAD=library(name)) == [account, "True True True"]


@meters
@with_account
def test_small_objects_are_charged_if_python_takes_them_from_malloc(name: str, account: str, meter: str) -> None:
    """PYTHONMALLOC=malloc hands them to the preloaded allocator: 128 bytes each."""
    script = HOLDS.replace("taken()", "[bytes(95) for _ in range(150_000)]")
    assert said(script, meter, LD_PRELOAD=library(name), PYTHONMALLOC="malloc") == [account, "True True True"]


@meters
@with_account
def test_what_a_call_in_a_thread_takes_and_the_loop_frees_is_its_session_s(name: str, account: str, meter: str) -> None:
    """Both allocators keep caches of each thread, which their accounts leave out."""
    assert said(IN_THREADS, meter, LD_PRELOAD=library(name)) == [account, "True True"]


@meters
@with_account
def test_what_another_thread_frees_is_not_held_for_certain(name: str, account: str, meter: str) -> None:
    """A counter of the loop's own thread would not know of it."""
    assert said(LEAVES, meter, LD_PRELOAD=library(name)) == [account, "True True"]


@meters
@with_account
def test_a_session_that_allocates_little_by_little_is_charged(name: str, account: str, meter: str) -> None:
    """Each of its steps is read, or a note says that not each is."""
    assert said(STEPS, meter, LD_PRELOAD=library(name)) == [account, "True"]


@meters
def test_mimalloc_keeps_no_account_and_is_refused(meter: str) -> None:
    """What it maps moves in steps of megabytes, and glibc's account shows 0."""
    assert refused(meter, LD_PRELOAD=library("mimalloc")).endswith(
        "ArgumentError: memory='heap' reads the account of glibc (2.33 or newer), jemalloc (5 or newer) or tcmalloc, "
        "and this process allocates with mimalloc, which keeps none: start without it, or use 'traced' or 'share'"
    )


@meters
@pytest.mark.skipif(sys.version_info < (3, 13), reason="Python has a mimalloc of its own since 3.13")
def test_python_s_own_mimalloc_is_refused(meter: str) -> None:
    """Also if the preloaded allocator keeps an account: only C libraries are in it."""
    error = refused(meter, PYTHONMALLOC="mimalloc")
    assert "Python allocates elsewhere with PYTHONMALLOC=mimalloc: start without it, or use 'traced'" in error
    assert refused(meter, PYTHONMALLOC="mimalloc", LD_PRELOAD=library("jemalloc")) == error


@meters
@pytest.mark.parametrize("allocator", ["pymalloc", "debug", "malloc", "malloc_debug"])
def test_python_s_other_allocators_are_in_glibc_s_account(allocator: str, meter: str) -> None:
    """With and without the debug hooks."""
    assert said(HOLDS, meter, PYTHONMALLOC=allocator) == ["read from glibc (mallinfo2)", "True True True"]


@meters
def test_tracemalloc_is_right_with_any_allocator(meter: str) -> None:
    """It counts what Python asks for, whoever serves it."""
    ended = run(HOLDS, meter, "traced", LD_PRELOAD=library("mimalloc"))
    assert ended.stdout.splitlines()[1:] == ["True True True"], ended.stderr
