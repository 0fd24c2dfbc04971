from __future__ import annotations

import pytest

from openrtc_introspect_core._base.units import percent


@pytest.mark.parametrize(("part", "whole", "expected"), [(1, 2, 50.0), (-1, 2, 0.0), (3, 2, 100.0), (1, 0, 0.0)])
def test_percent_stays_within_bounds(part: float, whole: float, expected: float) -> None:
    """Readings a moment apart never show less than nothing or more than the whole."""
    assert percent(part, whole) == expected
