"""The cells of the table: a function that draws the values of each form."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from rich.style import Style

from openrtc_top._model.columns import Form
from openrtc_top._model.workers import Worker
from openrtc_top._view import quantity
from openrtc_top._view.line import visible
from openrtc_top._view.style import ACCENT, DIM, PLAIN, STATUS

Cell = tuple[str, Style]


class Place(NamedTuple):
    """Where a session stands: its row, counted from 1, its worker, its pin."""

    row: int
    worker: Worker
    pinned: bool


Draw = Callable[[Any, Place], Cell]


def _plain(text: Callable[[Any], str]) -> Draw:
    return lambda value, place: (text(value), PLAIN)


def _or_dash(text: Callable[[Any], str]) -> Draw:
    return lambda value, place: ("-", DIM) if value is None else (text(value), PLAIN)


def _if_known(text: Callable[[Any], str]) -> Draw:
    return lambda value, place: (quantity.UNKNOWN if value is None else text(value), PLAIN)


def _status(value: str, place: Place) -> Cell:
    if place.worker.gone is not None:
        return "GONE", STATUS["gone"]
    return (value if value == "active" else value.upper()), STATUS[value]


DRAW: dict[Form, Draw] = {
    Form.TEXT: _or_dash(visible),
    Form.NUMBER: _plain(quantity.number),
    Form.INTEGER: _if_known(str),
    Form.TALLY: lambda value, place: (str(value), PLAIN if value else DIM),
    Form.COUNT: _if_known(quantity.count),
    Form.CLOCK: _plain(quantity.clock),
    Form.CLOCK_IF_ANY: _or_dash(quantity.clock),
    Form.SECONDS: _if_known(lambda value: quantity.span(value * 1000)),
    Form.MILLISECONDS: _plain(quantity.span),
    Form.MILLISECONDS_IF_ANY: _or_dash(quantity.span),
    Form.STATUS: _status,
    Form.ROW_NUMBER: lambda value, place: (str(place.row), DIM),
    Form.WORKER: lambda value, place: (visible(place.worker.name), PLAIN),
    Form.PIN: lambda value, place: ("★" if place.pinned else "", ACCENT),
}
LEFT = frozenset({Form.TEXT, Form.STATUS, Form.WORKER, Form.PIN})
"""The forms that stand at the left of their column."""
