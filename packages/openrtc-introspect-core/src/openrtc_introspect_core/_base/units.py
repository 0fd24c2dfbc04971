"""Units: the size of a megabyte, and percentages within bounds."""

from __future__ import annotations

MIB = 1024 * 1024
"""Bytes in what every field, flag and column of ours calls MB, as `top` and `htop` do."""


def percent(part: float, whole: float, maximum: float = 100.0) -> float:
    """Return `part` of `whole` in percent, within 0 and `maximum`.

    Returns 0 if `whole` is not positive.

    The bounds matter because the two are read a moment apart.
    """
    return min(maximum, max(0.0, 100.0 * part / whole)) if whole > 0.0 else 0.0
