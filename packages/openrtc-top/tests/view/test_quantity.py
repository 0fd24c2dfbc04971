"""Numbers as text."""

from __future__ import annotations

import pytest

from openrtc_top._view import quantity


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-1, "0:00"),
        (9.9, "0:09"),
        (724, "12:04"),
        (3599, "59:59"),
        (3731, "1:02:11"),
        (36_120, "10h02m"),
        (183_600, "2d03h"),
        (9_000_000, "104d"),
    ],
)
def test_clock(seconds: float, text: str) -> None:
    """A session's age never takes more than seven characters."""
    assert quantity.clock(seconds) == text
    assert len(text) <= 7


@pytest.mark.parametrize(
    ("seconds", "text"), [(42, "42s"), (845, "14m05s"), (8040, "2h14m"), (273_600, "3d04h"), (-5, "0s")]
)
def test_uptime(seconds: float, text: str) -> None:
    """The two greatest units are shown."""
    assert quantity.uptime(seconds) == text


@pytest.mark.parametrize(
    ("milliseconds", "text"),
    [(None, "n/a"), (0, "0 ms"), (71.4, "71 ms"), (999.7, "1.0 s"), (3200, "3.2 s"), (120_000, "120 s")],
)
def test_span(milliseconds: float | None, text: str) -> None:
    """Milliseconds below a second, seconds above; what is unknown is not 0."""
    assert quantity.span(milliseconds) == text


@pytest.mark.parametrize(
    ("milliseconds", "text"),
    [(None, "n/a"), (0.0, "<0.5 ms"), (3.14, "3.1 ms"), (14.2, "14 ms"), (1500, "1.5 s")],
)
def test_lag(milliseconds: float | None, text: str) -> None:
    """A lag below its resolution is shown as such."""
    assert quantity.lag(milliseconds) == text


def test_number_percent_and_size() -> None:
    """An unknown number is n/a; a large one loses its fraction, not its place."""
    assert quantity.number(None) == quantity.percent(None) == "n/a"
    assert [quantity.number(value) for value in (0.0, 12.34, 1234.5)] == ["0.0", "12.3", "1234"]
    assert quantity.percent(56.7) == "57 %"
    assert [quantity.size(value) for value in (412.3, 1945.0)] == ["412 MB", "1.9 GB"]


@pytest.mark.parametrize(
    ("share", "drawn"),
    [
        (0.0, "····"),
        (0.001, "▏···"),
        (0.5, "██··"),
        (0.55, "██▎·"),
        (1.0, "████"),
        (7.0, "████"),
        (-1.0, "····"),
    ],
)
def test_bar(share: float, drawn: str) -> None:
    """Eighths of a cell; more than nothing shows, and no more than all."""
    assert quantity.bar(share, 4, "·") == drawn


def test_sparkline() -> None:
    """One cell a second, the newest at the right; a second without a value stays blank."""
    assert quantity.sparkline([(7, 0.0), (8, 50.0), (10, 100.0)], now=10, width=5) == " ▁▅ █"
