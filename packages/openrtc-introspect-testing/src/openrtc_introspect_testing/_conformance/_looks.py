"""What several rules look at."""

from __future__ import annotations

from ._dialer import Dialer, Message

NOBODY = "conformance: no session has this id"


def snapshot(dial: Dialer) -> Message:
    with dial.greeted() as line:
        return line.ask("snapshot", "snapshot")


def lives(row: Message) -> bool:
    return row.get("status") != "errored"


def live(dial: Dialer) -> str | None:
    """A session that lives, if one does."""
    rows = [row for row in snapshot(dial)["sessions"] if lives(row)]
    return rows[0]["session_id"] if rows else None
