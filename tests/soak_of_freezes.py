"""Freeze one worker thousands of times with the GIL held; check that nothing grows and each freeze is seen as it was.

    python tests/soak_of_freezes.py [--freezes 10000] [--shortest 0.06] [--longest 0.2] [--samples 20] [--loop asyncio]

Each freeze is a C call that keeps the GIL for a random time, at a random depth of calls, in a session of its own. One
in four has some Python ahead of it. The first fifth of the run is the warm-up, as in soak.py. The exit code is 1 if
memory, threads or file descriptors have grown, a freeze was not found or not charged to its session, or more than one
in fifty has another line than the call's.
"""

from __future__ import annotations

import argparse
import asyncio
import ctypes
import json
import os
import random
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from soak import Resources, growth, parsed, settled

from openrtc_introspect_core import Introspector

MAX_WRONG_LINES = 0.02
"""The share of freezes whose line may be another."""
KEEPING = ctypes.PyDLL(None)
"""Calls of its functions keep the GIL."""


def keep_gil(seconds: float) -> None:
    KEEPING.usleep(int(1e6 * seconds))


def dive(depth: int, call: Callable[[], None]) -> None:
    """Make a call at a depth of so many calls."""
    if depth:
        dive(depth - 1, call)
    else:
        call()


def compute(seconds: float) -> None:
    """Run Python code for so long."""
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        pass


async def freeze(introspector: Introspector, name: str, seconds: float, python: bool) -> None:
    with introspector.session(name, agent_name="freezer"):
        await asyncio.sleep(0.002)
        if python:
            compute(0.01)
        dive(random.randrange(100), lambda: keep_gil(seconds))


class Found:
    """What the blocks say of the freezes."""

    def __init__(self) -> None:
        self.seen = 0
        """The number of the last block."""
        self.wrong = 0
        """The number of freezes with another line than the call's."""
        self.others: list[str] = []
        """The causes of the blocks that are no session's."""

    def check(self, introspector: Introspector, names: set[str]) -> None:
        """Take the new blocks, and the names of their sessions out of `names`."""
        for block in introspector.blocks(self.seen):
            self.seen = block.seq
            if block.session_id in names:
                names.discard(block.session_id)
                self.wrong += block.location is None or block.location.function != "keep_gil"
            else:
                self.others.append(f"{block.duration_ms:.0f} ms, {block.cause}: {block.detail}")


async def soak(options: argparse.Namespace) -> dict[str, Any]:
    """Run the freezes. Return the figures and the problems found, for JSON."""
    began, found = time.monotonic(), Found()
    samples: list[Resources] = []
    missing: set[str] = set()
    log = os.open(os.devnull, os.O_WRONLY)
    async with Introspector(name="freezer", stall_log=log) as introspector:
        for number in range(options.freezes):
            name = f"job-{number:06}"
            missing.add(name)
            seconds = random.uniform(options.shortest, options.longest)
            await asyncio.create_task(freeze(introspector, name, seconds, number % 4 == 0))
            await asyncio.sleep(0.3 if number % 50 == 0 else 0.0)  # now and then the watchdog falls asleep
            if number % 100 == 99 or number + 1 == options.freezes:
                found.check(introspector, missing)
            if number + 1 >= options.freezes * (len(samples) + 1) // options.samples:
                samples.append(await settled())
        notes = introspector.snapshot().worker.notes
    os.close(log)
    problems = growth(samples)
    if missing:
        problems.append(f"{len(missing)} freezes were not charged to their sessions: {sorted(missing)[:5]}")
    if found.wrong > MAX_WRONG_LINES * options.freezes:
        problems.append(f"{found.wrong} freezes have another line")
    if notes:
        problems.append(f"notes: {notes}")
    return {
        "freezes": options.freezes,
        "seconds": round(time.monotonic() - began, 1),
        "rss_mb": [round(sample.rss_mb, 1) for sample in samples],
        "last": samples[-1]._asdict(),
        "wrong_lines": found.wrong,
        "blocks_of_no_session": found.others[:100],
        "problems": problems,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--freezes", type=int, default=10_000)
    parser.add_argument("--shortest", type=float, default=0.06, help="seconds of the shortest freeze")
    parser.add_argument("--longest", type=float, default=0.2, help="seconds of the longest freeze")
    options, factory = parsed(parser)
    with (
        tempfile.TemporaryDirectory(prefix="freezes-", dir="/tmp") as folder,
        asyncio.Runner(loop_factory=factory) as runner,
    ):
        os.environ["OPENRTC_RUNTIME_DIR"] = str(Path(folder))
        report = runner.run(soak(options))
    print(json.dumps(report))
    return 1 if report["problems"] else 0


if __name__ == "__main__":
    sys.exit(main())
