"""Run another project's tests metered and plain: each test must have the same outcome.

    python tests/suites/compare.py SUITE FOLDER [PYTEST ARGUMENT ...]

SUITE is a table of suites.toml, and FOLDER its unpacked sdist. The Python that runs this file must have its package,
the requirements of its tests, and our packages. Further arguments select other tests than suites.toml does.

The suite runs plain; with an Introspector on each event loop, once for each step meter; and with the pytest plugin of
openrtc-introspect-testing. A test differs if its outcome is not that of the plain run, and still is not when both runs
are repeated: the outcome of some tests depends on timing.
"""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
QUIET_S = 90.0
"""A run hangs if no test begins or ends for this time."""
OUTPUT = 2000
"""How much of a crashed run's output is shown, in characters."""
REPETITIONS = 2
MANY = 40
"""More differences than this are not due to timing, and are not repeated."""
INTERRUPTED = 2
"""The lowest of pytest's exit codes for a run that did not reach its end."""


@dataclass(frozen=True)
class Way:
    """A way to run a suite: arguments of pytest, and variables of the environment."""

    name: str
    arguments: tuple[str, ...]
    environment: tuple[tuple[str, str], ...] = ()


NO_PLUGIN = ("-p", "no:openrtc_introspect")
PLAIN = Way("plain", NO_PLUGIN)
METERED = (
    Way("Python meter", (*NO_PLUGIN, "--introspect-every-loop"), (("OPENRTC_INTROSPECT_METER", "python"),)),
    Way("C meter", (*NO_PLUGIN, "--introspect-every-loop")),
    Way("pytest plugin", ("--slow-sessions=1000000",)),
)


@dataclass
class Run:
    """The outcomes of one run."""

    outcomes: dict[str, str] = field(default_factory=dict)
    """By node id."""
    reasons: dict[str, str] = field(default_factory=dict)
    """Why tests failed, by node id."""
    begun: str = "the start"
    """The test that began last."""
    loops: int = 0
    """How many event loops were introspected."""
    faults: list[str] = field(default_factory=list)
    """Loops that could not be attached to."""
    ended: bool = False
    """Whether pytest reached its end."""
    crash: str | None = None
    """The end of its output, if it did not."""

    def take(self, line: dict[str, Any]) -> None:
        """Take a line of the recorder. A test's worst phase is its outcome."""
        if "begun" in line:
            self.begun = line["begun"]
        elif "exit" in line:
            self.ended = line["exit"] < INTERRUPTED
            self.loops, self.faults = line["loops"], line["faults"]
        elif not self.outcomes.get(line["test"], "passed").startswith("failed"):
            self.outcomes[line["test"]] = line["outcome"]
            self.reasons[line["test"]] = line["why"]


def run(folder: Path, way: Way, selection: Sequence[str]) -> Run:
    """Run the suite once, in a process of its own."""
    with tempfile.TemporaryDirectory() as temporary:
        file = Path(temporary, "outcomes")
        command = [sys.executable, "-m", "pytest", "-q", "--tb=short", "-p", "no:cacheprovider", "-p", "recorder"]
        command += [f"--outcomes={file}", f"--basetemp={temporary}/tests", *way.arguments, *selection]
        environment = {**os.environ, **dict(way.environment), "PYTHONPATH": str(HERE)}
        done, begun = Run(), time.time()
        with Path(temporary, "output").open("w+", encoding="utf-8", errors="replace") as output:
            process = subprocess.Popen(
                command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT
            )
            while _waits(process):
                if time.time() - max(file.stat().st_mtime if file.exists() else 0.0, begun) > QUIET_S:
                    process.send_signal(signal.SIGABRT)  # pytest's fault handler prints the threads' stacks
            for line in file.read_text(encoding="utf-8").splitlines() if file.exists() else ():
                done.take(json.loads(line))
            if not done.ended:
                output.seek(0)
                text = output.read()
                stack = text.find("Current thread")
                end = text[stack : stack + OUTPUT] if stack >= 0 else text[-OUTPUT:]
                done.crash = f"exit code {process.returncode} in {done.begun}, after {end}"
    return done


def _waits(process: subprocess.Popen[bytes]) -> bool:
    """Wait for a second. Return whether the process still runs."""
    try:
        process.wait(1.0)
    except subprocess.TimeoutExpired:
        return True
    return False


def _runs(folder: Path, ways: Sequence[Way], selection: Sequence[str]) -> list[Run]:
    """Run the suite in each way, two at a time: tests wait about as much as they compute."""
    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(lambda way: run(folder, way, selection), ways))


def differing(plain: Run, metered: Run) -> set[str]:
    """Return the tests with another outcome. Tests that a crashed run did not reach are not among them."""
    names = plain.outcomes.keys() | metered.outcomes.keys()
    return {
        name
        for name in names
        if plain.outcomes.get(name) != metered.outcomes.get(name)
        and not (metered.crash and name not in metered.outcomes)
    }


def confirmed(folder: Path, way: Way, selection: Sequence[str], found: set[str]) -> set[str]:
    """Return those of the found tests that differ again in each repetition.

    The whole suite is repeated, since a test may depend on an earlier one.
    """
    for _ in range(REPETITIONS):
        if not 0 < len(found) <= MANY:
            break
        found = found & differing(*_runs(folder, (PLAIN, way), selection))
    return found


def compare(suite: dict[str, Any], folder: Path, selection: Sequence[str]) -> list[str]:
    """Print the result for each way. Return the differences."""
    compiled = importlib.util.find_spec("openrtc_introspect_core._native._meter") is not None
    ways = [way for way in METERED if compiled or way.name != "C meter"]
    plain, *others = _runs(folder, (PLAIN, *ways), selection)
    counts = Counter(plain.outcomes.values())
    print(f"plain: {', '.join(f'{count} {outcome}' for outcome, count in counts.most_common())}", flush=True)
    if plain.crash or counts["passed"] < len(plain.outcomes) / 2 or not counts["passed"]:
        return [f"plain: most of the suite did not pass, so there is nothing to compare: {plain.crash}"]
    faults: list[str] = []
    for way, metered in zip(ways, others, strict=True):
        found = differing(plain, metered)
        known = {name for name in found if _matching(name, suite.get("differs", {}))}
        steady = confirmed(folder, way, selection, found - known)
        print(f"{way.name}: {metered.loops} loops, {len(steady)} tests differ", flush=True)
        for name in sorted(known):
            print(f"  known to differ: {name}: {suite['differs'][_matching(name, suite['differs'])]}")
        for name in sorted(found - known - steady):
            print(f"  not each time: {_difference(name, plain, metered)}")
        for text, count in Counter(each[:160] for each in metered.faults).items():
            print(f"  not introspected, {count}: {text}")
        faults += [f"{way.name}: {_difference(name, plain, metered)}" for name in sorted(steady)]
        if metered.crash:
            missing = len(plain.outcomes.keys() - metered.outcomes.keys())
            faults.append(f"{way.name}: ended early, {missing} tests missing: {metered.crash}")
        elif not metered.loops:
            faults.append(f"{way.name}: no event loop was introspected")
    if not compiled:
        print("C meter: not compiled here, NOT TESTED")
    return faults


def _matching(name: str, known: Iterable[str]) -> str:
    """Return the entry for a node id, which has its parameters or not; an empty string if there is none."""
    test = name.rpartition("::")[2]
    return next((entry for entry in known if entry in (test, test.partition("[")[0])), "")


def _difference(name: str, plain: Run, metered: Run) -> str:
    reason = metered.reasons.get(name) or plain.reasons.get(name, "")
    return f"{name}: {plain.outcomes.get(name)}, metered {metered.outcomes.get(name)}: {reason}".rstrip(": ")


def main(arguments: Sequence[str]) -> int:
    """Return the exit code: 1 if a test differs, or nothing could be compared."""
    if len(arguments) < 2:
        print(__doc__)
        return 2
    name, folder, *selection = arguments
    suite = tomllib.loads((HERE / "suites.toml").read_text(encoding="utf-8"))[name]
    faults = compare(suite, Path(folder), selection or suite["pytest"])
    for fault in faults:
        print(f"  {fault}")
    version = ".".join(map(str, sys.version_info[:3]))
    print(f"Python {version}, {suite['package']}: {len(faults)} differ")
    return int(bool(faults))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
