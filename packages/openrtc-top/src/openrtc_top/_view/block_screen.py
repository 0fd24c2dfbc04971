"""The page of the key b: the list of blocks, and the selected block's stack."""

from __future__ import annotations

from openrtc_top._model.blocks import Entry
from openrtc_top._model.state import State
from openrtc_top._view import blocks
from openrtc_top._view.body import Body, filled
from openrtc_top._view.line import Line, clip, visible
from openrtc_top._view.style import DIM, SELECTED

_MIN_LIST_ROWS = 3
"""The number of blocks that stay in sight above a stack."""


def block_page(state: State, width: int, room: int) -> Body:
    """Return the page in so many lines, heading included."""
    found = state.entries()
    index = state.blocks.index(found)
    pane: list[Line] = []
    if state.blocks.stack and index is not None:
        pane = _about(found[index], width, max(0, room - 1 - _MIN_LIST_ROWS))
    page_rows = max(1, room - 1 - len(pane))
    top = state.blocks.cursor.window(index, len(found), page_rows)
    form = blocks.columns(found, width, workers=len(state.workers) > 1)
    rows = [
        _row(entry, form, width, selected=at == index) for at, entry in enumerate(found[top : top + page_rows], top)
    ]
    if not rows:
        rows = [Line(clip(_empty(state), width), DIM)]
    lines = [blocks.heading(form), *filled(rows, page_rows), *(line.cropped(width) for line in pane)]
    return Body(lines, top, page_rows, len(found))


def _row(entry: Entry, form: blocks.Columns, width: int, *, selected: bool) -> Line:
    line = blocks.row(entry, form, "▸" if selected else " ")
    return line.filled(width, SELECTED) if selected else line


def _about(entry: Entry, width: int, max_lines: int) -> list[Line]:
    """Return what is known of a block, in at most so many lines.

    A stack that is too long keeps its innermost calls.
    """
    block = entry.block
    about = [f"task {visible(block.task_name)}"] if block.task_name else ["no task"]
    about += [visible(text) for text in (block.tenant, block.detail) if text]
    facts = [Line(f" {' · '.join(about)}", DIM)]
    delayed = blocks.delayed(block, width)
    facts += [delayed] if delayed else []
    calls = blocks.stack(block, width)
    rule = Line("─" * width, DIM)
    room = max(1, max_lines - 1 - len(facts))
    if len(calls) > room:
        outer = len(calls) - room + 1
        calls = [Line(f"           … {outer} calls further out", DIM), *calls[outer:]]
    return [rule, *facts, *calls][:max_lines]


def _empty(state: State) -> str:
    if not any(worker.snapshot for worker in state.workers):
        return "  waiting for the first snapshot"
    return "  no block so far"
