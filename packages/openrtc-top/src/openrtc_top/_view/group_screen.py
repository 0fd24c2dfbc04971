"""The table of the key g: a line for each host or agent, with totals, the worst first."""

from __future__ import annotations

from rich.style import Style

from openrtc_top._model.groups import Group, Grouping, stands_for_host
from openrtc_top._model.state import State
from openrtc_top._view import quantity
from openrtc_top._view.body import Body, filled
from openrtc_top._view.grid import Title, grid, plain
from openrtc_top._view.line import Line, clip, visible
from openrtc_top._view.place import place
from openrtc_top._view.style import BAD, BOLD, DIM, PLAIN, SELECTED, STATUS, WARN

HERE = "this host"
_MIN_NOW = 16
_MAX_NOW = 90
"""The cells of the last column, at least and at most."""
_COUNTS = 76
"""The cells that are left to the columns before it."""
_BEFORE_PLACE = 28
"""The cells for the duration and the session, which stand before the place."""
_WITH_PLACE = 48
_Cell = tuple[str, Style]


def group_page(state: State, width: int, room: int) -> Body:
    """Return the list in so many lines, heading included."""
    assert state.grouping is not None
    page_rows = max(1, room - 1)
    found = state.groups
    index = state.group_list.index([group.name for group in found])
    top = state.group_list.window(index, len(found), page_rows)
    now = min(_MAX_NOW, max(_MIN_NOW, width - _COUNTS))
    cells = [_cells(group, state.grouping, now) for group in found]
    heading, lines = grid(_titles(state.grouping, now), cells, width)
    lines = lines[top : top + page_rows] or [Line(clip("  no session passes the filter", width), DIM)]
    if index is not None:
        line = lines[index - top]
        line.segments[0] = Line("▸").segments[0]
        lines[index - top] = line.filled(width, SELECTED)
    return Body([heading, *filled(lines, page_rows)], top, page_rows, len(found))


def _titles(by: Grouping, now: int) -> list[Title]:
    return [
        Title(by, 0, max_width=32),
        Title("workers", 7, right=True),
        Title("sessions", 1, right=True),
        Title("blocked", 2, right=True),
        Title("slow", 3, right=True),
        Title("errored", 8, right=True),
        Title("cpu%", 4, right=True),
        *([Title("lag p99", 5, right=True)] if by == "host" else []),
        Title("mem", 6, right=True),
        Title("blocks", 9, right=True),
        Title("worst", 10, right=True),
        Title("now", 0, max_width=now),
    ]


def _cells(group: Group, by: Grouping, now: int) -> list[_Cell]:
    name = group.name or HERE if by == "host" else group.name
    cpu, lag, worst = group.cpu_pct, group.lag_p99_ms, group.worst_ms
    return [
        (visible(name), BOLD),
        plain(str(sum(not stands_for_host(worker) for worker in group.workers))),
        plain(str(len(group.sessions))),
        _count(group, "blocked"),
        _count(group, "slow"),
        _count(group, "errored"),
        plain(quantity.UNKNOWN if cpu is None else quantity.number(cpu)),
        *([plain(quantity.lag(lag))] if by == "host" else []),
        plain(quantity.size(group.mem_mb) if group.sessions else quantity.UNKNOWN),
        plain(str(group.blocks)),
        ("-", DIM) if worst is None else plain(quantity.span(worst)),
        _now(group, by, now),
    ]


def _count(group: Group, status: str) -> _Cell:
    count = group.count(status)
    return (str(count), STATUS[status]) if count else ("-", DIM)


def _now(group: Group, by: Grouping, width: int) -> _Cell:
    """Return what is wrong with it now, in words, for a column of this width."""
    if (entry := group.longest) is not None:
        block = entry.block
        who = visible(block.session_id or "no session")
        where = f" {place(block.location, width - _BEFORE_PLACE)}" if block.location and width > _WITH_PLACE else ""
        return f"BLOCKED {quantity.span(entry.lasted_ms)} {who}{where}", BAD
    gone = group.gone if by == "host" else []
    if gone:
        reason = visible(gone[0].gone or "")
        return f"GONE: {reason}" if len(gone) == len(group.workers) else f"{len(gone)} GONE: {reason}", BAD
    if by == "host" and not any(worker.snapshot for worker in group.workers):
        return "connecting …", DIM
    if (session := group.slowest) is not None:
        return f"SLOW {quantity.span(session.worst_block_ms)} {visible(session.session_id)}", WARN
    return "", PLAIN
