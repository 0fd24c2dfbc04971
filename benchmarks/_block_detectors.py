"""Detectors of blocks: ours and others, with their defaults but one threshold.

Each of the others is scored only on what it claims to report.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import sysconfig
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from openrtc_introspect_core.wire import Block, Location

from ._block_plan import THRESHOLD_S
from ._subjects import Core, Subject, make

CLAIMS: dict[str, tuple[str, ...]] = {
    "exact": ("session", "line", "cause"),
    "openrtc": ("session",),
    "livekit-agents": ("line",),
    "asyncio debug": (),
    "pyleak": ("line",),
}
"""What each detector reports beside the block itself and its duration."""


@dataclass(slots=True)
class Report:
    """One block as a detector reported it. Times are Unix time, in seconds."""

    start: float
    end: float
    session_id: str | None = None
    file: str = ""
    line: int = 0
    function: str = ""
    cause: str | None = None
    detail: str | None = None

    @property
    def length(self) -> float:
        return self.end - self.start

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    def as_block(self) -> Block:
        """Return the block as a worker would send it."""
        location = Location(self.file, self.line, self.function) if self.file else None
        return Block(seq=0, session_id=self.session_id, cause=self.cause, location=location)


class Detector:
    """A detector on the running loop."""

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    def reports(self) -> list[Report]:
        raise NotImplementedError


class Ours(Detector):
    def __init__(self, subject: Core) -> None:
        self._subject = subject
        self._seen = 0
        self._reports: list[Report] = []

    def poll(self) -> None:
        """Take the new blocks, before the history drops old ones."""
        for block in self._subject.introspector.blocks(since=self._seen):
            self._seen = block.seq
            one = Report(block.started_at, block.started_at + block.duration_ms / 1000.0, block.session_id)
            one.cause, one.detail = block.cause, block.detail
            if block.location is not None:
                one.file, one.line, one.function = block.location.file, block.location.line, block.location.function
            self._reports.append(one)

    def reports(self) -> list[Report]:
        self.poll()
        return self._reports


class Log(logging.Handler, Detector):
    """A detector whose only output is the log."""

    name_of_logger = ""
    message_part = ""

    def __init__(self) -> None:
        super().__init__()
        self._reports: list[Report] = []
        logging.getLogger(self.name_of_logger).addHandler(self)
        logging.getLogger(self.name_of_logger).propagate = False

    def emit(self, record: logging.LogRecord) -> None:
        if self.message_part in record.msg and isinstance(record.args, tuple):
            self._record(record.created, record.args)

    def _record(self, when: float, arguments: tuple[Any, ...]) -> None:
        raise NotImplementedError

    def reports(self) -> list[Report]:
        return self._reports


class OpenRtc(Log):
    """The peer, which reports a block only as a log line.

    Its runtime is the scene's subject.
    """

    name_of_logger = "openrtc"
    message_part = "blocked event loop"

    def _record(self, when: float, arguments: tuple[Any, ...]) -> None:
        session_id, milliseconds = arguments
        self._reports.append(
            Report(when - float(milliseconds) / 1000.0, when, None if session_id is None else str(session_id))
        )


class AsyncioDebug(Log):
    """asyncio's debug mode: "Executing <Task ...> took 0.120 seconds".

    The message names the task, but neither a session nor the line.
    """

    name_of_logger = "asyncio"
    message_part = "Executing"

    async def start(self) -> None:
        loop = asyncio.get_running_loop()
        loop.slow_callback_duration = THRESHOLD_S
        loop.set_debug(True)

    def _record(self, when: float, arguments: tuple[Any, ...]) -> None:
        self._reports.append(Report(when - float(arguments[1]), when))


class LiveKit(Detector):
    """livekit-agents' telemetry.loop_monitor, without its limit of reports.

    By default the limit is 30 reports a minute.
    """

    def __init__(self) -> None:
        self._reports: list[Report] = []

    async def start(self) -> None:
        from livekit.agents.telemetry import loop_monitor

        logging.getLogger("livekit.agents").disabled = True
        loop_monitor.MAX_SPANS_PER_MINUTE = 1_000_000
        thresholds = loop_monitor.LoopMonitorThresholds(warn=THRESHOLD_S, error=10.0)
        start: Any = loop_monitor.start_monitoring
        self._monitor = start(asyncio.get_running_loop(), thresholds=thresholds)
        self._monitor._on_report = self._record

    async def stop(self) -> None:
        self._monitor.stop()

    def _record(self, report: Any) -> None:
        end = time.time()
        frames = re.findall(r'File "(.+?)", line (\d+), in (\S+)', report.stacks[-1]) if report.stacks else []
        place = _own_frame([(file, int(line), function) for file, line, function in frames])
        self._reports.append(Report(end - report.duration, end, None, *place))

    def reports(self) -> list[Report]:
        return self._reports


class Pyleak(Detector):
    """pyleak's no_event_loop_blocking around everything.

    It samples five times as often as by default.
    """

    async def start(self) -> None:
        import pyleak

        logging.getLogger("pyleak.eventloop").disabled = True
        watching: Any = pyleak.no_event_loop_blocking
        self._manager = watching(action="log", threshold=THRESHOLD_S, check_interval=0.01)
        await self._manager.__aenter__()
        self._blocks: list[Any] = self._manager.detector.detected_blocks

    async def stop(self) -> None:
        await self._manager.__aexit__(None, None, None)

    def reports(self) -> list[Report]:
        found = []
        for block in self._blocks:
            frames = [(frame.filename, frame.lineno or 0, frame.name) for frame in block.blocking_stack or ()]
            found.append(Report(block.timestamp - block.duration, block.timestamp, None, *_own_frame(frames)))
        return found


def _own_frame(frames: Sequence[tuple[str, int, str]]) -> tuple[str, int, str]:
    """Return the innermost frame that is the user's own, as our reports do.

    Frames of the standard library and of installed packages are not the user's own.
    """
    installed = tuple(sysconfig.get_paths()[key] + os.sep for key in ("stdlib", "purelib", "platlib"))
    for file, line, function in reversed(frames):
        if not file.startswith((*installed, "<frozen ")):
            return file, line, function
    return frames[-1] if frames else ("", 0, "")


def subject_for(names: Sequence[str]) -> Subject:
    """Return the subject that opens the sessions' scopes while these detectors run."""
    return make("exact" if "exact" in names else "peer" if "openrtc" in names else "bare")


def detector(name: str, subject: Subject) -> Detector:
    if isinstance(subject, Core):
        return Ours(subject)
    makers: dict[str, type[Detector]] = {
        "openrtc": OpenRtc, "livekit-agents": LiveKit, "asyncio debug": AsyncioDebug, "pyleak": Pyleak,
    }  # fmt: skip
    return makers[name]()
