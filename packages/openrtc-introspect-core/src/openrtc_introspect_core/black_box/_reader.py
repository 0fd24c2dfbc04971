"""Reading a black box, of a worker that lives or is dead, whatever is in the file."""

from __future__ import annotations

import os
import time
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from .._base.errors import BoxError
from .._os.stacks import Folders
from ..wire._endpoint import alone_in, sockets_available
from ..wire._messages import Block, Snapshot
from ._files import open_box, remove_dead, worker_lives
from ._layout import (
    HEADER_BYTES,
    MAX_FILE_BYTES,
    SLOT_HEAD,
    Header,
    Section,
    SlotHead,
    decode,
    unpack_header,
    unpack_slot_head,
)
from ._records import LoopState, MemoryPoint, WorkerRecord

_Record = TypeVar("_Record")

_TRIES = 20
"""Both slots of a section can be spoiled only while they are written, by a writer that is much faster than we are."""
_PAUSE_S = 0.002


@dataclass(frozen=True, slots=True, kw_only=True)
class Box:
    """What a black box says. Times are Unix time in seconds."""

    path: Path
    worker: str
    """The worker's name."""
    pid: int
    """Its process id, as the worker itself saw it."""
    epoch: str
    version: str
    """The version of openrtc-introspect-core that wrote it."""
    python: str
    """The version of the worker's interpreter."""
    meter: str | None
    """The language of its meter. None: not known."""
    started_at: float
    alive: bool
    """Whether the worker lives. False: it has ended without closing."""
    at: float
    """The time of the latest record."""
    recorded_at: float | None
    """The time of the worker's own record: of `snapshot`, `blocks` and `memory`. None: it has not come to write one."""
    snapshot: Snapshot | None
    """The worker's last snapshot, with as many rows as fitted. None: it has not come to write one."""
    rows_left_out: int = 0
    """Sessions that the snapshot has no row of."""
    blocks: list[Block] = field(default_factory=list)
    """The latest blocks that had ended, oldest first."""
    loops: list[LoopState] = field(default_factory=list)
    """The latest record of each loop that has one."""
    loop_names: list[str | None] = field(default_factory=list)
    """The names of these loops, as `Block.loop` has them. None: there was one loop only, or it is unknown."""
    threads: list[int] = field(default_factory=list)
    """The threads of all its loops, as `threading.get_ident()` gave them."""
    memory: list[MemoryPoint] = field(default_factory=list)
    """The memory once a minute, and last that of the last record."""
    folders: Folders = field(default_factory=Folders)
    """The folders that the worker's code was in."""


def read_box(path: Path | str, owner: int | None = None) -> Box:
    """Return what a black box says.

    owner: the user id that it must belong to. None: this user's; for root, anyone's.

    Raises BoxError, in one line, whatever is wrong with the file: it is not there, not private, someone else's, of
    another layout, damaged, too long, or no black box.
    """
    path = Path(path)
    if not sockets_available():
        raise BoxError(f"black box {str(path)!r}: this platform has none")
    descriptor, status = open_box(path, owner)
    try:
        return _read(path, descriptor, status)
    except BoxError as error:
        raise BoxError(f"black box {str(path)!r} {error}") from None
    except OSError as error:
        raise BoxError(f"black box {str(path)!r} cannot be read: {error.strerror or error}") from None
    finally:
        os.close(descriptor)


def _read(path: Path, descriptor: int, status: os.stat_result) -> Box:
    if status.st_size > MAX_FILE_BYTES:
        raise BoxError(f"is {status.st_size} bytes long, at most {MAX_FILE_BYTES} are read: it is no black box")
    header = unpack_header(os.pread(descriptor, HEADER_BYTES, 0))
    needed = max(offset + 2 * size for offset, size in (header.sections.worker, *header.sections.loops))
    if status.st_size < needed:
        raise BoxError(f"is truncated: it has {status.st_size} of {needed} bytes")
    alive = worker_lives(descriptor)
    record = _record(descriptor, header.sections.worker, WorkerRecord, "worker's record")
    loops = {
        index: state
        for index, section in enumerate(header.sections.loops)
        if (state := _record(descriptor, section, LoopState, f"record of loop {index}")) is not None
    }
    return _box(path, header, record or WorkerRecord(), loops, alive=alive)


def _box(
    path: Path,
    header: Header,
    record: WorkerRecord,
    loops: dict[int, LoopState],
    *,
    alive: bool,
) -> Box:
    several = len([name for name in record.names if name]) > 1
    return Box(
        path=path,
        worker=header.worker,
        pid=header.pid,
        epoch=header.epoch,
        version=header.version,
        python=header.python,
        meter=header.meter,
        started_at=header.started_at,
        alive=alive,
        at=max(header.started_at, record.at, *(state.at for state in loops.values())),
        recorded_at=record.at or None,
        snapshot=record.snapshot,
        rows_left_out=record.rows_left_out,
        blocks=record.blocks,
        loops=list(loops.values()),
        loop_names=[
            (record.names[index] or None) if several and index < len(record.names) else None for index in loops
        ],
        threads=[thread for thread in record.threads if thread],
        memory=record.memory,
        folders=header.folders,
    )


def _record(descriptor: int, section: Section, kind: type[_Record], what: str) -> _Record | None:
    """Return the section's latest record. None: it has none. Raises BoxError."""
    for attempt in range(_TRIES):
        if attempt:
            time.sleep(_PAUSE_S)
        heads = [_slot_head(descriptor, section, slot) for slot in (0, 1)]
        for slot in sorted((0, 1), key=lambda each: heads[each].number, reverse=True):
            record = _valid(descriptor, section, slot, heads[slot])
            if record is not None:
                return decode(record, kind, what)
        if not all(head.number for head in heads):  # none, or killed during the first
            return None
    raise BoxError(f"is damaged: neither slot of its {what} is what was written")


def _slot_head(descriptor: int, section: Section, slot: int) -> SlotHead:
    return unpack_slot_head(os.pread(descriptor, SLOT_HEAD.size, section.offset + slot * section.size))


def _valid(descriptor: int, section: Section, slot: int, head: SlotHead) -> bytes | None:
    """Return the slot's record if it is what was written."""
    if head.number == 0 or head.length > section.size - SLOT_HEAD.size:
        return None
    record = os.pread(descriptor, head.length, section.offset + slot * section.size + SLOT_HEAD.size)
    return record if len(record) == head.length and zlib.crc32(record) == head.crc else None


def remove_box(path: Path | str) -> None:
    """Remove a dead worker's box. Raises BoxError if it is a live worker's, no black box, or cannot be removed."""
    path = Path(path)
    try:
        with alone_in(path.parent) as alone:
            if not alone:
                raise BoxError(f"black box {str(path)!r} is not removed: another process locks its directory")
            descriptor, _ = open_box(path)
            os.close(descriptor)
            removed = remove_dead(path)
    except OSError as error:
        raise BoxError(f"black box {str(path)!r} cannot be removed: {error.strerror or error}") from None
    if not removed:
        raise BoxError(f"black box {str(path)!r} is no dead worker's: it is left alone")
