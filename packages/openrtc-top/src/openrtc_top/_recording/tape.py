"""A recording for replay: which frames it has, and the workers at each of them.

A *frame* is one step of a replay: at most one snapshot of each worker, and what else was heard by then.
The file may be larger than memory, so it is read once to find the frames, and again to show one of them. The view's
reducer makes the workers at a frame of the lines up to it: those of the last minute, and earlier ones that still
matter.
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

from openrtc_top._model.events import Tick
from openrtc_top._model.history import HISTORY_S
from openrtc_top._model.reducer import update_workers
from openrtc_top._model.workers import Workers
from openrtc_top._recording.lines import NotARecording, Reader, RecordingLine, epoch_of, read_entry, read_first

_CHUNK_BYTES = 1 << 20
_FIRST_LINE_BYTES = 4096
_MAX_ROWS_KEPT = 200_000
"""The number of sessions that are kept decoded, for going back and forth."""
_MIN_FRAMES_KEPT = 12
_FRAMES_BEFORE = 8
"""The number of frames before the wanted one that are kept as well, for going back."""
_MEMORY_S = HISTORY_S + 2
"""A worker's snapshots show for so long, by the seconds of its own clock."""


class Tape:
    """An open recording.

    Raises NotARecording if the file is none, OSError if it cannot be read.
    """

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
        """The moment of each frame, Unix time, in ascending order."""
        return self._index.times

    @property
    def cut_off(self) -> bool:
        """The file has no end line: the recorder was killed, or a part of the file is missing."""
        return self._index.cut_off

    def workers(self, frame: int) -> Workers:
        """Return the workers at this frame, 0 being the first."""
        if frame in self._kept:
            self._kept.move_to_end(frame)
            return self._kept[frame]
        first = max(0, frame - _FRAMES_BEFORE)
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
        """Return the workers at this frame, from what they were at the line `start`."""
        reader = Reader()
        for number in self._index.read_for(start, self._index.ends[frame]):
            self._file.seek(self._index.offsets[number])
            entry = read_entry(self._file.readline())
            if entry is None:  # the file is another one by now
                continue
            event = reader.event(entry)
            if number >= start:
                workers = update_workers(workers, Tick(entry.at), entry.at)
                workers = workers if event is None else update_workers(workers, event, entry.at)
        return workers

    def _keep(self, frame: int, workers: Workers) -> None:
        self._kept[frame] = workers
        rows = sum(len(worker.snapshot.sessions) for worker in workers if worker.snapshot) or 1
        while len(self._kept) > max(_MIN_FRAMES_KEPT, _MAX_ROWS_KEPT // rows):
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
    """The moment of each frame."""
    ends: array[int] = field(default_factory=lambda: array("q"))
    """The number of lines up to each frame's end."""
    snapshots: dict[int, int] = field(default_factory=dict)
    """The lines that are snapshots, with their worker's number."""
    heard: array[float] = field(default_factory=lambda: array("d"))
    """The moment of each line."""
    first_of_epoch: set[int] = field(default_factory=set)
    """The snapshots that are the first since their worker started."""
    introductions: list[int] = field(default_factory=list)
    """The lines that give a worker its number."""
    cut_off: bool = True

    def read_for(self, start: int, end: int) -> list[int]:
        """Return the lines to read for the workers at `end`, in order.

        Those at `start` are known, if that is not 0.
        """
        if start:
            introduced = self.introductions[: bisect.bisect_left(self.introductions, start)]
            return [*introduced, *range(start, end)]
        last: dict[int, float] = {}
        for number in range(end):
            if (worker := self.snapshots.get(number)) is not None:
                last[worker] = self.heard[number]
        return [number for number in range(end) if self._matters(number, last)]

    def _matters(self, number: int, last: dict[int, float]) -> bool:
        """Return whether a line still shows.

        Of a worker's snapshots, those of its last minute do.
        """
        worker = self.snapshots.get(number)
        return worker is None or number in self.first_of_epoch or self.heard[number] >= last[worker] - _MEMORY_S


def _index(file: BinaryIO) -> _Index:
    """Index the file, up to its end or to the first line that is broken."""
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
                index.first_of_epoch.add(number)
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
    """Return the file, or what it unpacks to, as far as it is not broken."""
    file = path.open("rb")
    if file.read(2) != b"\x1f\x8b":
        file.seek(0)
        return file
    file.seek(0)
    with file:
        unpacked = tempfile.TemporaryFile()  # noqa: SIM115 - the caller closes it
        unpack = zlib.decompressobj(wbits=31)
        try:
            while chunk := file.read(_CHUNK_BYTES):
                unpacked.write(unpack.decompress(chunk))
        except zlib.error:
            pass  # what came before is good
        unpacked.seek(0)
        return unpacked


__all__ = ["NotARecording", "Tape"]
