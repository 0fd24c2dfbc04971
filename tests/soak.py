"""Sessions by the million in one worker, while others watch: does anything grow, and do the totals add up?

    python tests/soak.py [--sessions 1000000] [--watchers 4] [--together 200] [--rate 2500] [--looks 20]
                         [--loop asyncio]

Each session has three tasks; one in ten is cancelled, one in twenty fails, all by a fixed rule, so that the truth is
known. The first fifth warms up: histories fill (of blocks, with a threshold that each batch of sessions exceeds), the
allocator takes what it needs. From then on memory, threads and file descriptors are looked at again and again. Exit
code 1 where one of them has grown, a total differs from the truth, or a watcher got no frames.

Sessions start at a rate: those that have ended are kept for a second or two, so how many there are at a time, and with
them the memory, would follow how busy the machine is otherwise.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import json
import logging
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import psutil

from openrtc_introspect_core import Introspector

WARM_UP = 0.2
"""The part of the run that is not judged."""

RSS_MAY_GROW_MIB = 4.0
"""Allocators keep free memory in other shapes than they got it in; a leak of 5 bytes a session shows at a million."""

OBJECTS_MAY_GROW = 50_000
"""What is left of the histories to fill; one object of each sixteenth session shows at a million."""

THRESHOLD_MS = 5.0

_WATCHER = """
import json, sys, time
from openrtc_introspect_core import IntrospectError, connect
import anyio

async def main():
    frames = 0
    try:
        async with connect(sys.argv[1]) as client:
            print("ready", flush=True)
            async for _ in client.watch(0.25):
                frames += 1
    except IntrospectError:
        pass  # the worker has ended
    print(frames, flush=True)

anyio.run(main)
"""


class Resources(NamedTuple):
    """What the worker holds."""

    rss_mib: float
    objects: int
    """Pieces of memory that Python has allocated and not freed."""
    threads: int
    files: int

    @classmethod
    def now(cls) -> Resources:
        gc.collect()
        process = psutil.Process()
        return cls(
            process.memory_info().rss / 2**20, sys.getallocatedblocks(), process.num_threads(), process.num_fds()
        )


async def settled() -> Resources:
    """What it holds once the accounts of ended sessions are closed, which is once a second or two."""
    await asyncio.sleep(3.0)
    return Resources.now()


class Failed(Exception):
    """As a task of a session may."""


async def work(number: int) -> None:
    await asyncio.sleep(0)
    if number % 20 == 7:
        raise Failed


async def call(introspector: Introspector, number: int) -> None:
    """One session: two tasks of its own, which it waits for."""
    with introspector.session(f"job-{number:07}", agent_name=f"agent-{number % 7}", metadata={"tenant": "acme"}):
        tasks = [asyncio.create_task(work(number)) for _ in range(2)]
        if number % 10 == 3:
            for task in tasks:
                task.cancel()
        await asyncio.gather(*tasks)


async def soak(sessions: int, watchers: int, together: int, rate: float, count: int, path: Path) -> dict[str, Any]:
    began = time.monotonic()
    looks: list[Resources] = []
    command = [sys.executable, "-c", _WATCHER, str(path)]
    async with contextlib.AsyncExitStack() as stack:
        introspector = await stack.enter_async_context(
            Introspector(name="soak", socket_path=path, budget_pct=0, slow_session_threshold_ms=THRESHOLD_MS)
        )
        processes = [
            await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE, env=dict(os.environ))
            for _ in range(watchers)
        ]
        for process in processes:
            assert process.stdout is not None
            assert await process.stdout.readline() == b"ready\n"
        due = time.monotonic()
        for start in range(0, sessions, together):
            numbers = range(start, min(sessions, start + together))
            await asyncio.gather(*(call(introspector, number) for number in numbers), return_exceptions=True)
            if numbers.stop >= sessions * (len(looks) + 1) // count:
                looks.append(await settled())
                due = time.monotonic()
            due = max(due + len(numbers) / rate, time.monotonic() - 1.0)
            await asyncio.sleep(due - time.monotonic())
        snapshot = introspector.snapshot()
    frames = []
    for process in processes:
        assert process.stdout is not None
        frames.append(int(await process.stdout.readline()))
        await process.wait()
    # Cancelled ones end by CancelledError, which is no error; of the rest, those that failed.
    errored = sum(number % 20 == 7 and number % 10 != 3 for number in range(sessions))
    problems = []
    warmed = max(1, int(WARM_UP * count))
    warm, after = looks[warmed - 1], looks[warmed:]
    if (most := max(look.rss_mib for look in after)) - warm.rss_mib > RSS_MAY_GROW_MIB:
        problems.append(f"RSS grew from {warm.rss_mib:.1f} to {most:.1f} MiB")
    if (objects := max(look.objects for look in after) - warm.objects) > OBJECTS_MAY_GROW:
        problems.append(f"{objects} objects more than after the warm-up")
    # The service thread opens a file of /proc now and then, and a look may fall into that.
    threads, files = (min(getattr(look, each) for look in after[-3:]) for each in ("threads", "files"))
    if threads > warm.threads or files > warm.files:
        problems.append(f"{threads} threads and {files} files, {warm.threads} and {warm.files} before")
    for what, told, true in (
        ("sessions started", snapshot.worker.started, sessions),
        ("sessions errored", snapshot.worker.errored, errored),
        ("sessions live", snapshot.worker.sessions, 0),
        ("notes", snapshot.worker.notes, []),
    ):
        if told != true:
            problems.append(f"{what}: told {told}, true {true}")
    if watchers and not min(frames):
        problems.append(f"a watcher got no frames: {frames}")
    return {
        "sessions": sessions,
        "seconds": round(time.monotonic() - began, 1),
        "rss_mib": [round(look.rss_mib, 1) for look in looks],
        "objects": [look.objects for look in looks],
        "warm": warm._asdict(),
        "last": after[-1]._asdict(),
        "frames": frames,
        "problems": problems,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sessions", type=int, default=1_000_000)
    parser.add_argument("--watchers", type=int, default=4)
    parser.add_argument("--together", type=int, default=200, help="how many live at a time")
    parser.add_argument("--rate", type=float, default=2500.0, help="how many start in a second, at the most")
    parser.add_argument("--looks", type=int, default=20, help="how often it is looked at what the worker holds")
    parser.add_argument("--loop", choices=("asyncio", "uvloop"), default="asyncio")
    options = parser.parse_args()
    logging.getLogger("openrtc.introspect").setLevel(logging.ERROR)  # each batch is a block here
    if options.looks < 2:
        parser.error(f"--looks must be 2 or more, got {options.looks}: the first is what the others are compared with")
    factory: Any = asyncio.SelectorEventLoop
    if options.loop == "uvloop":
        import uvloop

        factory = uvloop.new_event_loop
    with (
        tempfile.TemporaryDirectory(prefix="soak-", dir="/tmp") as folder,
        asyncio.Runner(loop_factory=factory) as runner,
    ):
        told = runner.run(
            soak(
                options.sessions,
                options.watchers,
                options.together,
                options.rate,
                options.looks,
                Path(folder) / "soak.sock",
            )
        )
    print(json.dumps(told))
    return int(bool(told["problems"]))


if __name__ == "__main__":
    sys.exit(main())
