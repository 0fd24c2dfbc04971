"""A worker's state at a moment at which it does not answer, from its black box."""

from __future__ import annotations

import math

import msgspec

from .._os.stacks import Places
from ..wire._messages import Block, Location, Meter, SessionRow, Snapshot, WorkerInfo
from ._reader import Box
from ._records import LoopState

_SAME_S = 0.1
"""Two records of one block differ by less, in seconds, in when it began: they tell wall time by two readings."""
_CAUSES = {1: "native", 2: "gil-contention"}
"""By who kept the GIL while the loop was held."""


def snapshot_now(box: Box, now: float) -> Snapshot:
    """Return the box's last snapshot with the blocks in progress of `now`, Unix time in seconds.

    The loops that are held make these blocks: of a living worker until `now`, of a dead one until its loop's last
    record. If loops have no records of their own, which a thread of C writes, the blocks are those that were in
    progress at `taken_at`, until then: nothing has looked since. Their sessions show as blocked; a session that the
    snapshot has no row of gets one, in which all but its block is unknown. `taken_at` stays that of the snapshot, so
    that its age can be told.
    """
    blocks = _in_progress(box, now)
    snapshot = box.snapshot if box.snapshot is not None else _without_record(box)
    blocked = {block.session_id: block for block in blocks if block.session_id is not None}
    rows = [_row(row, row.session_id in blocked) for row in snapshot.sessions]
    known = {row.session_id for row in rows}
    rows += [_unknown(block) for session_id, block in blocked.items() if session_id not in known]
    return msgspec.structs.replace(snapshot, sessions=rows, blocks_in_progress=blocks)


def blocks_now(box: Box, now: float) -> list[Block]:
    """Return the box's blocks, oldest first, and at the end those in progress at `now`, Unix time in seconds."""
    return [*box.blocks, *_in_progress(box, now)]


def _in_progress(box: Box, now: float) -> list[Block]:
    places = Places(folders=box.folders)
    held = [(state, name) for state, name in zip(box.loops, box.loop_names, strict=True) if state.state == "held"]
    if held:
        return [_held(box, state, name, places, now) for state, name in held]
    recorded = box.snapshot.blocks_in_progress if box.snapshot is not None else []
    # Loops that have records of their own, and are not held, have gone on since. Without such records it is not known
    # whether a block has: what the worker saw of it stays as it was then.
    return [] if box.loops else recorded


def _held(box: Box, state: LoopState, name: str | None, places: Places, now: float) -> Block:
    since = state.since if state.since is not None else state.at
    stack = state.stack
    before = _recorded_before(box, state, since)
    delayed = state.run_delay is not None
    return Block(
        seq=0,
        session_id=state.session_id if not delayed else None,
        agent_name=state.agent_name if not delayed else None,
        tenant=state.tenant if not delayed else None,
        loop=name,
        started_at=since,
        duration_ms=_milliseconds(since, now if box.alive else state.at),
        in_progress=True,
        running_since=since,
        cause=_cause(state, before),
        detail=f"run delay {1000.0 * state.run_delay:.0f} ms" if state.run_delay is not None else None,
        location=before.location if not stack and before is not None else _location(places, stack),
        stack=before.stack if not stack and before is not None else _stack(places, stack),
    )


def _cause(state: LoopState, before: Block | None) -> str | None:
    if state.run_delay is not None:
        return "descheduled"
    return _CAUSES.get(state.keeper) or (before.cause if before is not None else None)


def _recorded_before(box: Box, state: LoopState, since: float) -> Block | None:
    """Return what the worker itself has recorded of the block: it sees Python code that runs, too."""
    recorded = box.snapshot.blocks_in_progress if box.snapshot is not None else []
    same = (block for block in recorded if block.session_id == state.session_id)
    return next((block for block in same if abs(block.started_at - since) < _SAME_S), None)


def _milliseconds(start: float, end: float) -> float:
    """Return what has passed; 0 if the end is before the start, which a damaged record can say."""
    passed = 1000.0 * (end - start)
    return passed if 0.0 <= passed < math.inf else 0.0


def _location(places: Places, stack: list[Location]) -> Location | None:
    others = [call for call in stack if not places.is_own(call.file)]
    users = (call for call in reversed(others) if places.is_users(call.file))
    found = next(users, others[-1] if others else None)
    return _shown(places, found) if found is not None else None


def _stack(places: Places, stack: list[Location]) -> list[Location]:
    return [_shown(places, call) for call in stack if not places.is_own(call.file)]


def _shown(places: Places, call: Location) -> Location:
    return msgspec.structs.replace(call, file=places.shown(call.file))


def _row(row: SessionRow, blocked: bool) -> SessionRow:
    if blocked:
        return msgspec.structs.replace(row, status="blocked")
    return msgspec.structs.replace(row, status="slow") if row.status == "blocked" else row


def _unknown(block: Block) -> SessionRow:
    """Return the row of a session that began after the last snapshot, or did not fit into it."""
    return SessionRow(
        session_id=block.session_id or "",
        agent_name=block.agent_name or "",
        tenant=block.tenant,
        loop=block.loop,
        started_at=block.started_at,
        duration_s=block.duration_ms / 1000.0,
        tasks=None,
        status="blocked",
    )


def _without_record(box: Box) -> Snapshot:
    meter: Meter | None = "C" if box.meter == "C" else "Python" if box.meter == "Python" else None
    return Snapshot(
        taken_at=box.started_at,
        worker=WorkerInfo(
            name=box.worker,
            pid=box.pid,
            epoch=box.epoch,
            python=box.python,
            meter=meter,
            started_at=box.started_at,
        ),
    )
