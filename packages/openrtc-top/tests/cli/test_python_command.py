"""Commands that run Python programs, taken apart."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from openrtc_top._cli.python_command import NoPythonProgram, taken_apart

Install = Callable[[str, str], str]


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Put an executable file of a name and a text into the only folder of $PATH; return its path."""
    monkeypatch.setenv("PATH", str(tmp_path))

    def install(name: str, text: str) -> str:
        file = tmp_path / name
        file.write_text(text)
        file.chmod(0o755)
        return str(file)

    return install


@pytest.mark.parametrize(
    ("arguments", "options", "program"),
    [
        (["a.py"], [], ["a.py"]),
        (["a.py", "-m", "x", "--", "-c"], [], ["a.py", "-m", "x", "--", "-c"]),
        (["-u", "-X", "dev", "a.py"], ["-u", "-X", "dev"], ["a.py"]),
        (["-Xdev", "-W", "error", "-Wignore", "a.py"], ["-Xdev", "-W", "error", "-Wignore"], ["a.py"]),
        (["-m", "app", "-v"], [], ["-m", "app", "-v"]),
        (["-mapp", "x"], [], ["-mapp", "x"]),
        (["-um", "app"], ["-u"], ["-m", "app"]),
        (["-uBmapp"], ["-uB"], ["-mapp"]),
        (["-uW", "error", "-c", "pass"], ["-uW", "error"], ["-c", "pass"]),
        (["--check-hash-based-pycs", "never", "a.py"], ["--check-hash-based-pycs", "never"], ["a.py"]),
        (["-u", "--", "a.py"], ["-u"], ["a.py"]),
    ],
)
def test_the_interpreters_options_are_apart_from_the_program(
    arguments: list[str], options: list[str], program: list[str], installed: Install
) -> None:
    """As Python itself understands them."""
    python = installed("python3.13", "")
    assert taken_apart(["python3.13", *arguments]) == (python, options, program)


@pytest.mark.parametrize("name", ["python", "python3", "python3.15", "python3.14t", "python3.11d"])
def test_interpreters_are_known_by_their_names(name: str, installed: Install) -> None:
    """Also if they are scripts that choose an interpreter, such as pyenv's."""
    python = installed(name, "#!/bin/sh\n")
    assert taken_apart([name, "a.py"]).interpreter == python
    assert taken_apart([python, "a.py"]).interpreter == python


@pytest.mark.parametrize(
    ("first_lines", "options"),
    [
        ("#!{python}\n", []),
        ("#! {python} -sE\n", ["-sE"]),
        ("#!/usr/bin/env python3\n", []),
        ("#!/usr/bin/env -S python3 -u\n", ["-u"]),
        ("#!/bin/sh\n'''exec' \"{python}\" \"$0\" \"$@\"\n' '''\n", []),
        ("#!/bin/sh\n'''exec' {python} -I \"$0\" \"$@\"\n' '''\n", ["-I"]),
    ],
)
def test_a_script_is_run_by_the_python_of_its_first_line(
    first_lines: str, options: list[str], installed: Install
) -> None:
    """As pip, uv and pipx write it."""
    python = installed("python3", "")
    script = installed("uvicorn", first_lines.format(python=python) + "import sys\n")
    assert taken_apart(["uvicorn", "app:app", "--reload"]) == (python, options, [script, "app:app", "--reload"])


@pytest.mark.parametrize(
    ("command", "problem"),
    [
        (["nothing"], "no such command: 'nothing'"),
        (["worker.py"], "a script is run by its Python, such as `python worker.py`"),
        (["tool"], "'tool' is no Python program"),
        (["shell"], "'shell' is no Python program"),
        (["astray"], "which is no Python"),
        (["python3"], "from stdin"),
        (["python3", "-"], "from stdin"),
        (["python3", "-u"], "from stdin"),
        (["python3", "-V"], "option -V runs no program"),
        (["python3", "--help"], "option --help runs no program"),
        (["python3", "-x", "a.py"], "option -x runs no program"),
    ],
)
def test_what_runs_no_python_program_is_refused_in_one_line(
    command: list[str], problem: str, installed: Install
) -> None:
    """The line says what to write."""
    installed("python3", "")
    installed("tool", "\x7fELF")
    installed("shell", "#!/bin/sh\nexec python3 a.py\n")
    installed("astray", "#!/no/such/python3\n")
    with pytest.raises(NoPythonProgram) as raised:
        taken_apart(command)
    assert problem in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_script_that_cannot_be_read_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the system's reason."""
    monkeypatch.setattr(shutil, "which", lambda name: str(tmp_path))
    with pytest.raises(NoPythonProgram, match="cannot read"):
        taken_apart(["secret"])


def test_this_interpreter_is_one() -> None:
    """By its path."""
    assert taken_apart([sys.executable, "-c", "pass"]).interpreter == sys.executable
