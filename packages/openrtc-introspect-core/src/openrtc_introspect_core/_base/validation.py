"""Checks of arguments: numbers, words, names, metadata."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from .errors import ArgumentError, ArgumentTypeError

MAX_NAME = 256
"""The maximum length of a session id, an agent name or a tenant, in characters."""


def number(what: str, value: object, *, above: float | None = None, least: float | None = None) -> float:
    """Return a finite number that is above, or at least, a bound.

    Raise ArgumentError for any other value.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ArgumentTypeError(f"{what} must be a number, got {value!r}")
    accepted = (
        f"greater than {above:g}" if above is not None else f"{least:g} or more" if least is not None else "finite"
    )
    if not math.isfinite(value) or (above is not None and value <= above) or (least is not None and value < least):
        raise ArgumentError(f"{what} must be {accepted}, got {value!r}")
    return float(value)


def whole(what: str, value: object) -> int:
    """Return an int of 0 or more, where 0 means no limit.

    Raise ArgumentError for any other value.
    """
    if isinstance(value, bool) or not isinstance(value, int):
        raise ArgumentTypeError(f"{what} must be an int, got {value!r}")
    if value < 0:
        raise ArgumentError(f"{what} must be 0 (no limit) or more, got {value!r}")
    return value


def one_of(what: str, value: object, accepted: Iterable[str]) -> None:
    """Raise ArgumentError, listing the accepted words, if the value is none of them."""
    words = list(accepted)
    if value not in words:
        raise ArgumentError(f"{what} must be {' or '.join(map(repr, words))}, got {value!r}")


def check_text(what: str, value: object) -> str:
    """Return a session id, agent name or tenant that can be shown and sent.

    Raise ArgumentError for any other value.
    """
    if not isinstance(value, str):
        raise ArgumentTypeError(f"{what} must be a str, got {value!r}")
    if not 1 <= len(value) <= MAX_NAME:
        given = f"{len(value)} characters" if value else "an empty one"
        raise ArgumentError(f"{what} must have 1 to {MAX_NAME} characters, got {given}")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        raise ArgumentError(f"{what} must be valid Unicode without lone surrogates, got {value!a}") from None
    return value


def check_metadata(metadata: object) -> Mapping[str, Any]:
    """Return the metadata, {} for None.

    Raise ArgumentError if it is no mapping or its tenant is no str.
    """
    if metadata is None:
        return {}
    if not isinstance(metadata, Mapping):
        raise ArgumentTypeError(f"metadata must be a mapping such as {{'tenant': 'acme'}}, got {metadata!r:.200}")
    if metadata.get("tenant") is not None:
        check_text("metadata['tenant']", metadata["tenant"])
    return metadata
