"""The commands of each runbook print the output shown there, with a worker that has exactly that fault.

A `console` block of a runbook is run with the worker of scenarios/NAME.py, and a `console fixed` block with the same
worker after the fix. Lines that begin with `$` are shell commands, and the other lines are their output. There, `…`
stands for any text within a line, or on a line of its own for any lines; the number of blanks between words is not
compared. A block is repeated until its output is as promised: a fault takes longer to show on a busy machine, but does
not disappear.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path

import pytest

from openrtc_introspect_core._diagnosis.advice import ADVICE
from openrtc_top._cli import runbook_files

HERE = Path(__file__).parent
RUNBOOKS = HERE.parent.parent / "runbooks"
DEADLINE_S = 45.0
COMMAND_S = 60.0

FAULTS: dict[str, set[str]] = {
    "debugging-density": {"slow-session"},
    "loop-blocked": {"blocked-now"},
    "cpu-hot": {"hot-session"},
    "memory-pressure": {"memory-trend"},
    "tagging-lost": {"tagging-lost"},
    "nothing-moves": {"executor-full"},
    "one-call-stuck": set(),
    "sessions-only-grow": {"stale-sessions"},
    "nothing-explains-it": set(),
    "cannot-connect": set(),
    "frozen-worker": {"blocked-now"},
    "host-throttled": {"host-throttled"},
}
"""The codes of the findings in each scenario."""

ALONE = "host-throttled"
"""The scenario whose fault slows the machine. It is the last one."""
AT_ONCE = 4
"""The number of other scenarios that run at a time."""

DIAGNOSE = {
    "memory-pressure": "--seconds 5",
    "sessions-only-grow": "--seconds 5",
    "cannot-connect": '--seconds 2 --socket "$OPENRTC_RUNTIME_DIR"/service/*.sock',
}
"""The options of `openrtc diagnose`, if two seconds of all workers are not enough."""

pytestmark = [
    pytest.mark.program,
    pytest.mark.skipif(sys.platform != "linux", reason="the scenarios need Linux: schedstat, affinity, ls"),
]


# --- runbooks ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Step:
    """A command, and the lines that it must print."""

    command: str
    expected: tuple[str, ...]


def console_blocks(markdown: str, info: str) -> list[list[Step]]:
    """Return the steps of each fenced block of this kind."""
    found = []
    for body in re.findall(rf"^```{info}\n(.*?)^```$", markdown, flags=re.MULTILINE | re.DOTALL):
        steps: list[Step] = []
        for line in body.splitlines():
            if line.startswith("$ "):
                steps.append(Step(line[2:], ()))
            else:
                steps[-1] = Step(steps[-1].command, (*steps[-1].expected, line))
        found.append(steps)
    return found


def matches(expected: tuple[str, ...], output: str) -> bool:
    """Return whether the output is as promised.

    Not by a regular expression, which can take minutes to find that it does not match, and lets no other thread run.
    """
    promised = [words(line) for line in expected]
    lines = [words(line) for line in output.rstrip("\n").splitlines()]
    ends = {0}
    """The numbers of lines that the promised lines so far can stand for."""
    for line in promised:
        if line == "…":
            ends = set(range(min(ends), len(lines) + 1)) if ends else set()
        else:
            ends = {end + 1 for end in ends if end < len(lines) and line_matches(line, lines[end])}
    return len(lines) in ends


def words(line: str) -> str:
    """Return a line with one blank between its words."""
    return " ".join(line.split())


def line_matches(promised: str, line: str) -> bool:
    """Return whether a line is as promised: what stands between any text comes one after the other."""
    first, *others = (part.strip() for part in promised.split("…"))
    if not others:
        return line == first
    at, end = len(first), len(line) - len(others[-1])
    if at > end or not line.startswith(first) or not line.endswith(others[-1]):
        return False
    for part in others[:-1]:
        found = line.find(part, at, end)
        if found < 0:
            return False
        at = found + len(part)
    return True


@pytest.mark.parametrize(
    ("expected", "output", "same"),
    [
        ("a b", "a   b", True),
        ("a b", "a b c", False),
        ("a … c", "a b b c", True),
        ("a …", "a b\nc", False),
        ("a\n…", "a\nb\nc", True),
        ("…\nc", "a\nb\nc", True),
        ("a", "a\nb", False),
        ("pid …\nx", "pid 7\ny", False),
        ("", "", True),
        ("a", "", False),
        ("a\n…\nc", "a\nc\nb\nc", True),
        ("a … b … c", "a c b", False),
        ("…\na\n…\n" * 30 + "z", "a\n" * 300, False),
        ("… a … b … " * 30 + "z", "a b " * 300, False),
    ],
)
def test_output_is_compared_with_the_promised_lines(expected: str, output: str, same: bool) -> None:
    """Words are compared, and `…` stands for any text."""
    assert matches(tuple(expected.splitlines()), output) is same


def test_every_section_that_a_finding_names_exists() -> None:
    """It is in the runbook that the finding names."""
    for advice in ADVICE.values():
        assert f"### {advice.section}\n" in (RUNBOOKS / f"{advice.runbook}.md").read_text(encoding="utf-8")


def test_every_runbook_has_a_scenario_and_its_parts() -> None:
    """It has four sections, a block of commands and a scenario, and the index links to it."""
    index = (RUNBOOKS / "README.md").read_text(encoding="utf-8")
    assert set(runbook_files.names()) == set(FAULTS)
    for name in FAULTS:
        text = runbook_files.text(name)
        headings = re.findall(r"^## (.*)$", text, flags=re.MULTILINE)
        assert headings == ["Symptom", "Confirm", "What to do", "It worked when"], name
        assert f"({name}.md)" in index
        assert console_blocks(text, "console")
        assert (HERE / "scenarios" / f"{name.replace('-', '_')}.py").exists()


def test_every_runbook_that_is_named_exists() -> None:
    """Runbooks name each other in the text as well."""
    for name in FAULTS:
        for other in re.findall(r"openrtc runbook ([a-z-]+)", runbook_files.text(name)):
            assert other in FAULTS, f"{name} names the runbook {other}"


# --- workers and commands ------------------------------------------------------------------------

# The command finds only the scenario's worker, as on a machine of its own.
_OPENRTC = """\
import sys
from openrtc_introspect_core.wire import _places
_places.default_dirs = list
from openrtc_top._cli.app import app
app(prog_name="openrtc")
"""


@dataclass(frozen=True)
class Scene:
    """A running worker, and the environment of a shell beside it."""

    environment: dict[str, str]

    def run(self, steps: list[Step]) -> str | None:
        """Run a block. Return the first output that is not as promised; None if all is."""
        code = 0
        for step in steps:
            done = subprocess.run(
                ["bash", "-c", f"(exit {code})\n{step.command}"],
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                timeout=COMMAND_S,
                check=False,
            )
            code = done.returncode
            if not matches(step.expected, done.stdout):
                promised = "\n".join(step.expected)
                return f"$ {step.command}\n{done.stdout}\n(exit code {code}) instead of\n{promised}"
        return None

    def findings(self, options: str) -> set[str]:
        """Return the codes that `openrtc diagnose` finds."""
        done = subprocess.run(
            ["bash", "-c", f"openrtc diagnose --json {options}"],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=COMMAND_S,
            check=False,
        )
        (line,) = done.stdout.splitlines()
        return {found["code"] for found in json.loads(line)["findings"]}


@contextlib.contextmanager
def scene(name: str, *, fixed: bool) -> Iterator[Scene]:
    """Run the worker of a scenario while the context is open."""
    folder = Path(tempfile.mkdtemp(prefix="rb", dir="/tmp"))  # a socket's path has to be short
    (folder / "bin").mkdir()
    (folder / "rt").mkdir(mode=0o700)
    command = folder / "bin" / "openrtc"
    (folder / "openrtc.py").write_text(_OPENRTC, encoding="utf-8")
    command.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} {folder}/openrtc.py "$@"\n', encoding="utf-8")
    command.chmod(0o755)
    environment = {
        **os.environ,
        "PATH": f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "OPENRTC_RUNTIME_DIR": str(folder / "rt"),
        "COLUMNS": "200",
        "PYTHONIOENCODING": "utf-8",
    }
    worker = subprocess.Popen(
        [sys.executable, f"{name.replace('-', '_')}.py", *(["--fixed"] if fixed else [])],
        cwd=HERE / "scenarios",
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    try:
        assert worker.stdout is not None
        assert worker.stdout.readline() == b"ready\n"
        yield Scene(environment)
    finally:
        with worker:
            assert worker.stdin is not None
            worker.stdin.close()
            try:
                worker.wait(10)
            except subprocess.TimeoutExpired:
                worker.kill()
        shutil.rmtree(folder)


def run_blocks(place: Scene, name: str, info: str) -> list[str]:
    """Run all blocks of a kind until the deadline. Return the outputs that are not as promised."""
    failures = []
    for steps in console_blocks(runbook_files.text(name), info):
        deadline = time.monotonic() + DEADLINE_S
        while (failure := place.run(steps)) is not None and time.monotonic() < deadline:
            time.sleep(0.5)
        if failure is not None:
            failures.append(failure)
    return failures


def run_faulty(name: str) -> tuple[list[str], set[str]]:
    """Run a scenario with its fault. Return the outputs that are not as promised, and the codes found.

    `openrtc diagnose` is repeated until it finds the fault and nothing else, or until the deadline.
    """
    with scene(name, fixed=False) as place, ThreadPoolExecutor() as pool:
        failures = pool.submit(run_blocks, place, name, "console")
        found, deadline = None, time.monotonic() + DEADLINE_S
        while found != FAULTS[name] and time.monotonic() < deadline:
            found = place.findings(DIAGNOSE.get(name, "--seconds 2"))
        return failures.result(), found or set()


def run_fixed(name: str) -> list[str]:
    """Run a scenario with the fix. Return the outputs that are not as promised."""
    if not console_blocks(runbook_files.text(name), "console fixed"):
        return []
    with scene(name, fixed=True) as place:
        return run_blocks(place, name, "console fixed")


def run_both(name: str) -> tuple[list[str], set[str]]:
    """Run a scenario with its fault and with the fix. Return the outputs that are not as promised, and the codes found.

    Both are run at once, but for ALONE, whose fault would slow the other.
    """
    with ThreadPoolExecutor(max_workers=1 if name == ALONE else 2) as pool:
        faulty, fixed = pool.submit(run_faulty, name), pool.submit(run_fixed, name)
        failures, found = faulty.result()
        return [*failures, *fixed.result()], found


@pytest.fixture(scope="module")
def runs(request: pytest.FixtureRequest) -> Iterator[dict[str, Future[tuple[list[str], set[str]]]]]:
    """Begin to run the scenarios of the chosen tests, some side by side: they wait more than they compute."""
    tests = [item for item in request.session.items if isinstance(item, pytest.Function)]
    this = test_a_runbook_is_right.__name__
    names = [str(test.callspec.params["name"]) for test in tests if test.originalname == this]
    with ThreadPoolExecutor(max_workers=AT_ONCE) as pool:
        yield {name: pool.submit(run_both, name) for name in names if name != ALONE}


@pytest.mark.slow
@pytest.mark.parametrize("name", FAULTS)
def test_a_runbook_is_right(name: str, runs: dict[str, Future[tuple[list[str], set[str]]]]) -> None:
    """Its commands print the promised output with the fault and with the fix, and only the fault is found."""
    if name == ALONE:
        wait(runs.values())
    failures, found = run_both(name) if name == ALONE else runs[name].result()
    load = os.getloadavg()[0]
    # If a scenario has no fault, all blocks are due to the machine.
    of_machine = ("openrtc diagnose",) if FAULTS[name] else ("openrtc diagnose", "openrtc blocks")
    due_to_machine = [failure for failure in failures if any(word in failure.partition("\n")[0] for word in of_machine)]
    if load > 2.0 * (os.cpu_count() or 1) and failures == due_to_machine and (failures or found != FAULTS[name]):
        # On such a machine every worker has run delay, whatever else is wrong with it.
        pytest.skip(f"this machine is too busy: load {load:.1f}, and still {failures or found}")
    assert not failures, "\n\n".join(failures)
    assert found == FAULTS[name]
