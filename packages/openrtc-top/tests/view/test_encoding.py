"""Terminals that cannot show all of Unicode."""

from __future__ import annotations

import pytest
from rich.cells import cell_len

from openrtc_top._view.encoding import encodable, shows_unicode


@pytest.mark.parametrize(("encoding", "shows"), [("utf-8", True), ("ascii", False), ("latin-1", False), (None, False)])
def test_which_encodings_show_the_marks(encoding: str | None, shows: bool) -> None:
    """UTF-8 does, the old ones and an unknown one do not."""
    assert shows_unicode(encoding) is shows
    assert not shows_unicode("no-such-encoding")


def test_bars_become_ascii_cell_for_cell() -> None:
    """Every mark has a replacement as wide as it was; a wide character becomes two."""
    text = " loop ███▊▏··  57 % ▸ cpu%▼ ▁▂▇█ … ─ – 東 é"
    shown = encodable(text, "ascii")
    assert shown == " loop ####-..  57 % > cpu%v _.*# ~ - - ?? ?"
    assert cell_len(shown) == cell_len(text)
    assert encodable(text, "utf-8") == text


def test_what_the_encoding_has_stays() -> None:
    """Latin-1 has é."""
    assert encodable("é▸", "latin-1") == "é>"
