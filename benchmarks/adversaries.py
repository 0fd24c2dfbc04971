"""Loop lag and memory of a worker under hostile peers of its socket.

Each kind of attack is a process of its own, see _adversary.py, and takes a core while it runs. So does the process of
the calm case, which only spins. Meanwhile a well-behaved client watches, and another connects anew twice a second for a
snapshot. The crowd is measured while it makes its first connections, and goes on until it has made all.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

from openrtc_introspect_core._base.units import MIB

from . import _loops
from ._adversary import CROWD, KINDS
from ._case import Case, Details, Result, Results, Row, value
from ._client import Client
from ._lag import lag_of
from ._sessions import idle, opened
from ._subjects import make
from ._table import figure
from .footprint import resident

SESSIONS = 100
CALM = "calm"
_SPIN = (
    "import sys, time; sys.stdin.readline(); until = time.time() + float(sys.argv[1])\nwhile time.time() < until: pass"
)


def cases(quick: bool) -> list[Case]:
    seconds = 1.0 if quick else 4.0
    lengths = dict.fromkeys((CALM, *KINDS), (seconds, seconds))
    if not quick:  # a worker accepts at most 500 connections a second
        lengths["crowd"] = (CROWD / 500.0, 120.0)
    return [
        Case(kind, measure, {"kind": kind, "seconds": measured, "attack_s": attack}, limit_s=180.0)
        for kind, (measured, attack) in lengths.items()
    ]


def measure(kind: str, seconds: float, attack_s: float) -> Result:
    return _loops.run("asyncio", _measure(kind, seconds, attack_s))


async def _measure(kind: str, seconds: float, attack_s: float) -> Result:
    subject = make("exact")
    await subject.start()
    async with opened(subject, idle(SESSIONS)):
        await asyncio.sleep(1.2)
        shared = {"protocol": subject.protocol, "path": str(subject.socket), "seconds": seconds}
        watcher = await Client.start("watch", clients=1, **shared)
        newcomer = await Client.start("ask", interval_s=0.5, **shared)
        pipe = asyncio.subprocess.PIPE
        if kind == CALM:
            command = [sys.executable, "-c", _SPIN, str(seconds)]
        else:
            script = Path(__file__).with_name("_adversary.py")
            command = [sys.executable, str(script), kind, str(subject.socket), str(attack_s)]
        process = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe)
        assert process.stdin is not None
        assert process.stdout is not None
        if kind != CALM:
            await process.stdout.readline()
        watcher.go()
        newcomer.go()
        await asyncio.sleep(0.1)
        before = resident()
        process.stdin.write(b"\n")
        lag = await lag_of(seconds)
        during = resident()
        output, _ = await process.communicate()
        grown = max(during, resident()) - before
        achieved: dict[str, Any] = json.loads(output) if output else {}
        frames = (await watcher.result())["per_s"]
        answered = 1000.0 * max(answered - asked for asked, answered in await newcomer.result())
    await subject.close()
    return {
        "lag": lag, "grown_kib": grown / 1024, "achieved": achieved, "frames_per_s": frames, "answered_ms": answered,
    }  # fmt: skip


def rows(results: Results) -> list[Row]:
    calm = value(results, CALM, "lag", "p99_ms")
    lags = {kind: value(results, kind, "lag", "p99_ms") for kind in KINDS}
    grown = [value(results, kind, "grown_kib") for kind in KINDS if kind in results]
    known = {kind: lag for kind, lag in lags.items() if lag is not None}
    worst = max(known, key=known.__getitem__) if known else None
    frames = [value(results, kind, "frames_per_s") for kind in KINDS if kind in results]
    return [
        Row("beside a process that only spins, lag, p99", calm, "ms"),
        Row(
            f"under the worst of {len(KINDS)} hostile peers ({worst}), lag, p99", known.get(worst or ""), "ms", must=5.0
        ),
        Row("RSS added by the worst of them", max(grown) / 1024 if grown else None, "MB", must=10.0),
        Row("connections made by the crowd", value(results, "crowd", "achieved", "connections")),
        Row("frames of a watch at 1 Hz meanwhile, fewest", min(frames, default=None), "a second"),
        Row("longest wait of a new client beside the crowd", value(results, "crowd", "answered_ms"), "ms"),
    ]


def details(results: Results) -> list[Details]:
    lines = []
    for kind in (CALM, *KINDS):
        measured = results.get(kind)
        if measured is None:
            continue
        achieved = measured["achieved"]
        lines.append(
            [
                kind.replace("_", " "),
                f"{achieved['connections']:,}" if achieved else "-",
                figure(achieved["bytes"] / MIB, "MB") if achieved else "-",
                figure(measured["lag"]["p99_ms"], "ms"),
                figure(measured["lag"]["max_ms"], "ms"),
                figure(max(0.0, measured["grown_kib"]), "KiB"),
                figure(measured["frames_per_s"], "a second"),
                figure(measured["answered_ms"], "ms"),
            ]
        )
    heading = [
        "peer",
        "connections",
        "sent",
        "lag, p99",
        "lag, longest",
        "RSS added",
        "frames at 1 Hz",
        "a new client waits, longest",
    ]
    return [Details(f"Hostile peers of a worker with {SESSIONS} sessions", heading, lines)]
