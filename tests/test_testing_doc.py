"""Follow docs/testing.md: write its files, run its commands and compare their output."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest

DOC = Path(__file__).parents[1] / "docs/testing.md"
FENCE = re.compile(r'^```(\w*)(?: title="([^"]+)")?\n(.*?)^```$', re.MULTILINE | re.DOTALL)
PLUGIN = "openrtc_introspect_testing.plugin"
WITHOUT = [f"-pno:{name}" for name in ("asyncio", "anyio", "hypothesispytest", "cacheprovider")]
"""Plugins that a reader of the page need not have, and that take long to load."""

ATTEMPTS = 3
"""On a busy machine even a good test can hold its loop for 50 ms."""

REQUESTS = """
import types
import urllib.request

def get(url, timeout):
    with urllib.request.urlopen(url, timeout=timeout) as reply:
        return types.SimpleNamespace(text=reply.read().decode())
"""
"""A stand-in for `requests`, which is no dependency of the tests."""


def blocks() -> list[tuple[str, str, str]]:
    """Return the language, the file and the text of each block of code on the page, in order."""
    return FENCE.findall(DOC.read_text(encoding="utf-8"))


def environment(folder: Path) -> dict[str, str]:
    """Return an environment in which `requests` is an installed package, not the user's own code."""
    base = folder / "installed"
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    packages = base / "lib" / version / "site-packages"
    packages.mkdir(parents=True)
    (packages / "requests.py").write_text(REQUESTS)
    variables = {**os.environ, "PYTHONUSERBASE": str(base)}
    variables["PYTHONPATH"] = os.pathsep.join([str(packages), *filter(None, [os.environ.get("PYTHONPATH")])])
    variables.pop("PYTEST_ADDOPTS", None)
    return variables


def normalised(line: str) -> str:
    """Return a line of output without times and repeated blanks, which differ from run to run."""
    return re.sub(r"\s+", " ", re.sub(r"\d+ ms|in [\d.]+s", "…", line)).strip()


def missing(expected: list[str], output: str) -> str | None:
    """Return the first of the page's lines that the output lacks, in order; None if it has all."""
    lines = iter([normalised(line) for line in output.splitlines()])
    for line in expected:
        if normalised(line) and not any(each.startswith(normalised(line)) for each in lines):
            return line
    return None


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="a user's site-packages are elsewhere on Windows")
def test_the_page_is_true(tmp_path: Path) -> None:
    """Every command prints the output that is shown, with the files as they are on the page."""
    project = tmp_path / "project"
    project.mkdir()
    env = environment(tmp_path)
    (project / "pytest.ini").touch()  # a root of its own
    plugin = [] if any(entry.value == PLUGIN for entry in entry_points(group="pytest11")) else ["-p", PLUGIN]
    commands = 0
    for language, file, text in blocks():
        if file:
            (project / file).write_text(text)
            if file == "pyproject.toml":
                (project / "pytest.ini").unlink()
        elif language == "console":
            command, *expected = text.splitlines()
            assert command.startswith("$ pytest ")
            arguments = [*plugin, *WITHOUT, *command.split()[2:]]
            for _ in range(ATTEMPTS):
                run = [sys.executable, "-m", "pytest", *arguments]
                done = subprocess.run(run, cwd=project, env=env, capture_output=True, text=True, check=False)
                lacks = missing(expected, done.stdout)
                if lacks is None:
                    break
            assert lacks is None, f"{command!r} lacks {lacks!r}:\n{done.stdout}{done.stderr}"
            commands += 1
        else:
            assert language == "", f"docs/testing.md has {language} code without the name of a file:\n{text}"
    assert commands == 5


def test_the_stand_in_for_requests_is_installed(tmp_path: Path) -> None:
    """It is in the user's site-packages, so that the detector takes it for a library."""
    env = environment(tmp_path)
    code = "import requests, site; print(requests.__file__.startswith(site.getusersitepackages()))"
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    assert done.stdout == "True\n"
