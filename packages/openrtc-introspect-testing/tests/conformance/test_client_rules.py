"""Client commands that break one rule each, and the finding of each."""

from __future__ import annotations

import sys

import pytest

from openrtc_introspect_testing import conformance

CLIENT = r"""
import json, socket, sys

def fail(text):
    print(text, file=sys.stderr)
    sys.exit(1)

def hear():
    try:
        line = lines.readline()
    except OSError:
        fail("it says nothing")
    if not line.endswith(b"\n"):
        fail("it closed in the middle of a line")
    try:
        return json.loads(line)
    except ValueError:
        fail("it is no worker")

with socket.socket(socket.AF_UNIX) as connection:
    connection.settimeout(float(sys.argv[2]))
    connection.connect(sys.argv[1])
    lines = connection.makefile("rwb")
    hello = hear()
    version = hello.get("protocol", "1.0")
    if version.split(".")[0] != "1":
        fail(f"it speaks {version}, this client 1.0")
    if hello["type"] != "hello":
        fail(hello["message"])
    lines.write(b'{"type":"snapshot","id":1}\n')
    lines.flush()
    reply = hear()
    if reply["type"] == "error":
        fail(reply["message"])
    for row in reply["sessions"]:
        print(ascii(row["session_id"]), row["cpu_pct"])
"""


def command(old: str = "", new: str = "", *, patience_s: float = 3.0) -> list[str]:
    assert old in CLIENT
    return [sys.executable, "-I", "-c", CLIENT.replace(old, new) if old else CLIENT, "{socket}", str(patience_s)]


@pytest.mark.slow
def test_a_client_that_keeps_to_the_page_has_no_findings() -> None:
    """The checker sees that every rule is kept."""
    outcomes = conformance.client_outcomes(command())
    assert [str(outcome.finding) for outcome in outcomes if outcome.finding is not None] == []
    assert tuple(outcome.rule for outcome in outcomes) == conformance.CLIENT_RULES


BROKEN_CLIENTS = [
    ("client-reads", 'reply["sessions"]', 'reply["rows"]'),
    ("client-requests", '"snapshot","id":1', '"snapshot"'),
    ("client-requests", r'id":1}\n', r'id":1}\n{"type":"blocks","id":1}\n'),
    ("client-newer-minor", 'version.split(".")[0] != "1"', 'version != "1.0"'),
    ("client-older-minor", '"type":"snapshot"', '"type":"stacks"'),
    ("client-older-minor", 'reply["sessions"]', 'reply["sessions"][0 if version > "1.0" else "none"]'),
    ("client-other-major", 'version.split(".")[0] != "1"', "False"),
    ("client-other-major", "this client 1.0", "this client does not"),
    ("client-other-major", 'fail(f"it speaks', 'print(f"it speaks'),
    ("client-pieces", "lines.readline()", 'connection.recv(500) + b"\\n"'),
    ("client-long-lines", "lines.readline()", "lines.readline(65536)"),
    ("client-refused", 'fail(hello["message"])', "sys.exit(0)"),
    ("client-error", 'if reply["type"] == "error"', "if False"),
    ("client-garbage", "except ValueError", "except KeyError"),
    ("client-cut-line", 'fail("it closed in the middle of a line")', "sys.exit(0)"),
    ("client-silence", 'fail("it says nothing")', "sys.exit(0)"),
    ("client-silence", "settimeout(float(sys.argv[2]))", "settimeout(None)"),
    ("client-text", "ascii(", "str("),
]


@pytest.mark.slow
@pytest.mark.parametrize(("rule", "old", "new"), BROKEN_CLIENTS)
def test_a_client_that_breaks_a_rule_is_found_out(rule: str, old: str, new: str) -> None:
    """The finding has the rule's name, and the place of the rule in the page."""
    within_s = 1.0 if "None" in new else 30.0
    patience_s = 0.1 if rule == "client-silence" else 3.0  # no worker sends anything there
    client = command(old, new, patience_s=patience_s)
    (outcome,) = conformance.client_outcomes(client, within_s=within_s, rules=[rule])
    assert outcome.finding is not None
    assert str(outcome.finding).startswith(f"{rule}: ")


def test_every_client_rule_was_seen_to_fail() -> None:
    """A test above breaks each rule."""
    assert {rule for rule, _, _ in BROKEN_CLIENTS} == set(conformance.CLIENT_RULES)


def test_a_client_that_is_killed_has_crashed() -> None:
    """It has crashed even if it wrote nothing."""
    dies = [sys.executable, "-I", "-c", "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"]
    (outcome,) = conformance.client_outcomes(dies, rules=["client-silence"])
    assert outcome.finding is not None
    assert "it was killed by signal 9" in str(outcome.finding)


def test_no_command_is_an_error_and_no_finding() -> None:
    """There is nothing to check."""
    with pytest.raises(ValueError, match="command is empty"):
        conformance.check_client([])
