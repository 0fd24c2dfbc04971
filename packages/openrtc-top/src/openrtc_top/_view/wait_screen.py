"""The page of the key W: what the sessions wait for, most first, and the holders and waiters of one group."""

from __future__ import annotations

from openrtc_top._model.state import State
from openrtc_top._model.wait_list import people_of
from openrtc_top._model.waits import Entry
from openrtc_top._view.activity import activity_lines, full_executor_lines
from openrtc_top._view.body import Body, filled
from openrtc_top._view.holder import holder_text, noun
from openrtc_top._view.line import Line, cells, clip, visible, with_label
from openrtc_top._view.place import place
from openrtc_top._view.style import BOLD, DIM, HEADING, SELECTED, WARN
from openrtc_top._view.waits import blocked_lines, table, waiter_text

_MIN_LIST_ROWS = 3
"""The number of groups that stay in sight above what else there is to see."""
_SHORT_PLACE = 30
"""The cells for a place in a line that is too long; below the list it is whole."""


def wait_page(state: State, width: int, room: int) -> Body:
    """Return the page in so many lines, heading included."""
    found = state.waits()
    opened = state.wait_list.group(found)
    if opened is not None:
        return _group_page(state, opened, width, room)
    heading, rows = table(found, width, workers=len(state.scope) > 1, holders=True)
    below = _below(state, width)
    below = below[: max(0, room - 1 - min(_MIN_LIST_ROWS, max(1, len(rows))))]
    page_rows = max(1, room - 1 - len(below))
    index = state.wait_list.cursor.index([entry.identity for entry in found])
    top = state.wait_list.cursor.window(index, len(found), page_rows)
    shown = rows[top : top + page_rows] or [Line(clip(_empty(state), width), DIM)]
    if rows and index is not None:
        shown[index - top] = _selected(shown[index - top], width)
    gap = [Line()] if below and len(shown) < page_rows else []
    lines = [heading, *shown, *gap, *(line.cropped(width) for line in below)]
    return Body(filled(lines, room), top, page_rows, len(found))


def _group_page(state: State, entry: Entry, width: int, room: int) -> Body:
    """Return the holders of one group, then its waiters."""
    group, now = entry.group, entry.taken_at
    sessions = "1 session" if group.sessions == 1 else f"{group.sessions} sessions"
    title = Line(" ").add(f"{sessions} for {noun(group.kind)}", BOLD)
    title.add(f"  {visible(group.what)}" if group.what else "")
    title.add(f"  {place(group.location, width - title.width - 2)}" if group.location is not None else "")
    texts = [("held by", holder_text(holder, now)) for holder in group.holders]
    texts += [("waits", waiter_text(waiter, now, group.location)) for waiter in group.waiters]
    short = [holder_text(holder, now, _SHORT_PLACE) for holder in group.holders]
    short += [waiter_text(waiter, now, group.location, _SHORT_PLACE) for waiter in group.waiters]
    people = people_of(entry)
    index = state.wait_list.people.index(people)
    lines = [
        Line(" ").add(f"{label:<9}", DIM).add(text if cells(text) <= width - 10 else shorter)
        for (label, text), shorter in zip(texts, short, strict=True)
    ]
    chosen = texts[index or 0] if texts else ("", "")
    about = with_label(*chosen, width, 1) if cells(chosen[1]) > width - 10 else []
    about += _pools(state, entry, width)
    more = group.tasks - len(group.waiters)
    last = [Line(f" and {more} more tasks, which have waited for less long", DIM).cropped(width)] if more > 0 else []
    below = [*last, Line("─" * width, DIM), *about] if about else last
    below = below[: max(0, room - 1 - _MIN_LIST_ROWS)]
    page_rows = max(1, room - 1 - len(below))
    top = state.wait_list.people.window(index, len(people), page_rows)
    shown = [line.cropped(width) for line in lines[top : top + page_rows]]
    if shown and index is not None:
        shown[index - top] = _selected(shown[index - top], width)
    return Body(filled([title.cropped(width), *shown, *below], room), top, page_rows, len(people))


def _pools(state: State, entry: Entry, width: int) -> list[Line]:
    """Return the pools whose threads are all busy, if the group waits for one."""
    if entry.group.kind != "executor":
        return []
    surveys = [worker.survey for worker in state.scope if worker.key == entry.identity[0]]
    return [line for survey in surveys if survey and survey.waits for line in full_executor_lines(survey.waits, width)]


def _selected(line: Line, width: int) -> Line:
    line.segments[0] = Line("▸").segments[0]
    return line.filled(width, SELECTED)


def _below(state: State, width: int) -> list[Line]:
    """Return what else may keep tasks waiting, and which workers have not answered."""
    lines: list[Line] = []
    several = len(state.scope) > 1
    for worker in state.scope:
        survey = worker.survey
        name = f"{clip(visible(worker.name), 24)}: " if several else ""
        blocks = worker.snapshot.blocks_in_progress if worker.snapshot is not None and worker.gone is None else ()
        lines += [line for block in blocks if block.holder is not None for line in blocked_lines(block, width)]
        if survey is None:
            continue
        if survey.waits is None:
            lines.append(Line(clip(f" {name}{visible(survey.problem)}", width), WARN))
            continue
        about = activity_lines(survey.waits, width)
        if about and several:
            lines.append(Line(f" {name}", HEADING))
        lines += about
        if survey.waits.not_looked_at:
            text = f" {name}{survey.waits.not_looked_at} tasks were not looked at: there was no time"
            lines.append(Line(clip(text, width), DIM))
    return lines


def _empty(state: State) -> str:
    surveys = [worker.survey for worker in state.scope if worker.survey is not None]
    if not surveys:
        frozen = any(worker.frozen for worker in state.scope)
        return "  a frozen worker cannot tell what its tasks wait for" if frozen else "  asking …"
    return "  nothing waits" if any(survey.waits is not None for survey in surveys) else ""
