"""The printed text about a worker that is frozen, in place of its answer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from openrtc_top._cli.outcome import is_terminal, put, wants_color, width

if TYPE_CHECKING:
    from openrtc_top._model.box_reading import BoxReading


def print_stacks(name: str | None, reading: BoxReading, session: str | None = None) -> None:
    """Print where the loop is held, the innermost call last. session: only if this one holds it."""
    from openrtc_top._view.blocks import stack
    from openrtc_top._view.line import visible
    from openrtc_top._view.text import line_to_text

    columns = width() if is_terminal() else None
    for block in reading.snapshot.blocks_in_progress:
        if block.stack and session in (None, block.session_id):
            if name is not None:
                put(f"{visible(name)}:")
            for line in stack(block, columns):
                put(line_to_text(line, line.width, color=wants_color()))


def frozen_reason(name: str, reading: BoxReading, what: str, session: str | None = None) -> str:
    """Return why something cannot be had of it, in one line.

    what: a noun in the plural. session: the one that was asked about.
    """
    from openrtc_top._view import quantity
    from openrtc_top._view.unanswered import holder

    held = reading.held
    if held is None or reading.blind:
        return f"{name} does not answer, and its black box holds no {what}: try again"
    who = "this session" if session is not None and held.session_id == session else holder(held)
    holds = "its loop has been held" if who is None else f"{who} has held its loop"
    lasted = quantity.span(held.duration_ms)
    return f"{name} is frozen, {holds} for {lasted}: its {what} cannot be had until it answers again"
