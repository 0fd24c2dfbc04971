"""Sessions by the million in one worker, while others watch: does anything grow, and do the totals add up?

    python tests/soak.py [--sessions 1000000] [--watchers 4] [--together 200] [--loop asyncio]

Each session has three tasks; one in ten is cancelled, one in twenty fails, all by a fixed rule, so that the truth is
known. Memory, threads and file descriptors are compared half of the way and at the end. Exit code 1 where
something has grown, a total differs from the truth, or a watcher got no frames.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import psutil

from openrtc_introspect_core import Introspector

RSS_MAY_GROW_MIB = 8.0
"""Allocators keep free memory in other shapes than they got it in; a leak of 10 bytes a session shows at a million."""

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
    threads: int
    files: int

    @classmethod
    def now(cls) -> Resources:
        gc.collect()
        process = psutil.Process()
        return cls(process.memory_info().rss / 2**20, process.num_threads(), process.num_fds())


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


async def soak(sessions: int, watchers: int, together: int, path: Path) -> dict[str, Any]:
    began = time.monotonic()
    first: Resources | None = None
    command = [sys.executable, "-c", _WATCHER, str(path)]
    async with contextlib.AsyncExitStack() as stack:
        introspector = await stack.enter_async_context(Introspector(name="soak", socket_path=path, budget_pct=0))
        processes = [
            await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE, env=dict(os.environ))
            for _ in range(watchers)
        ]
        for process in processes:
            assert process.stdout is not None
            assert await process.stdout.readline() == b"ready\n"
        for start in range(0, sessions, together):
            numbers = range(start, min(sessions, start + together))
            await asyncio.gather(*(call(introspector, number) for number in numbers), return_exceptions=True)
            if first is None and start >= sessions // 2:
                first = await settled()
        last = await settled()
        snapshot = introspector.snapshot()
    frames = []
    for process in processes:
        assert process.stdout is not None
        frames.append(int(await process.stdout.readline()))
        await process.wait()
    assert first is not None
    # Cancelled ones end by CancelledError, which is no error; of the rest, those that failed.
    errored = sum(number % 20 == 7 and number % 10 != 3 for number in range(sessions))
    problems = []
    if last.rss_mib - first.rss_mib > RSS_MAY_GROW_MIB:
        problems.append(f"RSS grew from {first.rss_mib:.1f} to {last.rss_mib:.1f} MiB")
    if last.threads > first.threads or last.files > first.files:
        problems.append(f"{last.threads} threads and {last.files} files, {first.threads} and {first.files} before")
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
        "first": first._asdict(),
        "last": last._asdict(),
        "frames": frames,
        "problems": problems,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sessions", type=int, default=1_000_000)
    parser.add_argument("--watchers", type=int, default=4)
    parser.add_argument("--together", type=int, default=200, help="how many live at a time")
    parser.add_argument("--loop", choices=("asyncio", "uvloop"), default="asyncio")
    options = parser.parse_args()
    factory: Any = asyncio.SelectorEventLoop
    if options.loop == "uvloop":
        import uvloop

        factory = uvloop.new_event_loop
    with (
        tempfile.TemporaryDirectory(prefix="soak-", dir="/tmp") as folder,
        asyncio.Runner(loop_factory=factory) as runner,
    ):
        told = runner.run(soak(options.sessions, options.watchers, options.together, Path(folder) / "soak.sock"))
    print(json.dumps(told))
    return int(bool(told["problems"]))


if __name__ == "__main__":
    sys.exit(main())
