"""The LiveKit example runs thirty sessions, and another process sees which of them blocks."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from openrtc_introspect_core import ConnectionFailed, SessionRow, Snapshot, read_snapshot
from openrtc_introspect_core.wire import decode_server_message

pytestmark = pytest.mark.slow

EXAMPLE = Path(__file__).parents[2] / "examples" / "livekit_sessions.py"
SESSIONS = 30
TURNS = 5
CULPRIT = "restaurant-01"
THRESHOLD_MS = "100"
"""Far less than `lookup_menu` takes, so that shorter blocks of other sessions are seen as well. The default of 50 is
too short for a busy machine, on which a session's own computing can take that long."""
WITHIN_S = 90.0
"""Long enough to import livekit-agents on a busy machine."""

TENANTS = ("acme", "globex", "initech")
EXPECTED = {
    f"{agent}-{number:02}": (agent, TENANTS[(number - 1) % 3])
    for agent in ("restaurant", "dental", "support")
    for number in range(1, 11)
}
"""Session id: agent, tenant."""


@dataclass
class Ended:
    """The results of an example that has ended."""

    returncode: int
    stdout: str
    stderr: str
    replies: dict[str, list[str]]

    @property
    def other_lines(self) -> list[str]:
        """Return the lines of stderr that are not log lines of blocks."""
        return [line for line in self.stderr.splitlines() if not re.match(r"\[slow-(session|loop)\] ", line)]

    @property
    def blamed(self) -> set[str]:
        return set(re.findall(r"\[slow-session\] session_id=(\S+)", self.stderr))


class Running:
    """A running example."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        folder.mkdir(mode=0o700)
        self.socket = folder / "livekit.sock"
        self._replies = folder / "replies.json"
        command: list[str | Path] = [sys.executable, EXAMPLE]
        command += ["--socket", self.socket, "--replies", self._replies]
        command += ["--slow-threshold-ms", THRESHOLD_MS, *arguments]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def snapshot_when(self, condition: Callable[[Snapshot], bool]) -> Snapshot:
        """Return the first snapshot that meets the condition."""
        deadline = time.monotonic() + WITHIN_S
        seen: Snapshot | ConnectionFailed | None = None
        while time.monotonic() < deadline:
            assert self.process.poll() is None, f"it ended: {self.process.communicate()}"
            try:
                seen = read_snapshot(self.socket)
                if condition(seen):
                    return seen
            except ConnectionFailed as error:  # it does not serve so far
                seen = error
            time.sleep(0.05)
        pytest.fail(f"no such snapshot within {WITHIN_S:g} s; the last was {seen}")

    def top_when(self, condition: Callable[[str], bool], *options: str) -> str:
        """Return the first screen that meets the condition. A session is shown as slow for five seconds only."""
        deadline = time.monotonic() + WITHIN_S
        while not condition(screen := self.top(*options)):
            assert time.monotonic() < deadline, screen
        return screen

    def top(self, *options: str) -> str:
        command = [sys.executable, "-m", "openrtc_top", "top", *options, "--socket", str(self.socket)]
        environment = {**os.environ, "COLUMNS": "160", "NO_COLOR": "1", "PYTHONIOENCODING": "utf-8"}
        done = subprocess.run(
            command, env=environment, capture_output=True, encoding="utf-8", timeout=WITHIN_S, check=False
        )
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout

    def end(self) -> Ended:
        stdout, stderr = self.process.communicate(timeout=WITHIN_S)
        replies = json.loads(self._replies.read_text(encoding="utf-8")) if self._replies.exists() else {}
        return Ended(self.process.returncode, stdout, stderr, replies)


@contextmanager
def running(folder: Path, *arguments: str) -> Iterator[Running]:
    run = Running(folder, *arguments)
    try:
        yield run
    finally:
        if run.process.poll() is None:
            run.process.kill()
            run.process.communicate()


@dataclass
class Observed:
    """A run that took turns while it was observed, and ended by a signal afterwards."""

    snapshot: Snapshot
    once: str
    as_json: Snapshot
    slow_once: str
    ended: Ended

    @property
    def rows(self) -> dict[str, SessionRow]:
        return {row.session_id: row for row in self.snapshot.sessions}


def culprit_has_blocked_among_all(snapshot: Snapshot) -> bool:
    rows = {row.session_id: row for row in snapshot.sessions}
    return len(rows) == SESSIONS and all(row.cpu_s for row in rows.values()) and rows[CULPRIT].blocks >= 2


@pytest.fixture(scope="module")
def observed(tmp_path_factory: pytest.TempPathFactory) -> Observed:
    with running(tmp_path_factory.mktemp("observed") / "run", "--seconds", str(2 * WITHIN_S)) as run:
        snapshot = run.snapshot_when(culprit_has_blocked_among_all)
        once = run.top_when(lambda screen: "SLOW" in screen, "--once")
        as_json = decode_server_message(run.top("--json").encode())
        slow_once = run.top_when(lambda screen: CULPRIT in screen, "--once", "--status", "slow")
        run.process.send_signal(signal.SIGTERM)
        ended = run.end()
    assert isinstance(as_json, Snapshot)
    return Observed(snapshot, once, as_json, slow_once, ended)


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Ended:
    with running(tmp_path_factory.mktemp("measured") / "run", "--turns", str(TURNS)) as run:
        return run.end()


@pytest.fixture(scope="module")
def unmeasured(tmp_path_factory: pytest.TempPathFactory) -> Ended:
    arguments = ("--turns", str(TURNS), "--no-introspection")
    with running(tmp_path_factory.mktemp("unmeasured") / "run", *arguments) as run:
        return run.end()


# --- from another process ------------------------------------------------------------------------


def test_every_session_has_its_agent_and_tenant(observed: Observed) -> None:
    assert {name: (row.agent_name, row.tenant) for name, row in observed.rows.items()} == EXPECTED


def test_every_session_has_used_the_loop_and_has_tasks(observed: Observed) -> None:
    for row in observed.rows.values():
        assert row.cpu_s is not None
        assert row.cpu_s > 0, row
        assert row.steps is not None
        assert row.steps > 0, row
        assert row.tasks is not None
        assert row.tasks >= 1, row


def test_the_culprit_is_named_with_its_longest_block(observed: Observed) -> None:
    culprit = observed.rows[CULPRIT]
    assert culprit.blocks >= 2
    assert culprit.worst_block_ms >= 250


def test_nobody_else_is_blamed(observed: Observed) -> None:
    assert {name: row.blocks for name, row in observed.rows.items() if row.blocks} == {
        CULPRIT: observed.rows[CULPRIT].blocks
    }
    assert observed.ended.blamed == {CULPRIT}


def test_top_shows_every_session_and_the_culprit_as_slow(observed: Observed) -> None:
    lines = {name: line for name in EXPECTED for line in observed.once.splitlines() if f" {name} " in line}
    assert lines.keys() == EXPECTED.keys()
    row = lines[CULPRIT]  # its last line: the alert above the table names it as well
    assert "SLOW" in row
    assert int(re.findall(r"(\d+) +\d+ ms", row)[0]) >= 2
    for name, (agent, tenant) in EXPECTED.items():
        assert lines[name].split()[1:4] == [name, agent, tenant]


def test_top_filters_the_culprit_out_of_the_crowd(observed: Observed) -> None:
    listed = [name for name in EXPECTED if f" {name} " in observed.slow_once]
    assert listed == [CULPRIT]


def test_top_prints_the_same_as_json(observed: Observed) -> None:
    rows = {row.session_id: row for row in observed.as_json.sessions}
    assert {name: (row.agent_name, row.tenant) for name, row in rows.items()} == EXPECTED
    assert rows[CULPRIT].worst_block_ms >= observed.rows[CULPRIT].worst_block_ms


# --- the sessions themselves ---------------------------------------------------------------------


def test_the_conversations_went_on_until_the_signal_without_a_failure(observed: Observed) -> None:
    ended = observed.ended
    assert (ended.returncode, ended.other_lines) == (0, [])
    assert ended.replies.keys() == EXPECTED.keys()
    # While the culprit looked up the menu twice, all the others made progress.
    assert min(map(len, ended.replies.values())) >= 3
    turns = sum(map(len, ended.replies.values()))
    assert ended.stdout == f"{turns} turns in {SESSIONS} sessions, 0 failures\n"


@pytest.mark.parametrize("run", ["measured", "unmeasured"])
def test_every_session_completes_its_turns(run: str, request: pytest.FixtureRequest) -> None:
    ended: Ended = request.getfixturevalue(run)
    assert (ended.returncode, ended.other_lines) == (0, [])
    assert ended.stdout == f"{SESSIONS * TURNS} turns in {SESSIONS} sessions, 0 failures\n"
    assert {name: len(replies) for name, replies in ended.replies.items()} == dict.fromkeys(EXPECTED, TURNS)


def test_the_replies_are_the_same_measured_or_not(measured: Ended, unmeasured: Ended, observed: Observed) -> None:
    assert all(all(replies) for replies in measured.replies.values())
    assert measured.replies == unmeasured.replies
    for name, replies in observed.ended.replies.items():
        both = min(len(replies), TURNS)
        assert replies[:both] == unmeasured.replies[name][:both]


def test_unmeasured_it_serves_nothing_and_logs_no_blocks(unmeasured: Ended) -> None:
    assert unmeasured.stderr == ""


def test_an_interrupt_ends_it_as_well(tmp_path: Path) -> None:
    with running(tmp_path / "run", "--sessions", "3", "--seconds", str(2 * WITHIN_S)) as run:
        run.snapshot_when(lambda snapshot: len(snapshot.sessions) == 3)
        run.process.send_signal(signal.SIGINT)
        ended = run.end()
    assert (ended.returncode, ended.other_lines) == (0, [])
    assert re.fullmatch(r"\d+ turns in 3 sessions, 0 failures\n", ended.stdout)
