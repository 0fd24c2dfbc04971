"""Sessions that ended with an error: shown for a while after their end, so that someone can see it."""

from __future__ import annotations

from collections import deque
from collections.abc import Container
from typing import NamedTuple

from ._errors import SessionFailed
from ._gil import copied
from ._sessions import Session

KEPT_S = 30.0
"""Seconds that one is shown for after its end."""

KEPT = 32
"""So many at the most, the latest."""

MAX_TOLD = 200
"""Characters that are told of an error."""


class Failure(NamedTuple):
    """One session that failed."""

    session: Session
    ended_at: float
    """Clock reading."""
    error: str
    """In one line."""


class Failures:
    """The last sessions that failed. Added to by the loop's thread, forgotten by one other, read by any."""

    def __init__(self) -> None:
        self._kept: deque[Failure] = deque(maxlen=KEPT)

    def add(self, session: Session, now: float, error: BaseException) -> None:
        self._kept.append(Failure(session, now, told(error)))

    def shown(self, now: float, live: Container[str]) -> list[Failure]:
        """Those that are shown now; of each id the latest, and none whose id is in use again."""
        latest = {each.session.session_id: each for each in copied(self._kept) if now - each.ended_at < KEPT_S}
        return [each for session_id, each in latest.items() if session_id not in live]

    def forget(self, now: float) -> None:
        """Lets go of those that were shown for long enough. Called about once a second."""
        while self._kept and now - self._kept[0].ended_at >= KEPT_S:
            self._kept.popleft()


def told(error: BaseException) -> str:
    """An error in one line of at most 200 characters: its type and what it says. Of a group its only one."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    try:
        words = str(error) if isinstance(error, SessionFailed) else f"{type(error).__name__}: {error}"
    except Exception:  # its own __str__ failed
        words = type(error).__name__
    line = " ".join(words.split()).removesuffix(":").encode("utf-8", "replace").decode("utf-8")
    return line if len(line) <= MAX_TOLD else f"{line[: MAX_TOLD - 2]} …"
