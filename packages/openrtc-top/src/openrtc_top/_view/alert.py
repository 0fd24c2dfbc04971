"""The line that says what is wrong now, and where in the code."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from openrtc_top._model.blocks import Entry, at_least, entries
from openrtc_top._model.state import State
from openrtc_top._model.workers import Worker
from openrtc_top._view import quantity
from openrtc_top._view.findings import findings_line
from openrtc_top._view.holder import holder_name
from openrtc_top._view.line import MAX_NAME_WIDTH, Line, clip, fit, visible
from openrtc_top._view.place import place
from openrtc_top._view.style import ALERT, BAD, BOLD, WARN

if TYPE_CHECKING:
    from openrtc_introspect_core.wire import Delayed, SessionRow, Snapshot

_SEVERITIES: tuple[str, ...] = ("critical", "warning", "note")
RECENT_S = 5.0
"""A block is shown for so long after it ended: as long as its session shows as slow by default."""

_WANTED_PLACE = 38
_BEFORE_PLACE = 28
"""The cells for the duration and the session, which stand before the place."""
_TWO_PLACES = 140
"""The cells from which on there is room for the holder's place beside the block's."""


def alert(state: State, width: int) -> list[Line]:
    """Return the most urgent line, or none.

    It is a block now, else one a moment ago, else a failed session, else a finding.
    """
    several = len(state.workers) > 1
    live = [(worker, worker.snapshot) for worker in state.workers if worker.snapshot and worker.gone is None]
    running = [entry for worker, snapshot in live for entry in entries(worker.key, worker.name, (), snapshot)]
    if running:
        longest = max(running, key=lambda entry: entry.lasted_ms)
        line = fit(_blocked(longest, len(running) - 1, width, several=several), width)
        return [line.filled(width, ALERT)]
    recent = [entry for worker, snapshot in live for entry in _recent(worker, snapshot)]
    if recent:
        longest = max(recent, key=lambda entry: entry.lasted_ms)
        return [fit(_was_blocked(longest, len(recent) - 1, width, several=several), width)]
    slow = [
        (worker, session)
        for worker, snapshot in live
        for session in snapshot.sessions
        if session.status == "slow" and session.blocks
    ]
    if slow:
        owner, worst = max(slow, key=lambda found: found[1].worst_block_ms)
        return [fit(_was_slow(worst, owner if several else None, len(slow) - 1), width)]
    failed = [(worker, session) for worker, snapshot in live for session in snapshot.sessions if session.error]
    if not failed:
        return _found(live, width, several=several)
    owner, last = max(failed, key=lambda found: found[1].started_at + found[1].duration_s)
    return [fit(_has_failed(last, owner if several else None, len(failed) - 1, width), width)]


def _found(live: Sequence[tuple[Worker, Snapshot]], width: int, *, several: bool) -> list[Line]:
    """Return the worst finding of all workers, as a line; none if there is none."""
    diagnosed = [(worker, worker.diagnosis.findings) for worker, _ in live if worker.diagnosis.findings]
    if not diagnosed:
        return []
    worker, findings = min(diagnosed, key=lambda found: _SEVERITIES.index(found[1][0].severity))
    return findings_line(findings, width, worker=worker.name if several else None)


def _recent(worker: Worker, snapshot: Snapshot) -> list[Entry]:
    """Return the blocks that ended in the last seconds before the snapshot."""
    since = snapshot.taken_at - RECENT_S
    found = [block for block in worker.blocks if block.started_at + block.duration_ms / 1000 > since]
    return entries(worker.key, worker.name, found, None)


def _blocked(entry: Entry, others: int, width: int, *, several: bool) -> list[tuple[int, Line]]:
    parts = [(0, Line(f" BLOCKED {quantity.span(entry.lasted_ms)}"))]
    parts += _who_and_where(entry, width, several=several)
    if entry.block.delayed:
        parts.append((4, Line(f"{_sessions(entry.block.delayed)} waiting")))
    return [*parts, (2, Line(f"and {others} more"))] if others else parts


def _was_blocked(entry: Entry, others: int, width: int, *, several: bool) -> list[tuple[int, Line]]:
    parts = [(0, Line(" SLOW", WARN).add(" ").add(quantity.span(entry.lasted_ms), BOLD))]
    parts += _who_and_where(entry, width, several=several)
    if entry.block.delayed:
        parts.append((4, Line(f"{_sessions(entry.block.delayed)} waited")))
    return [*parts, (7, Line(f"and {others} shorter"))] if others else parts


def _who_and_where(entry: Entry, width: int, *, several: bool) -> list[tuple[int, Line]]:
    block = entry.block
    parts = [(5, Line(clip(visible(entry.name), MAX_NAME_WIDTH)))] if several else []
    if block.session_id is not None:
        parts.append((0, Line(clip(visible(block.session_id), 40), BOLD)))
        if block.agent_name:
            parts.append((6, Line(clip(visible(block.agent_name), 24))))
    else:
        parts.append((0, Line("no session")))
        parts += [(6, Line(f"task {clip(visible(block.task_name), 40)}"))] if block.task_name else []
    if block.location:
        room = max(width // 2, min(_WANTED_PLACE, width - _BEFORE_PLACE))
        if block.holder is not None and width < _TWO_PLACES:  # its name says more than directories and the function
            room = min(room, width // 3)
        parts.append((0, Line(place(block.location, room))))
    elif block.detail:
        parts.append((1, Line(clip(visible(block.detail), width // 2))))
    if block.holder is not None:
        held_at = block.holder.taken_at or block.holder.location
        at = f" at {place(held_at, _WANTED_PLACE)}" if held_at is not None and width >= _TWO_PLACES else ""
        parts.append((1, Line(f"held by {holder_name(block.holder)}{at}")))
    if block.cause:
        parts.append((3, Line(f"({visible(block.cause)})")))
    return parts


def _sessions(delayed: list[Delayed]) -> str:
    return "1 session" if len(delayed) == 1 else f"{at_least(delayed)} sessions"


def _was_slow(session: SessionRow, worker: Worker | None, others: int) -> list[tuple[int, Line]]:
    parts = [(0, Line(" SLOW", WARN))]
    if worker:
        parts.append((4, Line(clip(visible(worker.name), MAX_NAME_WIDTH))))
    parts.append((0, Line(clip(visible(session.session_id), 40), BOLD)))
    parts.append((3, Line(clip(visible(session.agent_name), 24))))
    parts.append((1, Line("worst block ").add(quantity.span(session.worst_block_ms), BOLD)))
    parts.append((2, Line("1 block" if session.blocks == 1 else f"{session.blocks} blocks")))
    return [*parts, (5, Line(f"and {others} more slow"))] if others else parts


def _has_failed(session: SessionRow, worker: Worker | None, others: int, width: int) -> list[tuple[int, Line]]:
    parts = [(0, Line(" ERRORED", BAD))]
    if worker:
        parts.append((4, Line(clip(visible(worker.name), MAX_NAME_WIDTH))))
    parts.append((0, Line(clip(visible(session.session_id), 40), BOLD)))
    parts.append((3, Line(clip(visible(session.agent_name), 24))))
    parts.append((0, Line(clip(visible(session.error or ""), max(width // 2, width - 60)))))
    return [*parts, (5, Line(f"and {others} more errored"))] if others else parts
