"""The conformance checks on the command line."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from openrtc_introspect_testing.__main__ import main

Served = Callable[..., contextlib.AbstractContextManager[Path]]


def test_the_command_prints_each_rule_and_exits_0(
    folder: Path, capsys: pytest.CaptureFixture[str], served: Served
) -> None:
    """It prints the rules that are kept, and those that could not be seen."""
    with served(folder) as path:
        assert main(["conformance", "server", str(path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "ok      private-socket"
    assert lines[-2] == "-       idle-timeout: not seen, it is 60 s, and only 2 s are waited for"
    assert lines[-1] == f"{len(lines) - 1} rules: {len(lines) - 2} kept, 0 broken, 1 not seen"


def test_a_broken_rule_exits_1(folder: Path, capsys: pytest.CaptureFixture[str], served: Served) -> None:
    """The line of the rule has the finding."""
    with served(folder) as path:
        path.chmod(0o666)
        assert main(["conformance", "server", str(path)]) == 1
    line = "BROKEN  private-socket: the socket has mode 0666, expected 0600 (docs/wire-protocol.md#rule-private-socket)"
    assert capsys.readouterr().out.splitlines()[0] == line


@pytest.mark.parametrize("words", [["server", "/nowhere.sock"], ["client", "--", "/no/such/command"]])
def test_nothing_to_check_exits_2(words: list[str]) -> None:
    """A user sees one line."""
    run = [sys.executable, "-m", "openrtc_introspect_testing", "conformance", *words]
    done = subprocess.run(run, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (2, "", 1)
    assert done.stderr.startswith("error: ")


def test_wrong_usage_exits_2() -> None:
    """argparse ends the command."""
    with pytest.raises(SystemExit) as caught:
        main(["conformance"])
    assert caught.value.code == 2
