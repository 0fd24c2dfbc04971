"""A client command, run against a worker that behaves in one way."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from openrtc_introspect_core.wire import (
    CAPABILITIES,
    PROTOCOL_MAJOR,
    PROTOCOL_MINOR,
    Block,
    Hello,
    Snapshot,
    Stacks,
    Tasks,
    Waits,
)

from .._workers.conversation import Conversation
from .._workers.golden_frames import golden_frames
from .._workers.listening import listening
from .._workers.misbehaviour import MISBEHAVIOURS, Misbehaviour
from .._workers.raw_server import RawServer
from .._workers.scripted_source import ScriptedSource
from .rules import Broken

SOCKET = "{socket}"
_NAME = "conformance"


@dataclass(frozen=True, slots=True)
class Run:
    """The end of one run of the command."""

    code: int
    output: str
    errors: str
    heard: list[list[bytes]]
    """The lines that each of its connections sent, without connections that sent none."""

    @property
    def crashed(self) -> str | None:
        """How it crashed; None if it did not."""
        if self.code < 0:
            return f"it was killed by signal {-self.code}"
        if "Traceback (most recent call last)" in self.errors:
            return f"it ended with a traceback: {self.errors.strip().splitlines()[-1]}"
        return None


class Command:
    """A client command.

    The path of the socket replaces `{socket}` in its words; $OPENRTC_RUNTIME_DIR names the directory.
    """

    def __init__(self, words: Sequence[str], within_s: float) -> None:
        self._words = list(words)
        self._within_s = within_s

    def run(self, misbehave: Misbehaviour | None = None, sessions: int = 0) -> Run:
        """Run it against a worker that misbehaves so, or not at all.

        Raises Broken if it does not end.
        """
        conversation = Conversation if misbehave is None else MISBEHAVIOURS[misbehave]
        with listening(_NAME) as (listener, path):
            words = [word.replace(SOCKET, str(path)) for word in self._words]
            folder = str(path.parent)
            environment = {**os.environ, "OPENRTC_RUNTIME_DIR": folder, "XDG_RUNTIME_DIR": folder, "TMPDIR": folder}
            with RawServer(listener, _HELLO, _GoldenSource(sessions), conversation) as server:
                try:
                    done = subprocess.run(
                        words, env=environment, stdin=subprocess.DEVNULL, capture_output=True, timeout=self._within_s,
                        check=False,
                    )  # fmt: skip
                except subprocess.TimeoutExpired:
                    raise Broken(f"the command did not end within {self._within_s:g} s") from None
                server.settle()
        output, errors = (text.decode(errors="replace") for text in (done.stdout, done.stderr))
        return Run(done.returncode, output, errors, [lines for lines in server.heard if lines])


_HELLO = Hello(
    protocol=f"{PROTOCOL_MAJOR}.{PROTOCOL_MINOR}",
    worker=_NAME,
    pid=os.getpid(),
    epoch=_NAME,
    capabilities=list(CAPABILITIES),
)
_GOLDEN = next(
    frame.message for frame in golden_frames if isinstance(frame.message, Snapshot) and frame.message.sessions
)
_TASKS = {frame.message.session_id: frame.message.tasks for frame in golden_frames if isinstance(frame.message, Tasks)}
_STACKS = next(frame.message.threads for frame in golden_frames if isinstance(frame.message, Stacks))
_WAITS = next(frame.message for frame in golden_frames if isinstance(frame.message, Waits))
_BLOCK = Block(
    seq=1, session_id="job-c1d550", task_name="Task-1", started_at=1760000060.0, duration_ms=100, cause="cpu"
)


class _GoldenSource(ScriptedSource):
    """The golden snapshot, taken a moment ago, and the golden tasks, stacks and waits.

    more_sessions: how many sessions to add to the golden ones.
    """

    def __init__(self, more_sessions: int) -> None:
        super().__init__([_BLOCK], _TASKS, _STACKS, _WAITS)
        self._more_sessions = more_sessions

    def snapshot(self) -> Snapshot:
        replace = msgspec.structs.replace
        worker = replace(_GOLDEN.worker, name=_NAME, pid=os.getpid(), epoch=_NAME, blocks=1)
        more = [replace(_GOLDEN.sessions[1], session_id=f"job-{number:06}") for number in range(self._more_sessions)]
        return replace(_GOLDEN, taken_at=time.time(), worker=worker, sessions=[*_GOLDEN.sessions, *more])
