"""A program on one event loop, with what it did and what an introspector says of it.

python loop_program.py LOOP

LOOP: asyncio, uvloop, rloop, zuvloop, qasync or QtAsyncio. It prints JSON. Nothing holds the loop at first; then a
session's task waits and computes, a callback waits, and so does the main task, which is older than the introspector.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import importlib
import json
import os
import sys
import time
from collections.abc import Callable, Coroutine
from typing import Any

from openrtc_introspect_core import Introspector, Snapshot

QUIET_S, BLOCK_S = 0.4, 0.2

held: list[tuple[str, float]] = []
"""The truth: (what held the loop, seconds)."""
late: list[float] = []
"""The truth: how late the loop was, seconds."""


def wait(what: str) -> None:
    began = time.perf_counter()
    time.sleep(BLOCK_S)
    held.append((what, time.perf_counter() - began))


def compute(what: str) -> None:
    began = time.perf_counter()
    while time.perf_counter() < began + BLOCK_S:
        pass
    held.append((what, time.perf_counter() - began))


def line_of(function: Callable[..., Any]) -> int:
    return function.__code__.co_firstlineno + 1


def said(snapshot: Snapshot) -> dict[str, Any]:
    worker = snapshot.worker
    return {
        "loop": worker.loop,
        "lag_method": worker.lag_method,
        "lag_max_ms": worker.lag_max_ms,
        "idle_pct": worker.loop_time.idle_pct,
        "other_pct": worker.loop_time.other_pct,
        "iterations_per_s": worker.iterations_per_s,
        "notes": list(worker.notes),
        "in_progress": [block.duration_ms for block in snapshot.blocks_in_progress or []],
        "sessions": {
            row.session_id: {"cpu_s": row.cpu_s, "steps": row.steps, "blocks": row.blocks, "delayed_s": row.delayed_s}
            for row in snapshot.sessions
        },
    }


async def blocks() -> None:
    await asyncio.sleep(0.03)
    wait("task waits")
    await asyncio.sleep(0.03)
    compute("task computes")
    await asyncio.sleep(0.03)


async def in_session(introspector: Introspector, name: str, work: Coroutine[Any, Any, None]) -> None:
    with introspector.session(name, agent_name="ground"):
        await work


async def waits_often() -> None:
    for _ in range(100):
        due = time.perf_counter() + 0.01
        await asyncio.sleep(0.01)
        late.append(time.perf_counter() - due)


async def main() -> dict[str, Any]:
    loop = asyncio.get_running_loop()
    async with Introspector(socket_path=False) as introspector:
        quiet = asyncio.create_task(in_session(introspector, "quiet", waits_often()), name="quiet")
        await asyncio.sleep(QUIET_S)
        before = {**said(introspector.snapshot()), "late_max_ms": 1000.0 * max(late)}
        await asyncio.create_task(in_session(introspector, "busy", blocks()), name="busy")
        await asyncio.sleep(0.05)
        loop.call_soon(wait, "callback waits", context=contextvars.Context())
        await asyncio.sleep(0.05)
        with introspector.session("main", agent_name="ground"):
            await asyncio.sleep(0.03)
            wait("older task waits")
            await asyncio.sleep(0.03)
            after = said(introspector.snapshot())
        await quiet
        await asyncio.sleep(1.2)
        end = said(introspector.snapshot())
        end["late_max_ms"] = 1000.0 * max(late)
        activity = introspector.waits().loops
        found = [
            {
                "session": block.session_id,
                "ms": block.duration_ms,
                "cause": block.cause,
                "line": block.location.line if block.location is not None else None,
                "stack": [f"{os.path.basename(place.file)}:{place.line}" for place in block.stack],
                "delayed": None if block.delayed is None else [each.session_id for each in block.delayed],
            }
            for block in introspector.blocks()
        ]
    return {
        "before": before,
        "after": after,
        "end": end,
        "activity": [[each.name, each.iterations_per_s, each.ready, each.asleep_since] for each in activity],
        "blocks": found,
        "held": held,
        "lines": {"wait": line_of(wait) + 1, "compute": [line_of(compute) + 1, line_of(compute) + 2]},
        "restored": sorted({"create_task", "call_soon", "run_forever"} & set(vars(loop))),
    }


def run(kind: str) -> Any:
    if kind in ("qasync", "QtAsyncio"):
        os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
        app = importlib.import_module("PySide6.QtCore").QCoreApplication(sys.argv)
        if kind == "QtAsyncio":
            return importlib.import_module("PySide6.QtAsyncio").run(main(), keep_running=False)
        loop = importlib.import_module("qasync").QEventLoop(app)
    else:
        loop = importlib.import_module(kind).new_event_loop()
    with contextlib.closing(loop):
        return loop.run_until_complete(main())


if __name__ == "__main__":
    print(json.dumps(run(sys.argv[1])))
