"""The CPU time of `openrtc top` while it is open, and its time to start.

The real command runs in a pseudo-terminal of 200×50, on a worker whose sessions all do a little work.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import signal
import struct
import sys
import termios
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from statistics import median

import psutil

from . import _loops
from ._case import Case, Result, Results, Row, value
from ._sessions import opened
from ._subjects import make

WIDTH, HEIGHT = 200, 50
SESSIONS = 200
RATES = ("1", "10")
PATIENCE_S = 15.0


def cases(quick: bool) -> list[Case]:
    seconds, starts = (3.0, 2) if quick else (20.0, 9)
    needs = ("openrtc_top",)
    found = [Case(f"cpu at {rate} Hz", measure_cpu, {"rate": rate, "seconds": seconds}, needs=needs) for rate in RATES]
    return [*found, Case("start", measure_start, {"starts": starts}, limit_s=120.0, needs=needs)]


def measure_cpu(rate: str, seconds: float) -> Result:
    return _loops.run("asyncio", _measure_cpu(rate, seconds))


async def _measure_cpu(rate: str, seconds: float) -> Result:
    async with _worker(SESSIONS), running("--refresh-rate", rate) as view:
        await view.shows(b"call-")
        await asyncio.sleep(2.0)  # until the work at the start is over
        process = psutil.Process(view.pid)
        before, written, began = process.cpu_times(), view.written, time.perf_counter()
        await asyncio.sleep(seconds)
        after, wall = process.cpu_times(), time.perf_counter() - began
        return {
            "cpu_pct": 100.0 * (after.user + after.system - before.user - before.system) / wall,
            "kib_per_s": (view.written - written) / 1024 / wall,
            "rss_mb": process.memory_info().rss / 2**20,
        }


def measure_start(starts: int) -> Result:
    return _loops.run("asyncio", _measure_start(starts))


async def _measure_start(starts: int) -> Result:
    times = []
    async with _worker(SESSIONS):
        for _ in range(starts):
            began = time.perf_counter()
            async with running() as view:
                await view.shows(b"call-")
                times.append(time.perf_counter() - began)
    return {"first_frame_s": median(times), "min_s": min(times)}


@asynccontextmanager
async def _worker(sessions: int) -> AsyncIterator[None]:
    """Run a worker in this process, whose sessions all do a little work.

    Each works ten times a second.
    """

    async def a_little() -> None:
        while True:
            sum(range(500))
            await asyncio.sleep(0.1)

    subject = make("exact")
    await subject.start()
    async with opened(subject, {f"call-{number:04}": a_little for number in range(sessions)}):
        await asyncio.sleep(1.2)
        yield
    await subject.close()


class View:
    """The command in its terminal, and its output."""

    def __init__(self, pid: int, terminal: int) -> None:
        self.pid = pid
        self.written = 0
        self.patience_s = PATIENCE_S
        self._terminal = terminal
        self._seen = bytearray()
        self._new_output = asyncio.Event()

    def read(self) -> None:
        data = os.read(self._terminal, 65536)
        self.written += len(data)
        self._seen = (self._seen + data)[-1_000_000:]
        self._new_output.set()

    async def shows(self, text: bytes) -> None:
        async with asyncio.timeout(self.patience_s):
            while text not in self._seen:
                self._new_output.clear()
                await self._new_output.wait()


@asynccontextmanager
async def running(*options: str) -> AsyncIterator[View]:
    terminal, other = os.openpty()
    fcntl.ioctl(other, termios.TIOCSWINSZ, struct.pack("HHHH", HEIGHT, WIDTH, 0, 0))
    command = [sys.executable, "-m", "openrtc_top", "top", *options]
    environment = os.environ | {"TERM": "xterm-256color"}
    process = await asyncio.create_subprocess_exec(
        *command, stdin=other, stdout=other, stderr=other, env=environment, start_new_session=True
    )
    view = View(process.pid, terminal)
    loop = asyncio.get_running_loop()
    loop.add_reader(terminal, view.read)
    try:
        yield view
        process.send_signal(signal.SIGTERM)
        await process.wait()
    finally:
        loop.remove_reader(terminal)
        if process.returncode is None:
            process.kill()
            await process.wait()
        os.close(terminal)
        os.close(other)


def rows(results: Results) -> list[Row]:
    found = [
        Row(
            f"the view's CPU at {rate} Hz, {SESSIONS} sessions, of a core",
            value(results, f"cpu at {rate} Hz", "cpu_pct"),
            "%",
            must=3.0 if rate == "1" else None,
        )
        for rate in RATES
    ]
    found.append(Row("the view's RSS", value(results, "cpu at 1 Hz", "rss_mb"), "MB"))
    start = value(results, "start", "first_frame_s")
    return [*found, Row("from start to the first frame with sessions", start, "s", must=0.5)]
