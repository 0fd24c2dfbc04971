"""The worker's side of its black box.

Records are written by `pwrite` alone, which releases the GIL and stores into no mapped page: a file system that is slow
holds no loop and no thread of the host's. No method waits for a write of another thread.
"""

from __future__ import annotations

import atexit
import contextlib
import errno
import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import msgspec

from ..wire._endpoint import file_identity
from ._files import create_box
from ._layout import (
    LOOP_SLOT_BYTES,
    MAX_LOOPS,
    SECTIONS,
    SLOT_HEAD,
    WORKER_SLOT_BYTES,
    Header,
    Section,
    pack_header,
    pack_slot,
)
from ._records import LoopState

MAX_WORKER_RECORD = WORKER_SLOT_BYTES - SLOT_HEAD.size
"""The longest record of a worker, bytes."""
_MAX_LOOP_RECORD = LOOP_SLOT_BYTES - SLOT_HEAD.size
_UNWRITTEN = bytes(SLOT_HEAD.size)


class BoxWriter:
    """The black box of one worker, from its start to its end.

    socket: the path of the worker's socket. None: it serves none.

    Raises BoxError or OSError if the box cannot be made; then nothing is left behind.
    """

    def __init__(self, header: Header, socket: Path | None = None) -> None:
        self.fd, self.path = create_box(header.worker, socket)
        """fd: the descriptor of the file, locked; -1 once it is closed."""
        self._file = file_identity(self.path)
        self._numbers: dict[Section, int] = {}
        self._lock = threading.Lock()
        self._closed = False
        self._free = list(range(MAX_LOOPS))
        """Loops' sections that are free to be taken, the first one first."""
        self._used: list[int] = []
        """Those that were given back: what is in them is to be erased before they are taken again."""
        try:
            self._pwrite(pack_header(header), 0)
        except BaseException:
            self.remove()
            os.close(self.fd)
            raise
        _open.add(self)
        _remove_at_a_process_s_end()

    # --- the loops' sections ---------------------------------------------------------------------

    def take_loop(self) -> int | None:
        """Return the index of a loop's section for a loop that is being attached. None: all are taken."""
        with contextlib.suppress(IndexError):
            return self._free.pop(0)
        return None

    def give_loop_back(self, index: int) -> None:
        """Take back the section of a loop that was detached, once nothing writes to it any more."""
        self._used.append(index)

    def loop_section(self, index: int) -> tuple[int, int]:
        """Return the place of a loop's section in the file: its offset, and the bytes of one of its two slots."""
        offset, size = SECTIONS.loops[index]
        return offset, size

    # --- writing, on a thread of ours ------------------------------------------------------------

    def write_worker(self, record: bytes) -> None:
        """Write the record of the worker, JSON of at most MAX_WORKER_RECORD bytes. Raises OSError."""
        self._write(SECTIONS.worker, record)

    def write_loop(self, index: int, state: LoopState) -> None:
        """Write the record of a loop, with as much of its stack as fits. Raises OSError."""
        record = msgspec.json.encode(state)
        if len(record) > _MAX_LOOP_RECORD:
            inner = state.stack[-16:]
            record = msgspec.json.encode(msgspec.structs.replace(state, stack=inner))
            if len(record) > _MAX_LOOP_RECORD:
                record = msgspec.json.encode(msgspec.structs.replace(state, stack=[]))
        self._write(SECTIONS.loops[index], record)

    def erase_used(self) -> None:
        """Erase the sections of loops that were detached, so that they can be taken again. Raises OSError."""
        while True:
            try:
                index = self._used.pop()
            except IndexError:
                return
            offset, size = SECTIONS.loops[index]
            with self._writing():
                self._pwrite(_UNWRITTEN, offset)
                self._pwrite(_UNWRITTEN, offset + size)
                self._numbers.pop(SECTIONS.loops[index], None)
            self._free.append(index)

    def _write(self, section: Section, record: bytes) -> None:
        with self._writing():
            number = self._numbers.get(section, 0) + 1
            self._pwrite(pack_slot(number, record), section.offset + (number % 2) * section.size)
            self._numbers[section] = number

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            with self._lock:
                yield
        finally:
            self._close_if_unused()

    def _is_open(self) -> bool:
        """Return whether the descriptor still is the box's: a host may close those that it does not know."""
        return self._file is not None and file_identity(self.fd) == self._file

    def _pwrite(self, data: bytes, offset: int) -> None:
        if self.fd < 0:
            return
        if not self._is_open():
            raise OSError(errno.EBADF, "its descriptor was closed by other code of this process")
        written = os.pwrite(self.fd, data, offset)
        if written < len(data):  # the disk is full: the next write would say so
            os.pwrite(self.fd, data[written:], offset + written)

    # --- ending ----------------------------------------------------------------------------------

    def remove(self) -> None:
        """Remove the file, unless another's is there by now."""
        _open.discard(self)
        if self._file == file_identity(self.path):
            with contextlib.suppress(OSError):
                self.path.unlink()

    def close(self) -> None:
        """Close the file, at once or after a write that is under way. Idempotent."""
        _open.discard(self)
        self._closed = True
        self._close_if_unused()

    def _close_if_unused(self) -> None:
        if self._closed and self._lock.acquire(blocking=False):
            try:
                if self._is_open():
                    os.close(self.fd)
                self.fd = -1
            finally:
                self._lock.release()

    def abandon_after_fork(self) -> None:
        """Close the file in a forked child: it is the parent's, who keeps the lock on it."""
        _open.discard(self)
        if self._is_open():
            os.close(self.fd)
        self.fd = -1
        self._closed = True


_open: set[BoxWriter] = set()
"""The boxes of introspectors that were not closed."""


def died_of_memory(error: BaseException | None) -> bool:
    """Return whether an exception that ends a worker is for want of memory, alone or in a group."""
    if isinstance(error, BaseExceptionGroup):
        return any(map(died_of_memory, error.exceptions))
    return isinstance(error, MemoryError)


def _at_exit() -> None:
    if not died_of_memory(getattr(sys, "last_value", None)):
        for box in list(_open):
            box.remove()


def _remove_at_a_process_s_end() -> None:
    """Have the boxes removed at the end of a child of multiprocessing, too, where nothing is called at exit."""
    util = sys.modules.get("multiprocessing.util")
    if util is not None and _ends_with_process != [os.getpid()]:
        _ends_with_process[:] = [os.getpid()]
        util.Finalize(None, _at_exit, exitpriority=0)


_ends_with_process: list[int] = []
"""The process in which multiprocessing calls `_at_exit`."""

atexit.register(_at_exit)
