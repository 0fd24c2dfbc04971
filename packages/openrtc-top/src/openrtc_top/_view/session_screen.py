"""One session's page: its last minute, where it runs now, its tasks, its blocks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.style import Style

from openrtc_top._model.blocks import Entry, entries, in_order
from openrtc_top._model.history import HISTORY_S, of_session
from openrtc_top._model.page import SessionPage
from openrtc_top._model.state import State
from openrtc_top._model.tree import grow
from openrtc_top._model.workers import Worker
from openrtc_top._view import blocks, quantity
from openrtc_top._view.holder import held_up
from openrtc_top._view.line import MAX_NAME_WIDTH, Line, clip, fit, spread, visible
from openrtc_top._view.place import place
from openrtc_top._view.style import ACCENT, BAD, BOLD, DIM, HEADING, STATUS
from openrtc_top._view.tree import tree_lines
from openrtc_top._view.unanswered import as_of
from openrtc_top._view.wall_time import wall_time_lines

if TYPE_CHECKING:
    from openrtc_introspect_core.wire import Location

_MIN_SPARKLINE = 10
_BESIDE = 46
"""The cells for the figures to the right of a sparkline."""
_LABEL = 7
_MAX_STACK_LINES = 12


def page_header(state: State, page: SessionPage, width: int) -> list[Line]:
    """Return the session's name and status, and its last minute."""
    worker = state.worker(page.worker)
    row = page.session
    cpu, mem = of_session(worker.trail, row.session_id) if worker else ((), ())
    now = int(worker.snapshot.taken_at) if worker and worker.snapshot else 0
    highest = max([row.peak_mb, *(value for _, value in mem)])
    levels = tuple((second, 100 * value / highest if highest else 0.0) for second, value in mem)
    seconds = min(HISTORY_S, width - _LABEL - _BESIDE)
    lines = [_title(state, page, worker, width)]
    for label, points, parts in (("cpu", cpu, _cpu(page)), ("mem", levels, _memory(page))):
        line = Line(f" {label}  ", DIM)
        if seconds >= _MIN_SPARKLINE:
            line.add(f"{seconds} s ", DIM).add(quantity.sparkline(points, now, seconds), ACCENT).add("  ")
        lines.append(line.join(fit(parts, max(0, width - line.width))).cropped(width))
    return lines


def page_text(state: State, page: SessionPage, width: int) -> list[Line]:
    """Return all lines below the header, which may be more than there is room for."""
    worker = state.worker(page.worker)
    own = _own(worker, page.session.session_id) if worker else []
    running = next((entry for entry in own if entry.block.in_progress), None)
    frozen = worker is not None and worker.frozen
    lines = [*_running(page, running, width), *_time(page, width), *_tasks(page, width, frozen=frozen)]
    lines += _blocks(own, width)
    return [line.cropped(width) for line in lines]


def _own(worker: Worker, session_id: str) -> list[Entry]:
    """Return the session's blocks, the newest first."""
    found = entries(worker.key, worker.name, worker.blocks, worker.snapshot if worker.gone is None else None)
    return in_order(entry for entry in found if entry.block.session_id == session_id)[::-1]


def _title(state: State, page: SessionPage, worker: Worker | None, width: int) -> Line:
    row = page.session
    status, style = _status(page, worker)
    held = next((entry for entry in _own(worker, row.session_id) if entry.block.in_progress), None) if worker else None
    if held is not None and not page.ended:
        status = f"{status} {quantity.span(held.lasted_ms)}"
    parts = [
        (0, Line(" ").add(clip(visible(row.session_id), max(12, width // 2)), BOLD)),
        (2, Line("· ", DIM).add(clip(visible(row.agent_name), 24))),
        (3, Line("· ", DIM).add(clip(visible(row.tenant or "no tenant"), 24))),
        (1, Line("· ", DIM).add(quantity.clock(row.duration_s))),
        (0, Line("· ", DIM).add(status, style)),
    ]
    age_s = None if worker is None or worker.gone is not None else state.age_s(worker)
    if age_s is not None:
        parts.append((1, Line(f"· {as_of(age_s)}", DIM)))
    left = fit(parts, width, gap=1)
    if worker is None:
        return left
    pid = "" if worker.pid is None else f" pid {worker.pid}"
    return spread(left, Line(clip(visible(worker.name), MAX_NAME_WIDTH) + pid + " "), width)


def _status(page: SessionPage, worker: Worker | None) -> tuple[str, Style]:
    if worker is None or worker.gone is not None:
        return "GONE: its worker is", STATUS["gone"]
    if page.ended:
        return "ENDED", BOLD
    status = page.session.status
    return (status if status == "active" else status.upper()), STATUS[status]


def _cpu(page: SessionPage) -> list[tuple[int, Line]]:
    row = page.session
    parts = [(0, Line(quantity.percent(row.cpu_pct, 1), BOLD))]
    if row.cpu_s is not None:
        parts.append((1, Line(f"{quantity.number(row.cpu_s)} s of loop time")))
    if row.steps is not None:
        parts.append((2, Line(f"{quantity.count(row.steps)} steps")))
    tasks = quantity.UNKNOWN if row.tasks is None else row.tasks
    return [*parts, (3, Line("1 task" if tasks == 1 else f"{tasks} tasks"))]


def _memory(page: SessionPage) -> list[tuple[int, Line]]:
    row = page.session
    parts = [(0, Line(f"{quantity.number(row.mem_mb)} MB", BOLD).add(" share"))]
    parts.append((2, Line(f"peak {quantity.number(row.peak_mb)}")))
    if row.heap_mb is not None:
        parts.append((1, Line(f"heap {quantity.number(row.heap_mb)}")))
    if row.delayed_s is not None:
        parts.append((3, Line(f"delayed {quantity.span(row.delayed_s * 1000)}")))
    return parts


def _running(page: SessionPage, entry: Entry | None, width: int) -> list[Line]:
    """Return where it holds the loop.

    The block in progress says so, else the worker's last answer.
    """
    if page.ended:
        return [Line(" it has ended; this is what was last known", DIM)]
    inspection = page.inspection
    stack: Sequence[Location] = inspection.stack or () if inspection else ()
    own = None
    if entry is not None:
        stack, own = entry.block.stack or stack, entry.block.location
    heading = Line(" running now", HEADING)
    if entry is not None:
        heading.add("  ").add(f"for {quantity.span(entry.lasted_ms)}", BAD)
    if own is not None:
        heading.add("  ").add(place(own, max(0, width - heading.width - 2)), BOLD)
    if stack:
        lines = [Line(f"   {place(location, width - 3)}", BOLD if location == own else DIM) for location in stack]
        if len(lines) > _MAX_STACK_LINES:
            outer = len(lines) - _MAX_STACK_LINES
            lines = [Line(f"   … {outer} calls further out", DIM), *lines[outer:]]
        return [heading, *lines, *_held(entry)]
    if entry is not None:
        return [heading, *_held(entry)]
    if inspection is None or inspection.stack is None:
        return []
    return [Line(" not running", DIM).add(" at the moment of the sample", DIM)]


def _held(entry: Entry | None) -> list[Line]:
    """Return what it waits for while it holds the loop, and who has that."""
    awaited = None if entry is None else held_up(entry.block)
    return [] if awaited is None else [Line(f"   {awaited}", BOLD)]


def _tasks(page: SessionPage, width: int, *, frozen: bool) -> list[Line]:
    inspection = page.inspection
    if inspection is None and frozen:
        return [Line(" tasks", HEADING), Line("   its worker is frozen and cannot tell them now", DIM)]
    if inspection is None:
        return [Line(" tasks", HEADING), Line("   asking …", DIM)]
    if inspection.tasks is None:
        return [Line(" tasks", HEADING), Line(clip(f"   {visible(inspection.problem)}", width), DIM)]
    if not inspection.tasks:
        return [Line(" tasks", HEADING).add("  none", DIM)]
    count = f"{len(inspection.tasks)}" + (", of more" if inspection.truncated else "")
    heading = Line(" tasks", HEADING).add(f"  {count}", DIM)
    return [heading, *tree_lines(grow(inspection.tasks), width)]


def _time(page: SessionPage, width: int) -> list[Line]:
    return [] if page.inspection is None else wall_time_lines(page.inspection.wall_time, width)


def _blocks(own: Sequence[Entry], width: int) -> list[Line]:
    if not own:
        return [Line(" blocks", HEADING).add("  none that is remembered", DIM)]
    form = blocks.columns(own, width, workers=False, who=False)
    title = Line(" blocks", HEADING).add(f"  {len(own)}, newest first", DIM)
    return [title, blocks.heading(form), *(blocks.row(entry, form) for entry in own)]
