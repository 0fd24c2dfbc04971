"""`openrtc runbook`: the list, a page as Markdown and rendered, and a name that is not there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from openrtc_top._cli import complete, runbook_files
from openrtc_top._cli.app import app


def test_the_list_has_a_line_for_each() -> None:
    """Name and what it is for, in one line of a terminal that is not narrow."""
    lines = CliRunner().invoke(app, ["runbook"]).stdout.splitlines()
    assert [line.split()[0] for line in lines] == runbook_files.names()
    assert "debugging-density" in runbook_files.names()
    assert all(len(line.split()) > 5 and len(line) <= 160 for line in lines)


@pytest.mark.parametrize("name", runbook_files.names())
def test_in_a_pipe_a_runbook_is_its_markdown(name: str) -> None:
    """To the letter: it can be searched, and read anywhere."""
    result = CliRunner().invoke(app, ["runbook", name])
    assert result.exit_code == 0
    assert result.stdout.rstrip("\n") == runbook_files.text(name).rstrip("\n")
    assert result.stdout.startswith("# ")


def test_they_are_those_of_the_repository() -> None:
    """One copy is kept; what is shipped is that."""
    folder = Path(__file__).parents[4] / "runbooks"
    if not folder.is_dir():
        pytest.skip("this is not the repository")
    assert {path.stem for path in folder.glob("*.md")} == {*runbook_files.names(), "README"}
    assert all(
        runbook_files.text(path.stem) == path.read_text("utf-8")
        for path in folder.glob("*.md")
        if path.stem != "README"
    )


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("loop", "no runbook 'loop'; did you mean loop-blocked?"),
        ("cpu_hot", "no runbook 'cpu_hot'; did you mean cpu-hot"),
        ("density", "did you mean debugging-density"),
        ("README", "no runbook 'README'; "),
        ("xyzzy", "no runbook 'xyzzy'; there are cannot-connect, cpu-hot, "),
        ("../README", "no runbook '../README'; "),
    ],
)
def test_an_unknown_name_is_one_line(given: str, message: str) -> None:
    """With what may have been meant, and exit code 2."""
    result = CliRunner().invoke(app, ["runbook", given])
    assert (result.exit_code, result.stdout) == (2, "")
    assert message in result.stderr
    assert result.stderr.count("\n") == 1


def test_a_shell_completes_the_names() -> None:
    """From their beginning."""
    assert complete.runbook("c") == ["cannot-connect", "cpu-hot"]
    assert complete.runbook("") == runbook_files.names()


def test_in_a_terminal_it_is_rendered(in_terminal: Callable[..., Any]) -> None:
    """Headings and lists, no marks of Markdown; with NO_COLOR it is plain."""
    terminal = in_terminal("runbook", "loop-blocked", columns=90)
    assert terminal.wait_for_end() == 0
    assert "\x1b[" in terminal.written
    assert "## Symptom" not in terminal.written
    assert "A synchronous call" in terminal.written
    plain = in_terminal("runbook", "loop-blocked", columns=90, NO_COLOR="1")
    assert plain.wait_for_end() == 0
    assert "\x1b[" not in plain.written
    assert "## Symptom" in plain.written
