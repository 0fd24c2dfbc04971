"""Lines of a known width that cannot move the cursor."""

from __future__ import annotations

import pytest
from rich.cells import cell_len

from openrtc_top._view.line import Line, cells, clip, fit, fitted, spread, visible, wrap
from openrtc_top._view.style import BAD, SELECTED


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("job-c1d550", "job-c1d550"),
        ("a\x1b[2Jb", "a\\x1b[2Jb"),
        ("tab\tnew\nline\r", "tab\\tnew\\nline\\r"),
        ("del\x7f c1\x9b", "del\\x7f c1\\x9b"),
        ("\u202eexe.gnp", "\\u202eexe.gnp"),
        ("zero\u200bwidth", "zero\\u200bwidth"),
        ("東京 é", "東京 é"),
        ("❤\ufe0f", "❤"),
    ],
)
def test_visible(text: str, shown: str) -> None:
    """Characters that a terminal would obey are escaped; letters of all scripts stay."""
    assert visible(text) == shown
    assert visible(text).isprintable()


@pytest.mark.parametrize(
    ("text", "width", "clipped"),
    [
        ("abcdef", 6, "abcdef"),
        ("abcdef", 4, "abc…"),
        ("東京通話", 5, "東京…"),
        ("東京通話", 4, "東…"),
        ("ab", 0, ""),
    ],
)
def test_clip(text: str, width: int, clipped: str) -> None:
    """Never wider than asked for, also if a character takes two cells."""
    assert clip(text, width) == clipped
    assert cells(clipped) <= width


@pytest.mark.parametrize("text", ["", "ab", "abcdefgh", "東京通話", "e\u0301\u0301x"])
@pytest.mark.parametrize("width", [1, 3, 6])
def test_fitted(text: str, width: int) -> None:
    """Exactly as wide as asked for, on either side."""
    assert cell_len(fitted(text, width)) == width
    assert cell_len(fitted(text, width, right=True)) == width


def test_cropped_and_filled_lines() -> None:
    """A line can be cut to a width and filled to one; a style over it keeps its own colours."""
    line = Line("abc", BAD).add("東京")
    assert line.width == 7
    assert "".join(text for text, _, _ in line.cropped(6).segments) == "abc東…"
    filled = line.filled(10, SELECTED)
    assert filled.width == 10
    assert all(style is not None and style.reverse for _, style, _ in filled.segments)
    assert filled.segments[0].style == BAD + SELECTED


def test_fit_drops_what_matters_least() -> None:
    """Parts go by their number, not by their place; the first to stay is cropped at worst."""
    parts = [(0, Line("first")), (2, Line("third")), (1, Line("second"))]

    def fits(width: int) -> str:
        return "".join(text for text, _, _ in fit(parts, width).segments)

    assert fits(30) == "first  third  second"
    assert fits(19) == "first  second"
    assert fits(5) == "first"
    assert fits(4) == "fir…"


def test_spread_drops_the_right_side() -> None:
    """Where both do not fit, the left one stays."""
    assert spread(Line("left"), Line("right"), 12).width == 12
    assert spread(Line("left"), Line("right"), 10).width == 4


def test_a_number_and_its_unit_stay_together() -> None:
    """The space between them is a plain one all the same."""
    assert wrap("waiting for a lock ~99 %, waiting", 23) == ["waiting for a lock", "~99 %, waiting"]
    assert wrap("it took 3.2 s in all of them", 20) == ["it took 3.2 s in all", "of them"]
    assert wrap("", 20) == [""]
