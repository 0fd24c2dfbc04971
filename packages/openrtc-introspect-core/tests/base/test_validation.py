from __future__ import annotations

import pytest

from openrtc_introspect_core import ArgumentError
from openrtc_introspect_core._base.validation import check_text


@pytest.mark.parametrize("length", [1, 256])
def test_text_of_accepted_length_is_kept(length: int) -> None:
    """1 to 256 characters are accepted."""
    assert check_text("session_id", "x" * length) == "x" * length


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("", "an empty one"),
        ("x" * 257, "257 characters"),
        ("a\ud800", "lone surrogates"),
        (7, "must be a str, got 7"),
    ],
)
def test_text_that_cannot_be_shown_is_refused(value: object, message: str) -> None:
    """The error names what was given."""
    with pytest.raises(ArgumentError, match=message):
        check_text("session_id", value)
