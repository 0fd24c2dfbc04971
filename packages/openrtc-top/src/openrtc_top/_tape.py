"""A recording that is looked at: which frames it has, and what the workers were at each.

A *frame* is one step of a replay: at most one snapshot of each worker, and what else was heard by then.
The file is read once to find the frames, and again where something is to be shown: it may be larger
than memory. What the workers were at a frame is what the view's reducer makes of the lines up to it, of
which it needs the last minute and what changed anything before.
"""

from __future__ import annotations

import bisect
import tempfile
import zlib
from array import array
from collections import OrderedDict
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from openrtc_top._history import HISTORY_S
from openrtc_top._recording import NotARecording, Reader, RecordingLine, epoch_of, read_entry, read_first
from openrtc_top._state import Tick, Workers, after

_CHUNK_BYTES = 1 << 20
_FIRST_LINE_BYTES = 4096
_ROWS_KEPT = 200_000
"""So many sessions are kept decoded, for going back and forth."""
_LEAST_KEPT = 12
_AHEAD = 8
_MEMORY_S = HISTORY_S + 2
"""How far back a worker's snapshots can be seen: by the second of its own clock."""


class Tape:
    """An open recording. Raises NotARecording where the file is none, OSError where it cannot be read."""

    def __init__(self, path: Path) -> None:
        self._file = _opened(path)
        try:
            self.first: RecordingLine = read_first(self._file.readline(_FIRST_LINE_BYTES))
            self._index = _index(self._file)
        except BaseException:
            self._file.close()
            raise
        self._kept: OrderedDict[int, Workers] = OrderedDict()

    @property
    def times(self) -> array[float]:
        """The moment of each frame, Unix time; not falling."""
        return self._index.times

    @property
    def cut_off(self) -> bool:
        """It has no end: the recorder was killed, or the file is not all there."""
        return self._index.cut_off

    def workers(self, frame: int) -> Workers:
        """What the workers were at this frame, 0 being the first."""
        if frame in self._kept:
            self._kept.move_to_end(frame)
            return self._kept[frame]
        # Whoever goes back wants the frames before this one next: what leads to it is kept as well.
        first = max(0, frame - _AHEAD)
        known = next((earlier for earlier in range(frame - 1, first - 1, -1) if earlier in self._kept), None)
        if known is None:
            known = first
            self._keep(first, self._read(0, first, ()))
        workers = self._kept[known]
        for later in range(known + 1, frame + 1):
            workers = self._read(self._index.ends[later - 1], later, workers)
            self._keep(later, workers)
        return workers

    def _read(self, start: int, frame: int, workers: Workers) -> Workers:
        """The workers at this frame, from what they were at the line `start`."""
        reader = Reader()
        for number in self._index.read_for(start, self._index.ends[frame]):
            self._file.seek(self._index.offsets[number])
            entry = read_entry(self._file.readline())
            if entry is None:  # the file is another one by now
                continue
            event = reader.event(entry)
            if number >= start:
                workers = after(workers, Tick(entry.at), entry.at)
                workers = workers if event is None else after(workers, event, entry.at)
        return workers

    def _keep(self, frame: int, workers: Workers) -> None:
        self._kept[frame] = workers
        rows = sum(len(worker.snapshot.sessions) for worker in workers if worker.snapshot) or 1
        while len(self._kept) > max(_LEAST_KEPT, _ROWS_KEPT // rows):
            self._kept.popitem(last=False)

    def __enter__(self) -> Tape:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


@dataclass(slots=True)
class _Index:
    offsets: array[int] = field(default_factory=lambda: array("q"))
    """Where each line begins."""
    times: array[float] = field(default_factory=lambda: array("d"))
    """Of each frame."""
    ends: array[int] = field(default_factory=lambda: array("q"))
    """The number of lines up to each frame's end."""
    snapshots: dict[int, int] = field(default_factory=dict)
    """The lines that are snapshots, with their worker."""
    heard: array[float] = field(default_factory=lambda: array("d"))
    """The moment of each line."""
    turns: set[int] = field(default_factory=set)
    """Snapshots that are the first of a worker's start."""
    introductions: list[int] = field(default_factory=list)
    """The lines that give a worker its number."""
    cut_off: bool = True

    def read_for(self, start: int, end: int) -> list[int]:
        """The lines to read for what was at `end`, in order. What was at `start` is known, if that is not 0."""
        if start:
            introduced = self.introductions[: bisect.bisect_left(self.introductions, start)]
            return [*introduced, *range(start, end)]
        last: dict[int, float] = {}
        for number in range(end):
            if (worker := self.snapshots.get(number)) is not None:
                last[worker] = self.heard[number]
        return [number for number in range(end) if self._matters(number, last)]

    def _matters(self, number: int, last: dict[int, float]) -> bool:
        """Whether a line can be seen in what came of it. Of snapshots, those of a worker's last minute can."""
        worker = self.snapshots.get(number)
        return worker is None or number in self.turns or self.heard[number] >= last[worker] - _MEMORY_S


def _index(file: BinaryIO) -> _Index:
    """Reads the file from where it is to its end, or to the first line that is broken."""
    index = _Index()
    seen: set[int] = set()
    epochs: dict[int, str] = {}
    offset = file.tell()
    at = -float("inf")

    def end_frame() -> None:
        index.times.append(at)
        index.ends.append(len(index.offsets))

    for line in file:
        entry = read_entry(line) if line.endswith(b"\n") else None
        if entry is None:
            break
        if entry.type == "end":
            index.cut_off = False
            break
        if (epoch := epoch_of(entry)) is not None:
            if entry.worker in seen:
                end_frame()
                seen.clear()
            seen.add(entry.worker)
            number = len(index.offsets)
            index.snapshots[number] = entry.worker
            if epochs.get(entry.worker) != epoch:
                epochs[entry.worker] = epoch
                index.turns.add(number)
        elif entry.type == "worker":
            index.introductions.append(len(index.offsets))
        at = max(at, entry.at)
        index.offsets.append(offset)
        index.heard.append(at)
        offset += len(line)
    if seen:
        end_frame()
    return index


def _opened(path: Path) -> BinaryIO:
    """The file, or what it unpacks to, up to where it is broken."""
    file = path.open("rb")
    if file.read(2) != b"\x1f\x8b":
        file.seek(0)
        return file
    file.seek(0)
    with file:
        unpacked = tempfile.TemporaryFile()  # noqa: SIM115 - it is the caller's to close
        unpack = zlib.decompressobj(wbits=31)
        try:
            while chunk := file.read(_CHUNK_BYTES):
                unpacked.write(unpack.decompress(chunk))
        except zlib.error:
            pass  # up to here it is good
        unpacked.seek(0)
        return unpacked


__all__ = ["NotARecording", "Tape"]
