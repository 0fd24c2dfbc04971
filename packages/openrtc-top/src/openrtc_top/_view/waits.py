"""The waits of a worker's tasks: the groups as a table, and below a group who holds it and who waits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from rich.style import Style

from openrtc_introspect_core._diagnosis.wait_kind import WAIT_KINDS
from openrtc_top._model.waits import Entry, all_calm, is_calm, waited_s
from openrtc_top._view import quantity
from openrtc_top._view.activity import activity_lines
from openrtc_top._view.findings import labelled
from openrtc_top._view.grid import Title, grid, plain
from openrtc_top._view.holder import held_up, holder_name, holder_text
from openrtc_top._view.line import MAX_NAME_WIDTH, Line, clip, fit, visible, with_label
from openrtc_top._view.place import place
from openrtc_top._view.style import BAD, BOLD, DIM, GOOD, PLAIN, WARN

if TYPE_CHECKING:
    from openrtc_introspect_core.wire import Block, Location, Waiter, WaitGroup, Waits

_WIDE = 10_000
_INDENT = 11
_FEW = 3
"""The waiters and holders that are shown of a group, without --all."""
_HELD = frozenset({"lock", "semaphore"})
"""The kinds of what someone always has while others wait for it."""
_FEW_CALM = 4
"""The groups that a worker in which all is well is described by."""
_STUCK_S = 30.0
"""A wait of so many seconds stands out, unless it is for something from outside."""
_MIN_PLACE, _MAX_PLACE = 28, 60
"""The cells for a place, as the terminal is wide: directories go before a column does."""

_TITLES = (
    Title("sessions", 0, right=True),
    Title("stuck", 3, right=True),
    Title("waits for", 0),
    Title("what", 4, max_width=30),
    Title("longest", 1, right=True),
    Title("where", 0, max_width=_MAX_PLACE),
)
_HELD_BY = Title("held by", 2, max_width=34)


def table(
    found: Sequence[Entry], width: int | None, *, workers: bool = False, holders: bool = False
) -> tuple[Line, list[Line]]:
    """Return the heading and a line for each group. Width None: a pipe, nothing is cut.

    workers, holders: columns for them.
    """
    titles = [*([Title("worker", 5, max_width=20)] if workers else []), *_TITLES, *([_HELD_BY] if holders else [])]
    max_place = _WIDE if width is None else min(max(2 * width // 5, _MIN_PLACE), _MAX_PLACE)
    if width is None:
        titles = [replace(title, max_width=_WIDE) for title in titles]
    rows = [
        [
            *([plain(visible(entry.name))] if workers else []),
            *_cells(entry, max_place),
            *([plain(_held_by(entry.group))] if holders else []),
        ]
        for entry in found
    ]
    return grid(titles, rows, _WIDE if width is None else width)


def _cells(entry: Entry, max_place: int) -> list[tuple[str, Style]]:
    group = entry.group
    long_s = waited_s(group.since, entry.taken_at)
    kind = WAIT_KINDS.get(group.kind)
    slow = long_s is not None and long_s >= _STUCK_S and group.stuck and not (kind and kind.idle)
    style = PLAIN if is_calm(group, entry.taken_at) else BOLD
    return [
        (str(group.sessions) if group.sessions else "-", style),
        (str(group.stuck) if group.stuck else "-", PLAIN if group.stuck else DIM),
        (visible(group.kind), style),
        plain(visible(group.what)),
        (quantity.UNKNOWN if long_s is None else quantity.lasted(long_s), BAD if slow else PLAIN),
        plain("-" if group.location is None else place(group.location, max_place)),
    ]


def _held_by(group: WaitGroup) -> str:
    if not group.holders:
        return "not seen" if group.kind in _HELD else "-"
    more = f" and {len(group.holders) - 1} more" if len(group.holders) > 1 else ""
    return holder_name(group.holders[0]) + more


class Answer(NamedTuple):
    """A worker's answer, as far as it is to be printed."""

    waits: Waits
    found: Sequence[Entry]
    """The groups to print."""
    blocks: Sequence[Block] = ()
    """What holds the loops meanwhile."""


def survey(name: str, pid: int, answer: Answer, width: int | None, *, whole: bool, chosen: bool) -> list[Line]:
    """Return an answer as a print has it: calm if all is well, else each group with who holds it and who waits.

    whole: each waiter, holder and call has its line, and all groups are printed, whether or not all is well.
    chosen: the groups were chosen, so nothing but them is printed.
    """
    waits, found = answer.waits, answer.found
    calm = all_calm(waits) and not (whole or chosen or answer.blocks)
    lines = [_heading(name, pid, waits, width, calm=calm)]
    if calm:
        return lines + _calm(found, width)
    for block in answer.blocks:
        lines += blocked_lines(block, width)
    if found:
        heading, rows = table(found, width)
        lines.append(heading)
        for entry, row in zip(found, rows, strict=True):
            lines.append(row)
            lines += about(entry, width, whole=whole)
    return lines if chosen else lines + activity_lines(waits, width, whole=whole)


def blocked_lines(block: Block, width: int | None) -> list[Line]:
    """Return what holds a loop, what that waits for, and who has it."""
    who = "no session" if block.session_id is None else clip(visible(block.session_id), 40)
    where = f" at {place(block.location, _WIDE)}" if block.location is not None else ""
    awaited = held_up(block)
    text = f"{who} has held the loop for {quantity.span(block.duration_ms)}{where}"
    return with_label("blocked", text if awaited is None else f"{text}, which {awaited}", width, 1, BAD)


def about(entry: Entry, width: int | None, *, whole: bool) -> list[Line]:
    """Return the lines below a group: who holds it, and who waits. A group in which all is well has none."""
    group, now = entry.group, entry.taken_at
    if is_calm(group, now) and not group.holders and not whole:
        return []
    lines = []
    holders = group.holders if whole else group.holders[:_FEW]
    for holder in holders:
        lines += with_label("held by", holder_text(holder, now), width, _INDENT)
    if not holders and group.kind in _HELD:
        lines += with_label("held by", "nobody that can be seen", width, _INDENT)
    if len(holders) < len(group.holders):
        lines += with_label("", f"and {len(group.holders) - len(holders)} more", width, _INDENT)
    if whole:
        for waiter in group.waiters:
            lines += with_label("waits", waiter_text(waiter, now, group.location), width, _INDENT)
        more = group.tasks - len(group.waiters)
        return lines + (with_label("", f"and {more} more tasks", width, _INDENT) if more > 0 else [])
    named = [f"{_who(waiter)}{_for(waiter, now)}" for waiter in group.waiters[:_FEW]]
    more = group.tasks - len(named)
    text = ", ".join(named) + (f" and {more} more" if more > 0 else "")
    return lines + (with_label("waiting", text, width, _INDENT) if named else [])


def waiter_text(waiter: Waiter, now: float, known: Location | None, max_place: int = _WIDE) -> str:
    """Return who waits, for how long, and where, unless that is `known`."""
    task = f", task {clip(visible(waiter.task_name), 40)}" if waiter.session_id is not None and waiter.task_name else ""
    agent = f" ({clip(visible(waiter.agent_name), 40)})" if waiter.agent_name else ""
    at = waiter.location
    where = "" if at is None or at == known else f" at {place(at, max_place)}"
    return f"{_who(waiter)}{agent}{task}{_for(waiter, now)}{where}"


def _who(waiter: Waiter) -> str:
    if waiter.session_id is not None:
        return clip(visible(waiter.session_id), 40)
    return f"task {clip(visible(waiter.task_name), 40)}"


def _for(waiter: Waiter, now: float) -> str:
    long_s = waited_s(waiter.since, now)
    return "" if long_s is None else f" for {quantity.lasted(long_s)}"


def _heading(name: str, pid: int, waits: Waits, width: int | None, *, calm: bool) -> Line:
    sessions = "1 session" if waits.sessions == 1 else f"{waits.sessions} sessions"
    parts = [(0, Line(clip(visible(name), MAX_NAME_WIDTH), BOLD)), (2, Line(f"· pid {pid}"))]
    parts.append((1, Line(f"· {sessions}, {waits.tasks} task{'' if waits.tasks == 1 else 's'}")))
    if waits.not_looked_at:
        parts.append((1, Line("· ").add(f"{waits.not_looked_at} tasks not looked at", WARN)))
    if calm:
        parts.append((0, Line("· ").add("nobody waits long for another", GOOD)))
    return fit(parts, sum(part.width + 1 for _, part in parts) if width is None else width, gap=1)


def _calm(found: Sequence[Entry], width: int | None) -> list[Line]:
    """Return what the most sessions wait for, and that this is no fault."""
    if not found:
        return labelled("", "Nothing waits.", width)
    heading, rows = table(found[:_FEW_CALM], width)
    more = len(found) - len(rows)
    text = "They wait for things from outside, or each for its own."
    if more:
        text += " 1 more group: --all lists it." if more == 1 else f" {more} more groups: --all lists them."
    return [heading, *rows, *labelled("", text, width)]
