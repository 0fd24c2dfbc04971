"""The runbooks are true: their commands, run in a worker with exactly that fault, print what is written there.

A `console` block of a runbook is run in the worker of scenarios/NAME.py, one marked `console fixed` in the
same worker with the fix applied. Lines that begin with `$` are commands, for a shell; the others are their output,
in which `…` stands for anything within a line, and on a line of its own for any lines. How many blanks there are
between words is not compared. A block is run again until it prints what it promises: a machine that is
busy needs longer to show a fault, and none makes one go away.
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
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from openrtc_introspect_core._advice import ADVICE
from openrtc_top import _runbooks

HERE = Path(__file__).parent
RUNBOOKS = HERE.parent.parent / "runbooks"
DEADLINE_S = 45.0
COMMAND_S = 30.0

FAULTS: dict[str, set[str]] = {
    "debugging-density": {"slow-session"},
    "loop-blocked": {"blocked-now"},
    "cpu-hot": {"hot-session"},
    "memory-pressure": {"memory-trend"},
    "host-throttled": {"host-throttled"},
    "tagging-lost": {"tagging-lost"},
    "nothing-explains-it": set(),
    "cannot-connect": set(),
}
"""What each scenario is diagnosed as, and nothing else."""

DIAGNOSE = {
    "memory-pressure": "--seconds 5",
    "cannot-connect": '--seconds 2 --socket "$OPENRTC_RUNTIME_DIR"/service/*.sock',
}
"""With which options, where two seconds of all workers will not do."""

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the scenarios need Linux: schedstat, affinity, ls")


# --- what is written -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Step:
    """One command, and the lines that it must print."""

    command: str
    expected: tuple[str, ...]


def console_blocks(markdown: str, info: str) -> list[list[Step]]:
    """The fenced blocks of this kind, as the steps that are in each."""
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
    """Whether this is what was promised."""
    pattern = ""
    for line in expected:
        if line.strip() == "…":
            pattern += r"(?:.*\n)*?"
        else:
            parts = (re.escape(" ".join(part.split())) for part in line.split("…"))
            pattern += r"\s?.*\s?".join(part.strip() for part in parts) + "\n"
    lines = [" ".join(line.split()) for line in output.rstrip("\n").splitlines()]
    return re.fullmatch(pattern, "".join(f"{line}\n" for line in lines)) is not None


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
    ],
)
def test_what_is_promised_is_compared(expected: str, output: str, same: bool) -> None:
    """Word by word, with room for what differs."""
    assert matches(tuple(expected.splitlines()), output) is same


def test_every_section_that_a_finding_names_is_there() -> None:
    """In the runbook that it names."""
    for advice in ADVICE.values():
        assert f"### {advice.section}\n" in (RUNBOOKS / f"{advice.runbook}.md").read_text(encoding="utf-8")


def test_every_runbook_has_a_scenario_and_its_parts() -> None:
    """Symptom, how to confirm, what to do, how to know that it worked; and the index knows it."""
    index = (RUNBOOKS / "README.md").read_text(encoding="utf-8")
    assert set(_runbooks.names()) == set(FAULTS)
    for name in FAULTS:
        text = _runbooks.text(name)
        headings = re.findall(r"^## (.*)$", text, flags=re.MULTILINE)
        assert headings == ["Symptom", "Confirm", "What to do", "It worked when"], name
        assert f"({name}.md)" in index
        assert console_blocks(text, "console")
        assert (HERE / "scenarios" / f"{name.replace('-', '_')}.py").exists()


def test_every_command_and_runbook_that_is_named_exists() -> None:
    """Also those in the running text."""
    for name in FAULTS:
        for other in re.findall(r"openrtc runbook ([a-z-]+)", _runbooks.text(name)):
            assert other in FAULTS, f"{name} names the runbook {other}"


# --- what is done --------------------------------------------------------------------------------

# The command as it is on a machine of its own: workers that others run here are not looked at.
_OPENRTC = """\
import sys
from openrtc_introspect_core.wire import _endpoint
_endpoint.search_dirs = lambda: [_endpoint.worker_dir()]
from openrtc_top._cli.app import app
app(prog_name="openrtc")
"""


@dataclass(frozen=True)
class Scene:
    """A worker, and a shell on its machine."""

    environment: dict[str, str]

    def run(self, steps: list[Step]) -> str | None:
        """Run a block. Returns what was not as promised; None where all was."""
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
        """The codes that `openrtc diagnose` finds."""
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
    """The worker of a scenario, while the block lasts."""
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
    """Run all blocks of a kind. Returns what was not as promised, within the deadline."""
    failures = []
    for steps in console_blocks(_runbooks.text(name), info):
        deadline = time.monotonic() + DEADLINE_S
        while (failure := place.run(steps)) is not None and time.monotonic() < deadline:
            time.sleep(0.2)
        if failure is not None:
            failures.append(failure)
    return failures


def run_faulty(name: str) -> tuple[list[str], set[str]]:
    """(what was not as promised, what is found: the fault, as soon as it is that and nothing else)."""
    with scene(name, fixed=False) as place, ThreadPoolExecutor() as pool:
        failures = pool.submit(run_blocks, place, name, "console")
        found, deadline = None, time.monotonic() + DEADLINE_S
        while found != FAULTS[name] and time.monotonic() < deadline:
            found = place.findings(DIAGNOSE.get(name, "--seconds 2"))
        return failures.result(), found or set()


def run_fixed(name: str) -> list[str]:
    if not console_blocks(_runbooks.text(name), "console fixed"):
        return []
    with scene(name, fixed=True) as place:
        return run_blocks(place, name, "console fixed")


@pytest.mark.slow
@pytest.mark.parametrize("name", FAULTS)
def test_a_runbook_does_what_it_says(name: str) -> None:
    """Its commands print what it promises, with the fault and with the fix; the fault is found, and nothing else."""
    with ThreadPoolExecutor(max_workers=1 if name == "host-throttled" else 2) as pool:  # its fault is the machine's
        faulty, fixed = pool.submit(run_faulty, name), pool.submit(run_fixed, name)
        failures, found = faulty.result()
        failures = [*failures, *fixed.result()]
    load = os.getloadavg()[0]
    # Where nothing is wrong, whatever blocks there are come of the machine.
    of_machine = ("openrtc diagnose",) if FAULTS[name] else ("openrtc diagnose", "openrtc blocks")
    judged = [failure for failure in failures if any(word in failure.partition("\n")[0] for word in of_machine)]
    if load > 2.0 * (os.cpu_count() or 1) and failures == judged and (failures or found != FAULTS[name]):
        # There, each worker is one that the host does not let run, whatever else is wrong with it.
        pytest.skip(f"this machine does not let workers run: load {load:.1f}, and still {failures or found}")
    assert not failures, "\n\n".join(failures)
    assert found == FAULTS[name]
