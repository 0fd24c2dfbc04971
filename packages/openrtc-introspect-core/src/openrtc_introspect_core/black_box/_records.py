"""The records of a black box, in JSON: one of the worker, one of each loop.

docs/black-box.md is the contract. Its tables of fields are made from the docstrings below. Times are Unix time in
seconds. Unknown fields are ignored, and a field that is missing has its default.
"""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

from ..wire._messages import Block, Location, Snapshot
from ._layout import MAX_LOOPS

Time = Annotated[float, Meta(ge=0.0, le=1e11)]
Seconds = Annotated[float, Meta(ge=0.0, le=1e11)]
LoopStateName = Literal["held", "free", "quiet"]

MAX_BLOCKS = 32
"""The blocks that a worker's record has, the latest ones."""
MAX_POINTS = 61
"""Sixty minutes of memory, and the point of now."""


class LoopState(Struct, frozen=True, kw_only=True):
    """The record of one loop."""

    at: Time = 0.0
    """The time at which the record was written."""
    state: LoopStateName = "quiet"
    """`"held"`: something has held the loop since `since`, for longer than the threshold. `"free"`: steps run, none of
    them for that long. `"quiet"`: the loop waits for something to happen."""
    since: Time | None = None
    """The time since which the loop is held. Null: it is not held."""
    keeper: int = 0
    """The thread that kept the GIL when the stack was taken. 0: unknown; 1: the loop's own; 2: another."""
    run_delay: Seconds | None = None
    """Seconds since `since` in which the loop's thread was ready and the host did not run it, if that is why it is
    held: most of the time, and what is known of the rest is within the threshold. Null: it is not, or is not known."""
    session_id: str | None = None
    """The session that holds the loop. Null: an untagged task or a callback does, or the loop is not held."""
    agent_name: str | None = None
    """That session's agent. Null: as `session_id`."""
    tenant: str | None = None
    """That session's tenant. Null: as `session_id`, or the session has none."""
    stack: list[Location] = []
    """The calls that hold the loop, the innermost last; files as the interpreter names them. Empty: not captured."""


class MemoryPoint(Struct, frozen=True, kw_only=True):
    """The process's memory at one time."""

    at: Time
    """The time at which it was read."""
    rss_mb: float
    """The process's resident memory, MB."""


class WorkerRecord(Struct, frozen=True, kw_only=True):
    """The record of the worker."""

    at: Time = 0.0
    """The time at which the record was written."""
    threads: Annotated[list[int], Meta(max_length=MAX_LOOPS)] = []
    """For each loop's section, the thread that runs the loop, as `threading.get_ident()` gives it. 0: the section
    belongs to no loop."""
    names: Annotated[list[str], Meta(max_length=MAX_LOOPS)] = []
    """For each loop's section, the loop's name. Empty: the section belongs to no loop."""
    memory: Annotated[list[MemoryPoint], Meta(max_length=MAX_POINTS)] = []
    """The memory once a minute, for the last hour at most, and last that of now."""
    blocks: Annotated[list[Block], Meta(max_length=MAX_BLOCKS)] = []
    """The latest blocks that have ended, oldest first, at most 32."""
    snapshot: Snapshot | None = None
    """The worker's [snapshot](wire-protocol.md#snapshot) of this moment. Null: there is none."""
    rows_left_out: Annotated[int, Meta(ge=0)] = 0
    """Sessions that the snapshot has no row of, because they do not fit. Those that hold a loop come first."""
