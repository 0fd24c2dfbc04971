"""Shell completion of options: the words that are accepted, and what runs now.

No function may fail or keep the shell waiting: a worker that does not answer is not offered.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from openrtc_introspect_core.wire import SessionRow

TIMEOUT_S = 1.0
"""A worker that takes longer is skipped."""

Complete = Callable[[str], list[str]]


def words(accepted: Iterable[str]) -> Complete:
    """Offer these words."""

    def complete(incomplete: str) -> list[str]:
        return [word for word in accepted if word.startswith(incomplete)]

    return complete


def listed(accepted: Iterable[str]) -> Complete:
    """Offer these words, several with commas between them, none twice."""

    def complete(incomplete: str) -> list[str]:
        *before, last = incomplete.split(",")
        head = "".join(f"{word}," for word in before)
        return [head + word for word in accepted if word.startswith(last) and word not in before]

    return complete


def condition(incomplete: str) -> list[str]:
    """Offer the words that may stand at the end of a condition."""
    from openrtc_top._model.condition_words import words as known

    last = re.split(r"[^\w.]", incomplete)[-1]
    head = incomplete[: len(incomplete) - len(last)]
    return [head + word for word in known() if word.startswith(last) and last]


def worker(incomplete: str) -> list[str]:
    """Offer the names of the workers here, and the process ids of namesakes."""
    from openrtc_top._client.targets import find

    try:
        found = find()
    except OSError:
        return []
    names = [each.name for each in found]
    pids = [str(each.pid) for each in found if each.pid is not None and names.count(each.name) > 1]
    return _sorted(names + pids, incomplete)


def dead_worker(incomplete: str) -> list[str]:
    """Offer the names of the workers that died here, and the process ids of namesakes."""
    from openrtc_top._client.black_boxes import find_dead
    from openrtc_top._client.targets import Target, find

    try:
        dead = [each.worker for each in find_dead(Target(), find())]
    except OSError:
        return []
    names = [each.name for each in dead]
    pids = [str(each.pid) for each in dead if each.pid is not None and names.count(each.name) > 1]
    return _sorted(names + pids, incomplete)


def runbook(incomplete: str) -> list[str]:
    """Offer the names of the runbooks."""
    from openrtc_top._cli import runbook_files

    return [name for name in runbook_files.names() if name.startswith(incomplete)]


def session(incomplete: str) -> list[str]:
    """Offer the ids of the sessions that live here."""
    return _of_sessions(lambda row: row.session_id, incomplete)


def agent(incomplete: str) -> list[str]:
    """Offer their agents."""
    return _of_sessions(lambda row: row.agent_name, incomplete)


def tenant(incomplete: str) -> list[str]:
    """Offer their tenants."""
    return _of_sessions(lambda row: row.tenant, incomplete)


def _of_sessions(text_of: Callable[[SessionRow], str | None], incomplete: str) -> list[str]:
    from openrtc_top._client.query import read_all
    from openrtc_top._client.targets import find
    from openrtc_top._model.box_reading import BoxReading

    try:
        answers = [answer for _, answer in read_all(find(), timeout_s=TIMEOUT_S) if not isinstance(answer, Exception)]
    except OSError:
        return []
    snapshots = [answer.snapshot if isinstance(answer, BoxReading) else answer for answer in answers]
    rows = [row for snapshot in snapshots for row in snapshot.sessions]
    return _sorted([text for row in rows if (text := text_of(row)) is not None], incomplete)


def _sorted(found: Iterable[str], incomplete: str) -> list[str]:
    # Text that a shell or terminal would obey is not offered.
    return sorted({text for text in found if text.startswith(incomplete) and text.isprintable()})
