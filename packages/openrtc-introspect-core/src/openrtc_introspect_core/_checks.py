"""Checks of constructor arguments that are numbers or one of a few words."""

from __future__ import annotations

import math
from collections.abc import Iterable

from ._errors import ArgumentError, ArgumentTypeError


def number(what: str, value: object, *, above: float | None = None, least: float | None = None) -> float:
    """A finite number above, or at least, a bound. Raises ArgumentError."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ArgumentTypeError(f"{what} must be a number, got {value!r}")
    accepted = (
        f"greater than {above:g}" if above is not None else f"{least:g} or more" if least is not None else "finite"
    )
    if not math.isfinite(value) or (above is not None and value <= above) or (least is not None and value < least):
        raise ArgumentError(f"{what} must be {accepted}, got {value!r}")
    return float(value)


def whole(what: str, value: object) -> int:
    """An int of 0 or more. Raises ArgumentError."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise ArgumentTypeError(f"{what} must be an int, got {value!r}")
    if value < 0:
        raise ArgumentError(f"{what} must be 0 (no limit) or more, got {value!r}")
    return value


def one_of(what: str, value: object, accepted: Iterable[str]) -> None:
    """Raises ArgumentError, listing what is accepted."""
    words = list(accepted)
    if value not in words:
        raise ArgumentError(f"{what} must be {' or '.join(map(repr, words))}, got {value!r}")
