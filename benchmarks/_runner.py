"""The runner of cases, one after the other.

Each has an interpreter of its own and a time limit.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from ._case import Case, Result

ROOT = Path(__file__).resolve().parent.parent
BEFORE_VARIABLE = "OPENRTC_BENCH_BEFORE"
"""The variable of the environment that names the tree of the build before, a checkout of this repository."""


class Failed(Exception):
    """A case that ended without a result; the message says how."""


def build_before() -> Path | None:
    """Return the folder of the packages of the build before. None: no tree of it is given."""
    tree = os.environ.get(BEFORE_VARIABLE)
    return Path(tree).resolve() / "packages" if tree else None


def run_all(cases: Iterable[Case], say: Callable[[str], None]) -> tuple[dict[str, Result], dict[str, str]]:
    """Run all cases. Return the results and the failures, both by the case's name."""
    results: dict[str, Result] = {}
    failures: dict[str, str] = {}
    for case in cases:
        missing = [name for name in case.needs if importlib.util.find_spec(name) is None]
        missing += [name for name in case.programs if shutil.which(name) is None]
        if missing:
            say(f"  {case.name}: skipped, {' and '.join(missing)} not installed")
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
        # The same hashes, thus the same dict layouts, in every run; sockets in a folder of their own.
        environment = os.environ | {"PYTHONHASHSEED": "0", "OPENRTC_RUNTIME_DIR": folder}
        environment.pop("OPENRTC_INTROSPECT_METER", None)
        if case.meter_in_python:
            environment["OPENRTC_INTROSPECT_METER"] = "python"
        before = build_before()
        if case.before and before is not None:
            sources = before / "openrtc-introspect-core" / "src"
            environment["PYTHONPATH"] = os.pathsep.join(filter(None, (str(sources), os.environ.get("PYTHONPATH"))))
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
                lines = text.strip().splitlines()
                raise Failed(f"exit code {code}: {lines[-1] if lines else 'no output'}")
        measured: Result = json.loads(result.read_text(encoding="utf-8"))
        return measured


def _kill(child: subprocess.Popen[bytes]) -> None:
    """Kill the child and the clients it has started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()
