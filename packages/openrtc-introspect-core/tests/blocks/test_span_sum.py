from __future__ import annotations

import pytest

from openrtc_introspect_core._blocks.span_sum import MAX_SPANS, SpanSum


def test_the_part_of_a_span_between_two_moments_counts() -> None:
    spans = SpanSum()
    for start in (1.0, 2.0, 3.0):
        spans.add(start, start + 0.5)
    assert spans.within(1.25, 3.25) == 1.0
    assert spans.within(2.6, 2.9) == 0.0
    assert spans.until == 3.5


def test_the_sum_of_any_number_of_spans_is_kept() -> None:
    """In bounded memory."""
    spans = SpanSum()
    for n in range(10 * MAX_SPANS):
        spans.add(n, n + 0.25)
    assert spans.within(0.0, 1e9) == pytest.approx(10 * MAX_SPANS * 0.25)
    assert spans.within(10 * MAX_SPANS - 2, 1e9) == 0.5
    assert len(spans._spans) == MAX_SPANS


def test_spans_of_an_iteration_that_is_over_are_forgotten() -> None:
    spans = SpanSum()
    spans.add(1.0, 2.0)
    spans.add(2.0, 4.0)
    spans.forget(3.0)
    assert (spans.within(0.0, 10.0), spans.until) == (2.0, 4.0)
