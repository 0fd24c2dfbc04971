"""The sum of spans of time, however many there are."""

from __future__ import annotations

from typing import NamedTuple

from .._accounting.spans import seconds_within

MAX_SPANS = 256
"""Spans whose ends are known. The oldest ones are added up."""


class _Spans(NamedTuple):
    """One span, or several that were added up: from the beginning of the first to the end of the last."""

    start: float
    end: float
    seconds: float


class SpanSum:
    """Spans that do not overlap, in the order of time. Clock readings."""

    def __init__(self) -> None:
        self._spans: list[_Spans] = []
        self.until = 0.0
        """The end of the latest span. From any thread."""

    def add(self, start: float, end: float) -> None:
        """Add a span, which is later than all others."""
        spans = self._spans
        spans.append(_Spans(start, end, end - start))
        self.until = end
        if len(spans) > MAX_SPANS:
            first, second, *_ = spans
            spans[:2] = [_Spans(first.start, second.end, first.seconds + second.seconds)]

    def within(self, start: float, end: float) -> float:
        """Return the seconds of the spans between two moments.

        Of spans that were added up and are in part outside of them, the seconds are taken for evenly distributed.
        """
        return sum(
            seconds_within(each.seconds, each.start, each.end, start, end)
            for each in self._spans
            if each.end > start and each.start < end
        )

    def forget(self, end: float) -> None:
        """Forget the spans that ended by then."""
        self._spans = [each for each in self._spans if each.end > end]
