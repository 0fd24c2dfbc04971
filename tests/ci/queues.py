"""Run the sessions of a run of CI, in queues beside each other."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from ci.plan import Plan
from ci.reports import Report, read_report

TIMEOUT_S = 40 * 60
"""Seconds after which a session is ended: one that hangs must not hide what all others found."""


@dataclass(frozen=True)
class Result:
    """How a session ended."""

    session: str
    ended_well: bool
    seconds: float
    log: str
    """What it printed."""
    report: Report | None
    """What pytest reported. None: it ran no tests, or ended before their end."""


def run_queues(plan: Plan, chosen: dict[Path, list[str]]) -> list[Result]:
    """Run sessions, by the checkout that they run in: each checkout's are a queue."""
    with ThreadPoolExecutor(len(chosen)) as threads:
        queues = [threads.submit(run_queue, plan, root, sessions) for root, sessions in chosen.items()]
        return [result for queue in queues for result in queue.result()]


def run_queue(plan: Plan, root: Path, sessions: list[str]) -> list[Result]:
    """Run sessions one after the other, and print how each ended."""
    results = []
    for session in sessions:
        result = run_session(root, session, plan.arguments_of(session))
        results.append(result)
        print(f"{result.seconds / 60:5.1f} min  {session}: {'passed' if result.ended_well else 'FAILED'}", flush=True)
    return results


def run_session(root: Path, session: str, arguments: list[str]) -> Result:
    """Run one session of noxfile.py in a checkout."""
    command = [sys.executable, "noxfile.py", session, *(["--", *arguments] if arguments else [])]
    log = root / ".nox" / f"{session}.log"
    log.parent.mkdir(exist_ok=True)
    file = report_file(root, session)
    file.unlink(missing_ok=True)
    began = time.monotonic()
    with (
        log.open("wb") as output,
        subprocess.Popen(
            command, cwd=root, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
        ) as process,
    ):
        try:
            process.wait(TIMEOUT_S)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)  # the tests and all that they started
            output.write(f"\nended after {TIMEOUT_S / 60:.0f} minutes\n".encode())
    text = log.read_text(encoding="utf-8", errors="replace")
    # A session that nox skips for lack of something exits with 0.
    ended_well = process.returncode == 0 and not re.search(r"^nox > Session .* skipped", text, re.MULTILINE)
    seconds = time.monotonic() - began
    report = read_report(file, session) if file.exists() else None
    return Result(session, ended_well, seconds, text, report)


def report_file(root: Path, session: str) -> Path:
    """Return where noxfile.py has pytest write the report of a session."""
    return root / ".nox" / "reports" / f"{session}.xml"
