"""Runs cases: each in an interpreter of its own, one after the other, within its time limit."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from ._case import Case, Result

ROOT = Path(__file__).resolve().parent.parent


class Failed(Exception):
    """A case ended without a result; the message says how."""


def run_all(cases: Iterable[Case], say: Callable[[str], None]) -> tuple[dict[str, Result], dict[str, str]]:
    """(results, what went wrong), both by the case's name."""
    results: dict[str, Result] = {}
    failures: dict[str, str] = {}
    for case in cases:
        missing = [name for name in case.needs if importlib.util.find_spec(name) is None]
        if missing:
            say(f"  {case.name}: left out, {' and '.join(missing)} not installed")
            continue
        began = time.monotonic()
        try:
            results[case.name] = run(case)
            say(f"  {case.name}: {time.monotonic() - began:.1f} s")
        except Failed as failure:
            failures[case.name] = str(failure)
            say(f"  {case.name}: FAILED, {failure}")
    return results, failures


def run(case: Case) -> Result:
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        result = Path(folder) / "result.json"
        command = [sys.executable, "-m", "benchmarks._child", case.function.__module__]
        command += [case.function.__name__, json.dumps(case.arguments), str(result)]
        # The same hashes, thus the same dict layouts, in every run; sockets where nobody else's are.
        environment = os.environ | {"PYTHONHASHSEED": "0", "OPENRTC_RUNTIME_DIR": folder}
        environment["OPENRTC_INTROSPECT_METER"] = "c" if case.compiled else "python"
        with open(Path(folder) / "output", "w+b") as output:
            child = subprocess.Popen(
                command, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                start_new_session=True,
            )  # fmt: skip
            try:
                code = child.wait(case.limit_s)
            except subprocess.TimeoutExpired:
                raise Failed(f"no result within {case.limit_s:g} s") from None
            finally:
                _kill(child)
            if code or not result.exists():
                output.seek(0)
                text = output.read().decode(errors="replace").replace(f"{ROOT}{os.sep}", "")
                said = text.strip().splitlines()
                raise Failed(f"exit code {code}: {said[-1] if said else 'no output'}")
        measured: Result = json.loads(result.read_text(encoding="utf-8"))
        return measured


def _kill(child: subprocess.Popen[bytes]) -> None:
    """Ends the child and the clients it has started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()
