"""Shell completion: what is offered, and that a real bash offers it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from openrtc_introspect_core.wire import discover
from openrtc_top._cli import complete


@pytest.fixture
def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The command `openrtc`, as an installed package has it."""
    command = tmp_path / "openrtc"
    command.write_text(f"#!{sys.executable}\nfrom openrtc_top.__main__ import main\nmain()\n")
    command.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    return


def test_words() -> None:
    """Those that begin so."""
    assert complete.words(["cpu", "gc", "gil-contention"])("g") == ["gc", "gil-contention"]


def test_listed() -> None:
    """After each comma those that are not there so far."""
    offered = complete.listed(["session", "agent", "age"])
    assert offered("a") == ["agent", "age"]
    assert offered("session,a") == ["session,agent", "session,age"]
    assert offered("session,agent,") == ["session,agent,age"]


def test_what_runs(start_worker: Callable[..., Any], runtime_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers by name, and by process id if two have one name; sessions, agents, tenants."""
    first, second = start_worker("twin", 1), start_worker("twin", 1)
    start_worker("single", 2)
    monkeypatch.setattr(
        "openrtc_top._client.targets.discover", lambda: [each for each in discover() if each.path.parent == runtime_dir]
    )
    assert complete.worker("") == sorted(["single", "twin", str(first.pid), str(second.pid)])
    assert complete.worker("si") == ["single"]
    assert complete.session("job-") == ["job-0000", "job-0001"]
    assert complete.agent("") == ["dental", "restaurant"]
    assert complete.tenant("g") == ["globex"]


def test_nothing_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Then nothing is offered, also if sockets cannot be listed."""
    monkeypatch.setattr("openrtc_top._client.targets.discover", list)
    assert complete.worker("") == complete.session("") == []

    def broken() -> Any:
        raise PermissionError

    monkeypatch.setattr("openrtc_top._client.targets.discover", broken)
    assert complete.worker("") == complete.session("") == []


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("openrtc bl", ["blocks"]),
        ("openrtc top --columns session,ag", ["session,agent"]),
    ],
)
def test_in_bash(typed: str, offered: list[str], script: None) -> None:
    """The output of `openrtc --show-completion` makes bash offer it."""
    words = typed.split(" ")
    code = (
        'eval "$(openrtc --show-completion)"\n'
        f"COMP_WORDS=({' '.join(words)}); COMP_CWORD={len(words) - 1}\n"
        "_openrtc_completion openrtc\n"
        'printf "%s\\n" "${COMPREPLY[@]}"'
    )
    result = subprocess.run(["bash", "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert (result.stdout.split(), result.stderr) == (offered, "")


def test_a_module_of_python_has_no_completion() -> None:
    """A shell cannot complete `python -m openrtc_top`: that is said, and nothing is written."""
    command = [sys.executable, "-m", "openrtc_top", "--install-completion"]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.startswith("error: a shell completes the commands openrtc and openrtc-top")
