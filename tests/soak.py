"""Run a million sessions in one worker under watch; check that nothing grows and the totals are right.

    python tests/soak.py [--sessions 1000000] [--watchers 4] [--together 200] [--rate 2500] [--samples 20]
                         [--loop asyncio]

Each session has three tasks. One session in ten is cancelled and one in twenty fails, both by a fixed rule, so that the
truth is known. The first fifth of the run is the warm-up: the history of blocks fills, since each batch of sessions
exceeds the threshold, and the allocator takes the memory that it needs. Afterwards memory, threads and file descriptors
are sampled. The exit code is 1 if one of them has grown, a total differs from the truth, or a watcher got no frames.

Sessions start at a fixed rate. Ended sessions are kept for a second or two, so without a rate their number, and the
memory with it, would depend on how busy the machine is.
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
"""The first part of the run, in which growth is accepted; a fraction."""

MAX_RSS_GROWTH_MB = 4.0
"""Allocators keep some freed memory. A leak of 5 bytes a session exceeds this at a million sessions."""

MAX_OBJECT_GROWTH = 50_000
"""Histories may still fill. One object left by every sixteenth session exceeds this at a million sessions."""

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
    """The resources that the worker holds at one moment."""

    rss_mb: float
    """In units of 1024 × 1024 bytes."""
    objects: int
    """Blocks of memory that Python has allocated and not freed."""
    threads: int
    files: int

    @classmethod
    def now(cls) -> Resources:
        """Collect garbage, then read the resources of this process."""
        gc.collect()
        process = psutil.Process()
        return cls(
            process.memory_info().rss / 2**20, sys.getallocatedblocks(), process.num_threads(), process.num_fds()
        )


def growth(samples: list[Resources]) -> list[str]:
    """Return what has grown after the warm-up, in words."""
    warmed = max(1, int(WARM_UP * len(samples)))
    warm, after = samples[warmed - 1], samples[warmed:]
    problems = []
    if (most := max(sample.rss_mb for sample in after)) - warm.rss_mb > MAX_RSS_GROWTH_MB:
        problems.append(f"RSS grew from {warm.rss_mb:.1f} to {most:.1f} MB")
    if (objects := max(sample.objects for sample in after) - warm.objects) > MAX_OBJECT_GROWTH:
        problems.append(f"{objects} objects more than after the warm-up")
    # A sample may be taken while the service thread has a file of /proc open: the least of three counts.
    threads, files = (min(getattr(sample, each) for sample in after[-3:]) for each in ("threads", "files"))
    if threads > warm.threads or files > warm.files:
        problems.append(f"{threads} threads and {files} files, {warm.threads} and {warm.files} before")
    return problems


async def settled() -> Resources:
    """Return the resources after the accounts of ended sessions are closed, which takes up to two seconds."""
    await asyncio.sleep(3.0)
    return Resources.now()


class Failed(Exception):
    """The error of a session that fails."""


async def work(number: int) -> None:
    """Take two steps; fail in one session of twenty."""
    await asyncio.sleep(0)
    if number % 20 == 7:
        raise Failed


async def call(introspector: Introspector, number: int) -> None:
    """Run one session, which makes two tasks and waits for them."""
    with introspector.session(f"job-{number:07}", agent_name=f"agent-{number % 7}", metadata={"tenant": "acme"}):
        tasks = [asyncio.create_task(work(number)) for _ in range(2)]
        if number % 10 == 3:
            for task in tasks:
                task.cancel()
        await asyncio.gather(*tasks)


async def soak(sessions: int, watchers: int, together: int, rate: float, count: int, path: Path) -> dict[str, Any]:
    """Run the sessions. Return the figures and the problems found, for JSON."""
    began = time.monotonic()
    samples: list[Resources] = []
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
            if numbers.stop >= sessions * (len(samples) + 1) // count:
                samples.append(await settled())
                due = time.monotonic()
            due = max(due + len(numbers) / rate, time.monotonic() - 1.0)
            await asyncio.sleep(due - time.monotonic())
        snapshot = introspector.snapshot()
    frames = []
    for process in processes:
        assert process.stdout is not None
        frames.append(int(await process.stdout.readline()))
        await process.wait()
    # A cancelled session ends by CancelledError, which does not count as an error, even if its tasks would fail.
    errored = sum(number % 20 == 7 and number % 10 != 3 for number in range(sessions))
    problems = growth(samples)
    for what, reported, true in (
        ("sessions started", snapshot.worker.started, sessions),
        ("sessions errored", snapshot.worker.errored, errored),
        ("sessions live", snapshot.worker.sessions, 0),
        ("notes", snapshot.worker.notes, []),
    ):
        if reported != true:
            problems.append(f"{what}: reported {reported}, true {true}")
    if watchers and not min(frames):
        problems.append(f"a watcher got no frames: {frames}")
    return {
        "sessions": sessions,
        "seconds": round(time.monotonic() - began, 1),
        "rss_mb": [round(sample.rss_mb, 1) for sample in samples],
        "objects": [sample.objects for sample in samples],
        "warm": samples[max(1, int(WARM_UP * count)) - 1]._asdict(),
        "last": samples[-1]._asdict(),
        "frames": frames,
        "problems": problems,
    }


def parsed(parser: argparse.ArgumentParser) -> tuple[argparse.Namespace, Any]:
    """Return a soak's options, and the factory of the loop that they name."""
    parser.add_argument("--samples", type=int, default=20, help="how often the worker's resources are sampled")
    parser.add_argument("--loop", choices=("asyncio", "uvloop"), default="asyncio")
    options = parser.parse_args()
    logging.getLogger("openrtc.introspect").setLevel(logging.ERROR)  # a soak is full of blocks
    if options.samples < 2:
        parser.error(f"--samples must be 2 or more, got {options.samples}: the others are compared with the first")
    if options.loop == "uvloop":
        import uvloop

        return options, uvloop.new_event_loop
    return options, asyncio.SelectorEventLoop


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sessions", type=int, default=1_000_000)
    parser.add_argument("--watchers", type=int, default=4)
    parser.add_argument("--together", type=int, default=200, help="how many sessions live at a time")
    parser.add_argument("--rate", type=float, default=2500.0, help="how many sessions start in a second at most")
    options, factory = parsed(parser)
    with (
        tempfile.TemporaryDirectory(prefix="soak-", dir="/tmp") as folder,
        asyncio.Runner(loop_factory=factory) as runner,
    ):
        report = runner.run(
            soak(
                options.sessions,
                options.watchers,
                options.together,
                options.rate,
                options.samples,
                Path(folder) / "soak.sock",
            )
        )
    print(json.dumps(report))
    return int(bool(report["problems"]))


if __name__ == "__main__":
    sys.exit(main())
