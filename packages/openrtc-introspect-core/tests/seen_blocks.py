"""The blocks of a run, as a test compares them."""

from __future__ import annotations

from collections.abc import Iterable

from openrtc_introspect_core.wire import Block


def summaries(blocks: Iterable[Block]) -> list[tuple[str | None, str | None, int]]:
    """Return (session id, task's name, milliseconds) of each block."""
    return [(block.session_id, block.task_name, round(block.duration_ms)) for block in blocks]
