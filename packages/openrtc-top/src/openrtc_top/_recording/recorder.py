"""Following workers and writing down what they report."""

from __future__ import annotations

import gzip
import os
import signal
import stat
import time
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import anyio

from openrtc_top._client.follow import follow_target
from openrtc_top._recording.lines import Scribe

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from openrtc_top._client.targets import Target
    from openrtc_top._model.events import Event


class Sink:
    """A new file, readable by its owner only.

    A crash costs at most the line that was being written.

    Raises FileExistsError if there is one that is not to be replaced, OSError if it cannot be made.
    """

    def __init__(self, path: Path, *, replace: bool) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | (os.O_TRUNC if replace else os.O_EXCL)
        descriptor = os.open(path, flags, 0o600)
        if stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.fchmod(descriptor, 0o600)  # one that was there before may be open to others
        self._file: BinaryIO = open(descriptor, "wb")  # noqa: SIM115 - closed by close()
        self._packed = gzip.GzipFile(fileobj=self._file, mode="wb") if path.suffix == ".gz" else None

    def write(self, line: bytes) -> None:
        """Write one line through to the file. Raises OSError."""
        if self._packed is not None:
            self._packed.write(line)
            self._packed.flush()
        else:
            self._file.write(line)
        self._file.flush()

    def close(self) -> None:
        """Close the file, in any case. Raises OSError if the rest cannot be written."""
        try:
            if self._packed is not None:
                self._packed.close()
        finally:
            self._file.close()


class Recorder:
    """Records the workers of a target into a sink.

    heard: called with each event.
    """

    def __init__(self, target: Target, sink: Sink, interval_s: float, heard: Callable[[Event], None]) -> None:
        self.scribe = Scribe()
        self.problem: OSError | None = None
        """The error that ended it too early. None: it was not ended by one."""
        self._target = target
        self._sink = sink
        self._interval_s = interval_s
        self._heard = heard

    async def run(self, seconds: float | None) -> None:
        """Record for so many seconds, or until a signal."""
        self._scope = anyio.CancelScope()
        self._write(self.scribe.begin(time.time(), self._interval_s))
        # To the very end, which commands of --via may delay: a second signal must not leave them behind.
        with (
            anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM, signal.SIGHUP) as signals,
            anyio.move_on_after(seconds),
            self._scope,
        ):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._heed_signals, signals)
                await follow_target(self._target, self._interval_s, self._dispatch)
        self._write(self.scribe.end(time.time()))

    async def _heed_signals(self, signals: AsyncIterator[signal.Signals]) -> None:
        async for _ in signals:
            self._scope.cancel()
            return

    def _dispatch(self, event: Event) -> None:
        self._heard(event)
        self._write(self.scribe.line(event, time.time()))

    def _write(self, line: bytes) -> None:
        if not line or self.problem is not None:
            return
        try:
            self._sink.write(line)
        except OSError as error:
            self.problem = error
            self._scope.cancel()
