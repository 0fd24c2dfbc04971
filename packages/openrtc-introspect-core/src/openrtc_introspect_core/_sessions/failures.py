"""Sessions that ended with an error.

They are shown for a while after their end, so that someone can see the error.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Container
from typing import NamedTuple

from .._base.errors import SessionFailed
from .._base.gil import copied
from .session import Session

KEPT_S = 30.0
"""Seconds for which a failed session is shown after its end."""

KEPT = 32
"""The number of failed sessions kept: the latest."""

MAX_ERROR_CHARACTERS = 200
"""The length of an error's description."""


class Failure(NamedTuple):
    """One session that failed."""

    session: Session
    ended_at: float
    """Clock reading."""
    error: str
    """One line: see `describe_error`."""


class Failures:
    """The last sessions that failed.

    The loops' threads add, the service thread forgets, any thread reads.
    """

    def __init__(self) -> None:
        self._kept: deque[Failure] = deque(maxlen=KEPT)

    def add(self, session: Session, now: float, error: BaseException) -> None:
        """Keep a session that has ended with `error`."""
        self._kept.append(Failure(session, now, describe_error(error)))

    def shown(self, now: float, live: Container[str]) -> list[Failure]:
        """Return those that are shown now.

        Of each id that is the latest, and none whose id is in use again.
        """
        latest = {each.session.session_id: each for each in copied(self._kept) if now - each.ended_at < KEPT_S}
        return [each for session_id, each in latest.items() if session_id not in live]

    def forget(self, now: float) -> None:
        """Drop those that were shown for KEPT_S. Called about once a second."""
        while self._kept and now - self._kept[0].ended_at >= KEPT_S:
            self._kept.popleft()


def describe_error(error: BaseException) -> str:
    """Describe an error in one line of at most 200 characters.

    The line has the error's type and message; for a group of one error, that error's.
    """
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    try:
        words = str(error) if isinstance(error, SessionFailed) else f"{type(error).__name__}: {error}"
    except Exception:  # its own __str__ failed
        words = type(error).__name__
    line = " ".join(words.split()).removesuffix(":").encode("utf-8", "replace").decode("utf-8")
    return line if len(line) <= MAX_ERROR_CHARACTERS else f"{line[: MAX_ERROR_CHARACTERS - 2]} …"
