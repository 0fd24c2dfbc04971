"""Four loops in four threads under one introspector: shares, steps, blocks, and what threads may spoil.

Without a GIL the loops run at the same time, as far as there are processors. Sessions work on each loop, and one
works on all of them at once. Meanwhile another thread takes snapshots. The truth is measured as in attribution.py.
"""

from __future__ import annotations

import asyncio
import contextvars
import threading
from typing import Any

from ._case import SEED, Case, Details, Result, Results, Row, value
from ._figures import quantile, relative_error
from ._loop_blocks import blocks
from ._loop_threads import LOOPS, SETTLE_S, LoopThreads, Reader, Stages, Worker, totals, work_until
from ._table import figure
from ._work import now, take_turns, work

EVERYWHERE = "on all loops"
WORKLOADS = (("python", 0.0003, 0.005), ("native", 0.003, 0.040), ("sleep", 0.015, 0.100))
"""Kind, busy seconds, period: of the sessions of each loop."""
EXTRA = ("python", 0.0003, 0.010)
"""The same, of the session on all loops."""


def cases(quick: bool) -> list[Case]:
    return [
        Case("shares", shares, {"seconds": 1.0 if quick else 6.0}),
        Case("steps", steps, {"count": 2_000 if quick else 50_000}),
        Case("blocks", blocks, {"each": 3 if quick else 30, "seed": SEED}, limit_s=120.0),
        Case("ids", ids, {"count": 200 if quick else 3_000}),
    ]


def shares(seconds: float) -> Result:
    """Let sessions work at their rhythms."""
    ends = now() + seconds + 2.0

    def worker(context: contextvars.Context, kind: str, busy: float, period: float) -> Worker:
        task = work(kind, busy)
        return Worker(context, lambda: work_until(ends, task, period))

    return _measure(worker, [*WORKLOADS], EXTRA)


def steps(count: int) -> Result:
    """Let sessions take steps as fast as they can."""

    def worker(context: contextvars.Context, *_: Any) -> Worker:
        return Worker(context, lambda: take_turns(count))

    return _measure(worker, WORKLOADS[:1], EXTRA)


def _measure(worker: Any, own: Any, extra: Any) -> Result:
    """Compare each session's seconds and steps with those that it has counted itself."""
    from openrtc_introspect_core import Introspector

    context: list[contextvars.Context] = []  # of the session on all loops
    held: dict[str, list[Any]] = {}
    lock = threading.Lock()

    async def main(introspector: Any, number: int, stages: Stages) -> None:
        workers: list[Worker] = []
        closing = asyncio.Event()

        async def entry(session_id: str, workload: Any) -> None:
            with introspector.session(session_id, agent_name="bench"):
                if session_id == EVERYWHERE:
                    context.append(contextvars.copy_context())
                else:
                    add(session_id, contextvars.copy_context(), workload)
                await closing.wait()

        def add(session_id: str, of_session: contextvars.Context, workload: Any) -> None:
            workers.append(worker(of_session, *workload))
            with lock:
                held.setdefault(session_id, []).append(workers[-1].held)

        entries = [asyncio.create_task(entry(f"{number} {each[0]}", each)) for each in own]
        if number == 0:
            entries.append(asyncio.create_task(entry(EVERYWHERE, extra)))
        await asyncio.sleep(SETTLE_S)
        await stages.reached()
        add(EVERYWHERE, context[0].copy(), extra)
        await asyncio.sleep(SETTLE_S)
        for _ in range(2):  # all is open and quiet; its seconds and steps are read
            await stages.reached()
        for each in workers:
            each.begin()
        for each in workers:
            await each.ended.wait()
        for _ in range(2):  # all have ended; the same
            await stages.reached()
        for each in workers:
            await each.close()
        closing.set()
        await asyncio.gather(*entries)

    introspector = Introspector(name="bench", budget_pct=0, socket_path=False)
    loops = LoopThreads(introspector, main, LOOPS)
    loops.stages.wait()
    loops.stages.wait()
    before, began = totals(introspector), now()
    loops.stages.wait()
    reader = Reader(introspector)
    loops.stages.wait()
    reader.stop()
    wall, after = now() - began, totals(introspector)
    loops.stages.wait()
    loops.join()
    notes = introspector.snapshot().worker.notes
    introspector.close()
    sessions = {}
    for name, each in held.items():
        true, run = sum(one.seconds for one in each), sum(one.steps for one in each)
        reported, counted = after[name][0] - before[name][0], after[name][1] - before[name][1]
        sessions[name] = {"true_pct": 100.0 * true / wall, "reported_pct": 100.0 * reported / wall,
                          "error_pct": relative_error(reported, true), "run": run, "counted": counted}  # fmt: skip
    return {
        "sessions": sessions,
        "snapshots": reader.snapshots,
        "beyond": reader.beyond,
        "falls_ms": reader.falls_ms,
        "lost_steps": reader.lost_steps,
        "notes": notes,
    }


def ids(count: int) -> Result:
    """Open and close sessions on all loops: each of its own id, and all of one id that only one of them may have."""
    from openrtc_introspect_core import IntrospectError, Introspector

    opened = [0] * LOOPS
    refused = [0] * LOOPS
    inside: list[int] = []
    most = [0] * LOOPS

    async def main(introspector: Any, number: int, stages: Stages) -> None:
        await stages.reached()
        for index in range(count):
            with introspector.session(f"{number}-{index}", agent_name="bench"):
                opened[number] += 1
                await take_turns(1)
            try:
                with introspector.session("one", agent_name="bench"):
                    opened[number] += 1
                    inside.append(number)
                    await take_turns(1)
                    most[number] = max(most[number], len(inside))
                    inside.pop()
            except IntrospectError:
                refused[number] += 1

    introspector = Introspector(name="bench", budget_pct=0, socket_path=False)
    loops = LoopThreads(introspector, main, LOOPS)
    loops.stages.wait()
    reader = Reader(introspector)
    loops.join()
    reader.stop()
    worker = introspector.snapshot().worker
    introspector.close()
    return {
        "opened": sum(opened),
        "refused": sum(refused),
        "most": max(most),
        "not_counted": sum(opened) - worker.started,
        "left": worker.sessions,
        "snapshots": reader.snapshots,
        "notes": worker.notes,
    }


def rows(results: Results) -> list[Row]:
    found = []
    for case in ("shares", "steps"):
        sessions = (value(results, case, "sessions") or {}).values()
        if case == "shares":
            worst = max((each["error_pct"] for each in sessions), default=None)
            found.append(Row("worst relative error of a share", worst, "%", 2.0))
            middle = quantile([each["error_pct"] for each in sessions], 0.5) if sessions else None
            found.append(Row("median relative error of a share", middle, "%"))
        wrong = max((abs(each["counted"] - each["run"]) for each in sessions), default=None)
        run = sum(each["run"] for each in sessions)
        found.append(Row(f"{case}: steps counted minus steps run, worst session, of {run} in all", wrong, "", 0.0))
        falls = value(results, case, "falls_ms")
        snapshots = value(results, case, "snapshots")
        fell = len(falls) if falls is not None else None
        found += [
            Row(f"{case}: seconds of a session that fell, in {snapshots} snapshots", fell, "", 0.0),
            Row(f"{case}: steps of a session that fell", value(results, case, "lost_steps"), "", 0.0),
            Row(f"{case}: shares beyond their range", value(results, case, "beyond"), "", 0.0),
        ]
    notes = [note for case in ("shares", "steps", "ids") for note in value(results, case, "notes") or []]
    found.append(Row("faults that are noted", sum(not note.startswith("no GIL") for note in notes), "", 0.0))
    count, at_once = (value(results, "blocks", key) for key in ("blocks", "at_once"))
    percent = 100.0 * value(results, "blocks", "found") / count if count else None
    what = f"blocks: found, of {count}, {at_once} of them begun while another loop was blocked"
    found.append(Row(what, percent, "%", 100.0, at_least=True))
    unattributed = value(results, "blocks", "unattributed")
    for cause, number in (unattributed or {}).items():
        found.append(Row(f"blocks: attributed to no session, since the cause is {cause}", number))
    errors = [abs(each) for each in value(results, "blocks", "errors_ms") or []]
    false, opened = value(results, "blocks", "false"), value(results, "ids", "opened")
    found += [
        Row("blocks: attributed to another session", value(results, "blocks", "wrong"), "", 0.0),
        Row("blocks: with a line", value(results, "blocks", "line")),
        Row("blocks: innocent sessions blamed", value(results, "blocks", "innocents"), "", 0.0),
        Row("blocks: others reported, of no session", sum(false.values()) if false is not None else None),
        Row("blocks: duration, median error", quantile(errors, 0.5) if errors else None, "ms"),
        Row("blocks: duration, worst error", max(errors, default=None), "ms", 2.0),
        Row("ids: sessions with one id at the same time", value(results, "ids", "most"), "", 1.0),
        Row(f"ids: sessions not counted, of {opened}", value(results, "ids", "not_counted"), "", 0.0),
        Row("ids: sessions left", value(results, "ids", "left"), "", 0.0),
    ]
    return found


def details(results: Results) -> list[Details]:
    lines = []
    for case in ("shares", "steps"):
        for name, each in (value(results, case, "sessions") or {}).items():
            # Of a step of some 2 µs, half is the task's own and asyncio's work, which the truth does not see.
            keys = ("true_pct", "reported_pct") if case == "shares" else ()
            shown = [figure(each[key], "%") for key in keys] or ["–", "–"]
            lines.append([f"{case}: {name}", *shown, str(each["run"]), str(each["counted"])])
    heading = ("session", "truth", "reported", "steps run", "counted")
    return [Details("Sessions on four loops at once", heading, lines)]
