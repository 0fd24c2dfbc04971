"""Who looks for blocks, each as it comes but for its threshold: ours, and others on the part they claim."""

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
"""Beside that there was a block, and how long it was."""


@dataclass(slots=True)
class Said:
    """One block as it was reported. Unix time."""

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
        """As a worker would have told it."""
        location = Location(self.file, self.line, self.function) if self.file else None
        return Block(seq=0, session_id=self.session_id, cause=self.cause, location=location)


class Detector:
    """One of them, on the running loop."""

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    def said(self) -> list[Said]:
        raise NotImplementedError


class Ours(Detector):
    def __init__(self, subject: Core) -> None:
        self._subject = subject
        self._seen = 0
        self._heard: list[Said] = []

    def poll(self) -> None:
        """Takes what is new, before the history's ring is full."""
        for block in self._subject.introspector.blocks(since=self._seen):
            self._seen = block.seq
            one = Said(block.started_at, block.started_at + block.duration_ms / 1000.0, block.session_id)
            one.cause, one.detail = block.cause, block.detail
            if block.location is not None:
                one.file, one.line, one.function = block.location.file, block.location.line, block.location.function
            self._heard.append(one)

    def said(self) -> list[Said]:
        self.poll()
        return self._heard


class Log(logging.Handler, Detector):
    """A detector that speaks in the log."""

    name_of_logger = ""
    says = ""

    def __init__(self) -> None:
        super().__init__()
        self._heard: list[Said] = []
        logging.getLogger(self.name_of_logger).addHandler(self)
        logging.getLogger(self.name_of_logger).propagate = False

    def emit(self, record: logging.LogRecord) -> None:
        if self.says in record.msg and isinstance(record.args, tuple):
            self._hear(record.created, record.args)

    def _hear(self, when: float, arguments: tuple[Any, ...]) -> None:
        raise NotImplementedError

    def said(self) -> list[Said]:
        return self._heard


class OpenRtc(Log):
    """Its runtime is the scene's subject; the log line is its only word of a block."""

    name_of_logger = "openrtc"
    says = "blocked event loop"

    def _hear(self, when: float, arguments: tuple[Any, ...]) -> None:
        session_id, milliseconds = arguments
        self._heard.append(
            Said(when - float(milliseconds) / 1000.0, when, None if session_id is None else str(session_id))
        )


class AsyncioDebug(Log):
    """Its "Executing <Task ...> took 0.120 seconds": it names the task, but neither a session nor the line."""

    name_of_logger = "asyncio"
    says = "Executing"

    async def start(self) -> None:
        loop = asyncio.get_running_loop()
        loop.slow_callback_duration = THRESHOLD_S
        loop.set_debug(True)

    def _hear(self, when: float, arguments: tuple[Any, ...]) -> None:
        self._heard.append(Said(when - float(arguments[1]), when))


class LiveKit(Detector):
    """telemetry.loop_monitor, without its limit of 30 reports a minute."""

    def __init__(self) -> None:
        self._heard: list[Said] = []

    async def start(self) -> None:
        from livekit.agents.telemetry import loop_monitor

        logging.getLogger("livekit.agents").disabled = True
        loop_monitor.MAX_SPANS_PER_MINUTE = 1_000_000
        thresholds = loop_monitor.LoopMonitorThresholds(warn=THRESHOLD_S, error=10.0)
        start: Any = loop_monitor.start_monitoring
        self._monitor = start(asyncio.get_running_loop(), thresholds=thresholds)
        self._monitor._on_report = self._hear

    async def stop(self) -> None:
        self._monitor.stop()

    def _hear(self, report: Any) -> None:
        end = time.time()
        frames = re.findall(r'File "(.+?)", line (\d+), in (\S+)', report.stacks[-1]) if report.stacks else []
        place = _users([(file, int(line), function) for file, line, function in frames])
        self._heard.append(Said(end - report.duration, end, None, *place))

    def said(self) -> list[Said]:
        return self._heard


class Pyleak(Detector):
    """no_event_loop_blocking around everything. It looks five times as often as it does by itself."""

    async def start(self) -> None:
        import pyleak

        logging.getLogger("pyleak.eventloop").disabled = True
        looking: Any = pyleak.no_event_loop_blocking
        self._manager = looking(action="log", threshold=THRESHOLD_S, check_interval=0.01)
        await self._manager.__aenter__()
        self._blocks: list[Any] = self._manager.detector.detected_blocks

    async def stop(self) -> None:
        await self._manager.__aexit__(None, None, None)

    def said(self) -> list[Said]:
        found = []
        for block in self._blocks:
            frames = [(frame.filename, frame.lineno or 0, frame.name) for frame in block.blocking_stack or ()]
            found.append(Said(block.timestamp - block.duration, block.timestamp, None, *_users(frames)))
        return found


def _users(frames: Sequence[tuple[str, int, str]]) -> tuple[str, int, str]:
    """The innermost frame that is neither the standard library's nor a package's, as ours are told."""
    installed = tuple(sysconfig.get_paths()[key] + os.sep for key in ("stdlib", "purelib", "platlib"))
    for file, line, function in reversed(frames):
        if not file.startswith((*installed, "<frozen ")):
            return file, line, function
    return frames[-1] if frames else ("", 0, "")


def subject_for(names: Sequence[str]) -> Subject:
    """What opens the sessions' scopes while these detectors look."""
    return make("exact" if "exact" in names else "peer" if "openrtc" in names else "bare")


def detector(name: str, subject: Subject) -> Detector:
    if isinstance(subject, Core):
        return Ours(subject)
    makers: dict[str, type[Detector]] = {
        "openrtc": OpenRtc, "livekit-agents": LiveKit, "asyncio debug": AsyncioDebug, "pyleak": Pyleak,
    }  # fmt: skip
    return makers[name]()
