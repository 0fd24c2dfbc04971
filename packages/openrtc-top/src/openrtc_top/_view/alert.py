"""The line that says what is wrong now: who holds a loop, where in the code, and for how long."""

from __future__ import annotations

from typing import TYPE_CHECKING

from openrtc_top._state import State, Worker
from openrtc_top._view import quantity
from openrtc_top._view.line import NAME_MOST, Line, clip, fit, visible
from openrtc_top._view.style import ALERT, BOLD, WARN

if TYPE_CHECKING:
    from openrtc_introspect_core.wire import Block, Location, SessionRow, Snapshot


def alert(state: State, width: int) -> list[Line]:
    """Who holds a loop now; if nobody does, who did a moment ago."""
    several = len(state.workers) > 1
    live = [(worker, worker.snapshot) for worker in state.workers if worker.snapshot and worker.gone is None]
    running = [(worker, snapshot, block) for worker, snapshot in live for block in snapshot.blocks_in_progress]
    if running:
        worker, snapshot, block = max(running, key=lambda found: _lasted_ms(found[1], found[2]))
        parts = _blocked(snapshot, block, width, worker if several else None)
        if len(running) > 1:
            parts.append((2, Line(f"and {len(running) - 1} more", ALERT)))
        line = fit(parts, width)
        return [line.filled(width, ALERT)]
    slow = [
        (worker, session)
        for worker, snapshot in live
        for session in snapshot.sessions
        if session.status == "slow" and session.blocks
    ]
    if not slow:
        return []
    owner, worst = max(slow, key=lambda found: found[1].worst_block_ms)
    return [fit(_was_slow(worst, owner if several else None, len(slow) - 1), width)]


def _lasted_ms(snapshot: Snapshot, block: Block) -> float:
    """By the worker's clock alone: the moment of the snapshot against the start of the step."""
    if block.running_since is None:
        return block.duration_ms
    return max(0.0, (snapshot.taken_at - block.running_since) * 1000)


def _blocked(snapshot: Snapshot, block: Block, width: int, worker: Worker | None) -> list[tuple[int, Line]]:
    parts = [(0, Line(f" BLOCKED {quantity.span(_lasted_ms(snapshot, block))}"))]
    if worker:
        parts.append((5, Line(clip(visible(worker.name), NAME_MOST))))
    if block.session_id is not None:
        parts.append((0, Line(clip(visible(block.session_id), 40))))
        parts.append((4, Line(clip(visible(block.agent_name or ""), 24))))
    else:
        parts.append((0, Line("no session")))
        parts += [(4, Line(f"task {clip(visible(block.task_name), 40)}"))] if block.task_name else []
    if block.location:
        parts.append((0, Line(_place(block.location, width))))
    if block.cause:
        parts.append((3, Line(f"({visible(block.cause)})")))
    if block.delayed:
        noun = "session" if len(block.delayed) == 1 else "sessions"
        parts.append((6, Line(f"{len(block.delayed)} {noun} waiting")))
    return parts


def _place(location: Location, width: int) -> str:
    """file:line in function; of a long path what tells most, the end."""
    names = location.file.split("/")
    for kept in (len(names), 2, 1):
        file = location.file if kept >= len(names) else "/".join(names[-kept:])
        place = visible(f"{file}:{location.line} in {location.function}")
        if len(place) <= width // 2:
            break
    return place


def _was_slow(session: SessionRow, worker: Worker | None, others: int) -> list[tuple[int, Line]]:
    parts = [(0, Line(" SLOW", WARN))]
    if worker:
        parts.append((4, Line(clip(visible(worker.name), NAME_MOST))))
    parts.append((0, Line(clip(visible(session.session_id), 40), BOLD)))
    parts.append((3, Line(clip(visible(session.agent_name), 24))))
    parts.append((1, Line("worst block ").add(quantity.span(session.worst_block_ms), BOLD)))
    parts.append((2, Line("1 block" if session.blocks == 1 else f"{session.blocks} blocks")))
    return [*parts, (5, Line(f"and {others} more slow"))] if others else parts
