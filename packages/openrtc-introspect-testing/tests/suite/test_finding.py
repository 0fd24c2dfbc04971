"""What counts against a test, what an entry of the allow-list matches, and the fix."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from openrtc_introspect_testing._suite.allowed import Allowed
from openrtc_introspect_testing._suite.finding import Finding
from openrtc_introspect_testing._suite.fixes import fix_of


def finding(**changes: Any) -> Finding:
    known: dict[str, Any] = {
        "session_id": None,
        "agent_name": None,
        "task_name": None,
        "duration_ms": 100.0,
        "cause": "sync-call",
        "detail": None,
        "file": "agents/menu.py",
        "line": 42,
        "function": "Menu.look_up",
        "source": "",
        "fix": "",
    }
    return Finding(**known | changes)


@pytest.mark.parametrize("cause", ["gc", "gil-contention", "descheduled"])
def test_a_block_that_no_code_under_test_caused_does_not_count(cause: str) -> None:
    """A busy machine does not fail a suite."""
    assert finding().counts
    assert not finding(cause=cause).counts


def test_a_block_that_cannot_be_placed_does_not_count_unless_it_is_a_burst() -> None:
    """Without a line nobody could fix it; a burst has no single line."""
    assert not finding(file=None).counts
    assert finding(file=None, cause="burst").counts


def test_without_a_gil_blocks_count_although_their_line_is_not_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """No block could fail a test there otherwise; the session and the duration are known."""
    monkeypatch.setattr(sys, "_is_gil_enabled", lambda: False, raising=False)
    assert finding(file=None).counts
    assert not finding(file=None, cause="gc").counts
    assert not finding(file=None, cause=None).counts


@pytest.mark.parametrize(
    ("entry", "matches"),
    [
        ("agents/menu.py:42", True),
        ("agents/menu.py:4", False),
        ("agents/*.py:look_up", True),
        ("*:Menu.look_up", True),
        ("*:Menu.*", True),
        ("menu.py:look_up", False),
        ("agents/menu.py:look", False),
    ],
)
def test_an_entry_matches_by_path_and_line_or_function(entry: str, matches: bool) -> None:
    """A function matches by its whole name or its whole qualified name, and * stands for any text."""
    assert Allowed.parse(f"{entry}  # why").matches(finding()) is matches


@pytest.mark.parametrize(
    ("cause", "called", "source", "fix"),
    [
        ("sync-call", ["socket.py", "http/client.py", "requests/sessions.py"], "", "an async HTTP client"),
        ("sync-call", ["selectors.py", "subprocess.py"], "", "await asyncio.create_subprocess_exec"),
        ("sync-call", ["socket.py"], "", "asyncio's streams"),
        ("sync-call", ["mysocket.py"], "", "await asyncio.to_thread"),
        ("sync-call", [], "time.sleep(1)", "await asyncio.sleep"),
        ("cpu", [], "", "process pool"),
        ("import", [], "", "when the worker starts"),
        ("burst", [], "", "spread what the sessions do"),
        ("callback", [], "", "as short as a task's step"),
        (None, [], "", "asyncio.to_thread"),
    ],
)
def test_the_fix_goes_by_the_cause_and_by_what_is_called(
    cause: str | None, called: list[str], source: str, fix: str
) -> None:
    """One line says what to write instead."""
    assert fix in fix_of(cause, called, source)


def test_on_trio_the_fix_names_what_trio_calls_it() -> None:
    """asyncio's functions do not work on Trio."""
    assert fix_of("sync-call", [], "time.sleep(1)", on_trio=True) == "await trio.sleep(...)"
    assert "trio.to_thread.run_sync(" in fix_of("sync-call", [], "", on_trio=True)
    assert "asyncio" not in fix_of("sync-call", ["socket.py"], "", on_trio=True)
