"""Why no worker is seen, and what to do about it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from openrtc_introspect_core.wire import Refused, WorkerSocket
from openrtc_top._client import unseen
from openrtc_top._client.unseen import searched

THEIRS = Refused(Path("/tmp/openrtc-1000"), "belongs to uid 1000", 1000)
Situation = Callable[..., None]


@pytest.fixture
def situation(monkeypatch: pytest.MonkeyPatch) -> Situation:
    """Make this user the given one, who sees these workers and is refused these directories."""

    def make(uid: int, *refused: Refused, workers: tuple[int, ...] = ()) -> None:
        monkeypatch.setattr(os, "geteuid", lambda: uid)
        found = [WorkerSocket(Path(f"/tmp/{number}"), "w", 1, owner) for number, owner in enumerate(workers)]
        monkeypatch.setattr(unseen, "discover_all", lambda: found)
        monkeypatch.setattr(unseen, "refused_dirs", lambda all_users=False: list(refused))

    return make


def test_nothing_in_the_way_is_no_line(situation: Situation) -> None:
    """There is just no worker."""
    situation(2000)
    assert unseen.unseen() == []
    situation(0, workers=(0,))
    assert unseen.unseen() == []


def test_a_user_reads_whose_a_directory_is(situation: Situation) -> None:
    """And who sees into it."""
    situation(2000, THEIRS)
    assert unseen.unseen() == [
        "'/tmp/openrtc-1000' belongs to uid 1000: run this as that user, in a container by `docker exec -u 1000`, "
        "or as root with --all-users"
    ]


def test_root_reads_how_many_workers_others_have(situation: Situation) -> None:
    """And the option that shows them; behind a relay it is an option of the relay."""
    situation(0, workers=(1000, 1000, 1001))
    assert unseen.unseen() == ["2 workers of uid 1000: add --all-users", "1 worker of uid 1001: add --all-users"]
    assert unseen.unseen(option="`relay -a`")[1] == "1 worker of uid 1001: add `relay -a`"
    assert unseen.unseen(all_users=True) == []


def test_root_without_capabilities_reads_that_they_are_missing(situation: Situation) -> None:
    """As in a container from which all were dropped."""
    situation(0, THEIRS._replace(why="Permission denied"))
    assert unseen.unseen(all_users=True) == [
        "'/tmp/openrtc-1000' belongs to uid 1000, and root may not read it here (no CAP_DAC_OVERRIDE): run this as "
        "that user, in a container by `docker exec -u 1000`"
    ]


@pytest.mark.parametrize(
    ("refused", "line"),
    [
        (
            Refused(Path("/run/v"), "does not exist", None),
            "'/run/v' does not exist: set OPENRTC_RUNTIME_DIR to the worker's, or run this in its container",
        ),
        (
            Refused(Path("/run/v"), "has mode 0755, open to others; 0700 is required", 2000),
            "'/run/v' has mode 0755, open to others; 0700 is required, so it is not searched",
        ),
    ],
)
def test_a_directory_that_breaks_the_rules_is_named(refused: Refused, line: str, situation: Situation) -> None:
    """With what is wrong with it."""
    situation(2000, refused)
    assert unseen.unseen() == [line]


def test_many_reasons_are_few_lines(situation: Situation) -> None:
    """A machine with a hundred users has a hundred directories."""
    situation(2000, *[THEIRS] * 100)
    lines = unseen.unseen()
    assert (len(lines), lines[-1]) == (unseen.MAX_LINES, "… and 97 more")


def test_what_was_searched_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the variable that names another place."""
    monkeypatch.setattr(unseen, "search_dirs", lambda: [Path("/a"), Path("/b")])
    assert searched() == "Searched: /a, /b. For a worker whose OPENRTC_RUNTIME_DIR is another, set it here too."


def test_a_platform_without_sockets_has_nothing_to_say(monkeypatch: pytest.MonkeyPatch) -> None:
    """No directory is looked at."""
    monkeypatch.setattr(unseen, "sockets_available", lambda: False)
    assert unseen.unseen() == []
