"""The time that `openrtc top` takes for a frame, and `--once` from start to end.

A frame is all that follows the arrival of a snapshot: the new state, its rendering at 200×50 and the terminal's text
with its colour codes.
"""

from __future__ import annotations

import asyncio
import importlib
import io
import random
import sys
import time
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from statistics import median
from typing import Any

from . import _loops
from ._case import SEED, Case, Result, Results, Row, value
from ._sessions import idle, opened
from ._subjects import make

SIZES = (100, 1_000, 10_000)
WIDTH, HEIGHT = 200, 50
MUST_MS = {100: 15.0, 10_000: 30.0}


def cases(quick: bool) -> list[Case]:
    found = []
    for sessions in SIZES:
        frames = 5 if quick else 30
        of_peer = {100: 10, 1_000: 4, 10_000: 1}[sessions]
        found.append(
            Case(
                f"{sessions} top",
                measure,
                {"sessions": sessions, "frames": frames, "seed": SEED},
                needs=("openrtc_top",),
            )
        )
        arguments = {"sessions": sessions, "frames": of_peer, "seed": SEED}
        found.append(Case(f"{sessions} peer", measure_peer, arguments, needs=("openrtc",)))
    for subject, needs in (("exact", "openrtc_top"), ("peer", "openrtc")):
        runs = {"subject": subject, "runs": 2 if quick else 9}
        found.append(Case(f"once {subject}", measure_once, runs, needs=(needs,)))
    return found


def measure(sessions: int, frames: int, seed: int) -> Result:
    from openrtc_introspect_core.wire import Host, LoopTime, SessionRow, Snapshot, WorkerInfo
    from openrtc_top._model.events import Frame
    from openrtc_top._model.reducer import reduce
    from openrtc_top._model.state import State
    from openrtc_top._view.screen import render
    from openrtc_top._view.text import to_text

    chooser = random.Random(seed)

    def snapshot(second: int) -> Snapshot:
        rows = [SessionRow(**_row(number, chooser)) for number in range(sessions)]
        worker = WorkerInfo(
            name="worker",
            pid=4711,
            epoch="one",
            loop="asyncio",
            sessions=sessions,
            started=sessions,
            rss_mb=900.0,
            loop_time=LoopTime(sessions_pct=40.0, untagged_pct=2.0, other_pct=3.0, idle_pct=55.0),
            lag_p99_ms=2.0,
            lag_max_ms=60.0,
            host=Host(cpu_pct=20.0, cores=2),
        )
        return Snapshot(seq=second, taken_at=1_700_000_000.0 + second, worker=worker, sessions=rows)

    state = State()
    reducing, drawing = [], []
    for second in range(frames + 1):
        frame = Frame("worker", snapshot(second))
        began = time.perf_counter()
        state = reduce(state, frame)
        reduced = time.perf_counter()
        text = to_text(render(state, (WIDTH, HEIGHT)), WIDTH, HEIGHT, color=True)
        drawn = time.perf_counter()
        assert text.count("\n") == HEIGHT - 1
        reducing.append(1000.0 * (reduced - began))
        drawing.append(1000.0 * (drawn - reduced))
    whole = [one + other for one, other in zip(reducing, drawing, strict=True)]
    return {
        "frame_ms": median(whole[1:]),  # the first one fills caches
        "first_ms": whole[0],
        "reduce_ms": median(reducing[1:]),
        "render_ms": median(drawing[1:]),
    }


def measure_peer(sessions: int, frames: int, seed: int) -> Result:
    from rich.console import Console, Group

    view = _peers_view()
    chooser = random.Random(seed)
    worker = {
        "name": "worker",
        "uptime_s": 60.0,
        "active_sessions": sessions,
        "system": {},
        "cpu_history": [20.0] * 60,
    }
    times = []
    for _ in range(frames):
        rows = [_row(number, chooser) for number in range(sessions)]
        began = time.perf_counter()
        console = Console(file=io.StringIO(), width=WIDTH, height=HEIGHT, force_terminal=True)
        console.print(Group(view.build_header_panel(worker), view.build_top_table(rows)))
        times.append(1000.0 * (time.perf_counter() - began))
    return {"frame_ms": median(times[1:] or times), "first_ms": times[0]}


def _peers_view() -> Any:
    """Load the peer's view by its file.

    The package around it does not load with every version of typer.
    """
    (package,) = importlib.import_module("openrtc").__path__
    spec = spec_from_file_location("peers_top_cli", Path(package) / "cli" / "top_cli.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _row(number: int, chooser: random.Random) -> dict[str, Any]:
    return {
        "session_id": f"job-{chooser.getrandbits(24):06x}{number:05}",
        "agent_name": chooser.choice(("restaurant", "dental", "support", "concierge")),
        "tenant": chooser.choice(("acme", "globex", None)),
        "duration_s": chooser.uniform(0, 3600),
        "cpu_pct": chooser.expovariate(1.0),
        "mem_mb": 900.0 / (number + 1),
        "peak_mb": 12.0,
        "status": chooser.choices(("active", "slow"), (50, 1))[0],
    }


def measure_once(subject: str, runs: int) -> Result:
    return _loops.run("asyncio", _measure_once(subject, runs))


async def _measure_once(subject_name: str, runs: int) -> Result:
    subject = make(subject_name)
    await subject.start()
    async with opened(subject, idle(100)):
        await asyncio.sleep(0.5)
        command = [sys.executable, "-m", "openrtc_top", "top", "--once", "--socket", str(subject.socket)]
        if subject_name == "peer":
            entry = "import sys; from openrtc.cli import main; sys.exit(main(sys.argv[1:]))"
            command[1:3] = ["-c", entry]
        times, code = [], 0
        for _ in range(runs):
            began = time.perf_counter()
            pipe = asyncio.subprocess.PIPE
            process = await asyncio.create_subprocess_exec(*command, stdout=pipe, stderr=pipe)
            output, _ = await process.communicate()
            times.append(time.perf_counter() - began)
            code = process.returncode or (0 if b"idle-0000" in output else 1)
    await subject.close()
    return {"once_s": median(times), "min_s": min(times), "exit_code": code}


def rows(results: Results) -> list[Row]:
    found = [
        Row(
            f"frame, {sessions:,} sessions",
            value(results, f"{sessions} top", "frame_ms"),
            "ms",
            must=MUST_MS.get(sessions),
            peer=value(results, f"{sessions} peer", "frame_ms"),
        )
        for sessions in SIZES
    ]
    code = value(results, "once peer", "exit_code")
    peer = f"fails, exit code {code}" if code else value(results, "once peer", "once_s")
    ours = value(results, "once exact", "once_s") if not value(results, "once exact", "exit_code") else None
    return [*found, Row("top --once, 100 sessions, from start to end", ours, "s", must=0.4, peer=peer)]
