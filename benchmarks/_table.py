"""Tables as text for a terminal, and as Markdown for docs/benchmarks.md."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from ._case import Details, Row

HEADING = ("what", "ours", "must", "peer", "met")


def cells(row: Row) -> tuple[str, ...]:
    must = ""
    if row.must is not None:
        must = f"{'≥' if row.at_least else '≤'} {figure(row.must, row.unit)}"
    peer = row.peer if isinstance(row.peer, str) else figure(row.peer, row.unit)
    met = {None: "", True: "yes", False: "no"}[row.met]
    return row.what, figure(row.ours, row.unit) or "no figure", must, peer, met


def figure(number: float | None, unit: str = "") -> str:
    """Format a number with three significant digits and its unit; "" for None."""
    if number is None:
        return ""
    if number == 0 or abs(number) < 1e-3:
        text = "0" if abs(number) < 1e-4 else f"{number:.4f}"
    elif abs(number) >= 100:
        text = f"{number:,.0f}"
    else:
        text = f"{number:.3g}" if unit else f"{number:.4g}"
    return f"{text} {unit}".strip()


def as_json(row: Row) -> dict[str, Any]:
    return asdict(row) | {"met": row.met}


def text(heading: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    everything = [heading, *lines]
    widths = [max(len(line[column]) for line in everything) for column in range(len(heading))]
    drawn = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in everything]
    drawn.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(line.rstrip() for line in drawn)


def markdown(heading: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    everything = [heading, ["---"] * len(heading), *lines]
    return "\n".join(f"| {' | '.join(line)} |" for line in everything)


def details_text(details: Details) -> str:
    return f"{details.title}\n\n{text(details.heading, details.lines)}"


def details_markdown(details: Details) -> str:
    return f"**{details.title}**\n\n{markdown(details.heading, details.lines)}"
