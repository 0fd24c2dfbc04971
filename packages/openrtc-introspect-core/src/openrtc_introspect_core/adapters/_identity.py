"""What a session of an adapter is called."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import uuid4

from .._base.errors import ArgumentTypeError
from .._base.validation import MAX_NAME


@dataclass(frozen=True, slots=True)
class Identity:
    """What a session is called; None and "" stand for the adapter's default.

    A value may come from a caller: only its first 256 characters are used, and what is no Unicode in it is replaced.
    Raises ArgumentTypeError for a value that is no str.
    """

    session_id: str | None = None
    """If a live session has this id, `#` and a number follow it. Default: a unique id, which no caller can choose."""
    agent_name: str | None = None
    tenant: str | None = None

    def __post_init__(self) -> None:
        for what in ("session_id", "agent_name", "tenant"):
            value = getattr(self, what)
            if value is not None and not isinstance(value, str):
                raise ArgumentTypeError(f"{what} must be a str or None, got {value!r:.200}")

    def otherwise(self, default: Identity) -> Identity:
        """Return this identity, with the default's values where it has none."""
        return Identity(
            _usable(self.session_id or default.session_id),
            _usable(self.agent_name or default.agent_name),
            _usable(self.tenant or default.tenant),
        )


def _usable(text: str | None) -> str | None:
    return text and text.encode("utf-8", "replace").decode("utf-8")[:MAX_NAME]


def unique_id(prefix: str) -> str:
    """Return an id that nobody can guess, with a prefix for people."""
    return f"{prefix}-{uuid4().hex[:12]}"
