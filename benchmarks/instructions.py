"""The instructions added to each step, task and iteration, counted by valgrind: slow, with little noise.

Callgrind counts the instructions of the loop's thread in a run with steps and in a run without. The difference of the
two belongs to the steps alone. It is no time: caches that have gone cold cost time and no instruction. Under valgrind
all takes fifty times as long. So what is done once in some milliseconds is counted fifty times too often, as is what a
step of more than 0.1 ms costs, if the machine is busy.

Runs only if it is named.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from . import _loops, _runner
from ._case import Case, Result, Results, Row, value

KINDS = {"step": "step", "task": "task, created and awaited", "iteration": "iteration of one callback"}
BUILDS = {"default": "", "before": ", the build before"}
ROUNDS = 4
"""How many rounds of cost.py are counted."""


def cases(quick: bool) -> list[Case]:
    found = [
        Case(
            f"{loop} {who}",
            measure,
            {
                "loop": loop,
                "subject": "peer" if who == "peer" else "exact",
                "kinds": ["step"] if quick else list(KINDS),
            },
            limit_s=900.0,
            needs=_loops.needs(loop, who),
            programs=("valgrind",),
            before=who == "before",
        )
        for loop in _loops.WITH_TRIO
        for who in (*BUILDS, "peer")
        if _loops.exists(loop, who) and not (quick and (loop, who) != ("asyncio", "default"))
    ]
    return [case for case in found if not case.before or _runner.build_before() is not None]


def measure(loop: str, subject: str, kinds: list[str]) -> Result:
    """Count the instructions of one of each kind, without introspection and with it."""
    result: Result = {}
    nothing = {who: _count(loop, who, kinds[0], 0)[0] for who in ("bare", subject)}
    for kind in kinds:
        if loop == "trio" and kind == "iteration":
            continue
        each = {}
        for who, before in nothing.items():
            instructions, count = _count(loop, who, kind, ROUNDS)
            each[who] = (instructions - before) / count
        plain, measured = each["bare"], each[subject]
        result[kind] = {"plain": plain, "added": measured - plain, "ratio": measured / plain}
    return result


def _count(loop: str, subject: str, kind: str, rounds: int) -> tuple[int, int]:
    """Return the instructions of the loop's thread in a run, and how many of the kind it had."""
    with tempfile.TemporaryDirectory(prefix="callgrind-") as folder:
        counts = Path(folder) / "counts"
        command = ["valgrind", "--tool=callgrind", "--separate-threads=yes", f"--callgrind-out-file={counts}"]
        command += [sys.executable, "-m", "benchmarks._counted", loop, subject, kind, str(rounds)]
        done = subprocess.run(command, check=False, capture_output=True, text=True, env=os.environ, timeout=300.0)
        if done.returncode:
            raise RuntimeError(f"valgrind: {done.stderr.strip().splitlines()[-1]}")
        of_loop = Path(f"{counts}-01").read_text(encoding="utf-8", errors="replace").splitlines()
        totals = next(line for line in of_loop if line.startswith("totals:"))
        return int(totals.split()[1]), int(done.stdout.split()[-1])


def rows(results: Results) -> list[Row]:
    found = []
    for loop in _loops.WITH_TRIO:
        for kind, what in KINDS.items():
            for who, title in BUILDS.items():
                if kind in results.get(f"{loop} {who}", {}):
                    ours = value(results, f"{loop} {who}", kind, "added")
                    peers = results.get(f"{loop} peer", {}).get(kind, {})
                    found.append(
                        Row(f"{loop}, instructions added per {what}{title}", ours, "", None, peers.get("added"))
                    )
    return found
