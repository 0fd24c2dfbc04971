"""What the shell offers for an option's value: the words that are accepted, and what runs now.

Nothing here may fail or keep the shell waiting: what cannot be told is not offered.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from openrtc_introspect_core.wire import SessionRow

PATIENCE_S = 1.0
"""A worker that takes longer is left out."""

Complete = Callable[[str], list[str]]


def words(accepted: Iterable[str]) -> Complete:
    """These words."""

    def complete(incomplete: str) -> list[str]:
        return [word for word in accepted if word.startswith(incomplete)]

    return complete


def listed(accepted: Iterable[str]) -> Complete:
    """These words, several with commas between them, none twice."""

    def complete(incomplete: str) -> list[str]:
        *before, last = incomplete.split(",")
        head = "".join(f"{word}," for word in before)
        return [head + word for word in accepted if word.startswith(last) and word not in before]

    return complete


def worker(incomplete: str) -> list[str]:
    """The names of the workers that run here; the process ids of those whose name is not theirs alone."""
    from openrtc_top._connection import find

    try:
        found = find()
    except OSError:
        return []
    names = [each.name for each in found]
    pids = [str(each.pid) for each in found if each.pid is not None and names.count(each.name) > 1]
    return _sorted(names + pids, incomplete)


def session(incomplete: str) -> list[str]:
    """The ids of the sessions that live here."""
    return _of_sessions(lambda row: row.session_id, incomplete)


def agent(incomplete: str) -> list[str]:
    """Their agents."""
    return _of_sessions(lambda row: row.agent_name, incomplete)


def tenant(incomplete: str) -> list[str]:
    """Their tenants."""
    return _of_sessions(lambda row: row.tenant, incomplete)


def _of_sessions(told: Callable[[SessionRow], str | None], incomplete: str) -> list[str]:
    from openrtc_top._connection import find, read_all

    try:
        answers = read_all(find(), timeout_s=PATIENCE_S)
    except OSError:
        return []
    rows = [row for _, answer in answers if not isinstance(answer, Exception) for row in answer.sessions]
    return _sorted([text for row in rows if (text := told(row)) is not None], incomplete)


def _sorted(found: Iterable[str], incomplete: str) -> list[str]:
    # What a shell or terminal would take for more than text is not offered.
    return sorted({text for text in found if text.startswith(incomplete) and text.isprintable()})
