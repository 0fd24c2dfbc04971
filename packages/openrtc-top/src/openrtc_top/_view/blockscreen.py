"""What the key b shows in the table's place: the list of blocks, newest first, and the selected one's stack."""

from __future__ import annotations

from openrtc_top._blocks import Entry
from openrtc_top._state import State
from openrtc_top._view import blocks
from openrtc_top._view.body import Body, filled
from openrtc_top._view.line import Line, clip, visible
from openrtc_top._view.style import DIM, SELECTED

_LIST_LEAST = 3
"""So many blocks stay in sight above a stack."""


def block_page(state: State, width: int, room: int) -> Body:
    """The page in so many lines, heading included."""
    found = state.entries()
    index = state.blocks.index(found)
    pane: list[Line] = []
    if state.blocks.stack and index is not None:
        pane = _about(found[index], width, max(0, room - 1 - _LIST_LEAST))
    page = max(1, room - 1 - len(pane))
    top = state.blocks.cursor.window(index, len(found), page)
    form = blocks.columns(found, width, workers=len(state.workers) > 1)
    rows = [_row(entry, form, width, selected=at == index) for at, entry in enumerate(found[top : top + page], top)]
    if not rows:
        rows = [Line(clip(_empty(state), width), DIM)]
    lines = [blocks.heading(form), *filled(rows, page), *(line.cropped(width) for line in pane)]
    return Body(lines, top, page, len(found))


def _row(entry: Entry, form: blocks.Columns, width: int, *, selected: bool) -> Line:
    line = blocks.row(entry, form, "▸" if selected else " ")
    return line.filled(width, SELECTED) if selected else line


def _about(entry: Entry, width: int, most: int) -> list[Line]:
    """What is known of a block, in at most so many lines: of a stack too long the innermost calls."""
    block = entry.block
    told = [f"task {visible(block.task_name)}"] if block.task_name else ["no task"]
    told += [visible(text) for text in (block.tenant, block.detail) if text]
    facts = [Line(f" {' · '.join(told)}", DIM)]
    victims = blocks.delayed(block, width)
    facts += [victims] if victims else []
    calls = blocks.stack(block, width)
    rule = Line("─" * width, DIM)
    room = max(1, most - 1 - len(facts))
    if len(calls) > room:
        outer = len(calls) - room + 1
        calls = [Line(f"           … {outer} calls further out", DIM), *calls[outer:]]
    return [rule, *facts, *calls][:most]


def _empty(state: State) -> str:
    if not any(worker.snapshot for worker in state.workers):
        return "  waiting for the first snapshot"
    return "  no block so far"
