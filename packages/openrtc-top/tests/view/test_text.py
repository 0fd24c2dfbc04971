"""A line as the text that is written to a terminal."""

from __future__ import annotations

import pytest

from openrtc_top._view.line import Line
from openrtc_top._view.style import BAD
from openrtc_top._view.text import line_to_text


@pytest.mark.parametrize("name", ["job-1", "é", "Ελλάδα", "会议", "カナ", "한국어", "██▏··", "▸ … › → ★ ↻"])
def test_what_all_terminals_agree_on_is_just_text(name: str) -> None:
    """No cursor is moved for it."""
    line = Line(name).add("  ok")
    assert line_to_text(line, 80, color=False, anchored=True) == f"{name}  ok"


@pytest.mark.parametrize("name", ["👍🏽", "🇩🇪", "हिन्दी", "e\u0301"])
def test_what_they_do_not_agree_on_is_anchored(name: str) -> None:
    """The line is erased first, and what follows begins in the column it has by our count."""
    line = Line(name).add("  ok")
    column = line.width - 3
    assert line_to_text(line, 80, color=False, anchored=True) == f"\x1b[2K{name}\x1b[{column}G  ok"
    assert line_to_text(line, 80, color=False) == f"{name}  ok"
    coloured = line_to_text(Line(name, BAD).add("  ok"), 80, color=True, anchored=True)
    assert coloured.startswith("\x1b[2K\x1b[")
    assert coloured.endswith(f"\x1b[{column}G  ok")


def test_nothing_is_anchored_behind_the_last_column() -> None:
    """There is no such column."""
    line = Line("👍🏽", BAD)
    assert line_to_text(line, line.width, color=False, anchored=True) == "\x1b[2K👍🏽"
