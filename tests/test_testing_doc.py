"""docs/testing.md, done as it says: its files are written, its commands run, their output compared."""

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
"""The page's reader need not have these, and they take long to load."""

ATTEMPTS = 3
"""On a machine that is busy enough, even a good test can hold its loop for 50 ms."""

REQUESTS = """
import types
import urllib.request

def get(url, timeout):
    with urllib.request.urlopen(url, timeout=timeout) as reply:
        return types.SimpleNamespace(text=reply.read().decode())
"""
"""What the page needs of `requests`, which is no dependency of the tests."""


def blocks() -> list[tuple[str, str, str]]:
    """(language, file, text) of the page's code, in order."""
    return FENCE.findall(DOC.read_text(encoding="utf-8"))


def environment(folder: Path) -> dict[str, str]:
    """In which `requests` is an installed package, not the user's own code."""
    base = folder / "installed"
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    packages = base / "lib" / version / "site-packages"
    packages.mkdir(parents=True)
    (packages / "requests.py").write_text(REQUESTS)
    told = {**os.environ, "PYTHONUSERBASE": str(base)}
    told["PYTHONPATH"] = os.pathsep.join([str(packages), *filter(None, [os.environ.get("PYTHONPATH")])])
    told.pop("PYTEST_ADDOPTS", None)
    return told


def told(line: str) -> str:
    """A line of output without what differs from run to run."""
    return re.sub(r"\s+", " ", re.sub(r"\d+ ms|in [\d.]+s", "…", line)).strip()


def missing(expected: list[str], output: str) -> str | None:
    """The first of the page's lines that the output lacks, in order."""
    lines = iter([told(line) for line in output.splitlines()])
    for line in expected:
        if told(line) and not any(each.startswith(told(line)) for each in lines):
            return line
    return None


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="a user's site-packages are elsewhere on Windows")
def test_the_page_is_true(tmp_path: Path) -> None:
    """Every file as it is written there, every command with the output that it shows."""
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
            assert language == "", f"docs/testing.md has {language} code that no file is named for:\n{text}"
    assert commands == 5


def test_the_stand_in_for_requests_is_installed(tmp_path: Path) -> None:
    """Where the detector takes it for a library: in the user's site-packages."""
    env = environment(tmp_path)
    code = "import requests, site; print(requests.__file__.startswith(site.getusersitepackages()))"
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    assert done.stdout == "True\n"
