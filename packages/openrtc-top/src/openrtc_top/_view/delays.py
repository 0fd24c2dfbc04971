"""The table of who delayed whom: culprits, and the sessions that waited for them."""

from __future__ import annotations

from collections.abc import Sequence

from openrtc_top._model.delays import PairDelay
from openrtc_top._view import quantity
from openrtc_top._view.line import Line, cells, fitted, visible
from openrtc_top._view.style import DIM, HEADING, PLAIN

_TITLES = ("who", "delayed", "blocks", "total", "worst")
_RIGHT = frozenset(_TITLES[2:])


def delay_table(pairs: Sequence[PairDelay], *, workers: bool) -> list[Line]:
    """Return the heading and a line for each pair.

    Columns are as wide as their contents.
    """
    titles = ("worker", *_TITLES) if workers else _TITLES
    rows = [_cells(pair, workers) for pair in pairs]
    widths = [max(map(cells, column)) for column in zip(titles, *rows, strict=True)]
    lines = []
    for row in (titles, *rows):
        line = Line(" ")
        for index, (title, text, width) in enumerate(zip(titles, row, widths, strict=True)):
            style = HEADING if row is titles else DIM if title == "worker" else PLAIN
            line.add("  " if index else "").add(fitted(text, width, right=title in _RIGHT), style)
        lines.append(line)
    return lines


def _cells(pair: PairDelay, workers: bool) -> tuple[str, ...]:
    unattributed = f"no session ({visible(pair.cause)})" if pair.cause else "no session"
    texts = (
        unattributed if pair.culprit is None else visible(pair.culprit),
        visible(pair.session),
        str(pair.blocks),
        _time(pair.total_ms, exact=pair.total_exact),
        _time(pair.worst_ms, exact=pair.worst_exact),
    )
    return (visible(pair.worker), *texts) if workers else texts


def _time(milliseconds: float, *, exact: bool) -> str:
    return ("" if exact else "≤ ") + quantity.span(milliseconds)
