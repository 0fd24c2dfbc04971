"""What a client must do, one check for each rule: it is run against workers that behave in one way each."""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from openrtc_introspect_core.wire import (
    PROTOCOL_MAJOR,
    PROTOCOL_MINOR,
    Block,
    Hello,
    Snapshot,
    Stacks,
    Tasks,
    decode_request,
)
from openrtc_introspect_core.wire._endpoint import open_listener
from openrtc_introspect_core.wire._framing import RequestError

from .._frames import golden_frames
from .._misbehaviour import MISBEHAVIOURS, Misbehaviour
from .._rawserver import ANSWERED, Conversation, RawServer
from ._rules import Broken, Rules, require

SOCKET = "{socket}"
_NAME = "conformance"
_MANY = 2000


@dataclass(frozen=True, slots=True)
class Run:
    """How one run of the command ended."""

    code: int
    output: str
    errors: str
    heard: list[list[bytes]]
    """The lines that each of its connections sent; connections that sent none are left out."""

    @property
    def crashed(self) -> str | None:
        """How it went down, if it did."""
        if self.code < 0:
            return f"it was killed by signal {-self.code}"
        if "Traceback (most recent call last)" in self.errors:
            return f"it ended with a traceback: {self.errors.strip().splitlines()[-1]}"
        return None


class Command:
    """A client command. `{socket}` in it is replaced by the socket; $OPENRTC_RUNTIME_DIR names its directory."""

    def __init__(self, words: Sequence[str], within_s: float) -> None:
        self._words = list(words)
        self._within_s = within_s

    def run(self, misbehave: Misbehaviour | None = None, sessions: int = 0) -> Run:
        """Runs it against a worker that misbehaves so, or not at all. Raises Broken where it does not end."""
        conversation = Conversation if misbehave is None else MISBEHAVIOURS[misbehave]
        with tempfile.TemporaryDirectory(prefix="openrtc-client-", dir="/tmp") as folder:
            listener, path = open_listener(_NAME, Path(folder) / f"{_NAME}-{os.getpid()}.sock")
            words = [word.replace(SOCKET, str(path)) for word in self._words]
            environment = {**os.environ, "OPENRTC_RUNTIME_DIR": folder, "XDG_RUNTIME_DIR": folder, "TMPDIR": folder}
            serving = RawServer(
                listener, _HELLO, lambda: _snapshot(sessions), [_BLOCK], conversation, tasks=_TASKS, stacks=_STACKS
            )
            with listener, serving as server:
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
    capabilities=list(ANSWERED),
)
_GOLDEN = next(
    frame.message for frame in golden_frames if isinstance(frame.message, Snapshot) and frame.message.sessions
)
_TASKS = {frame.message.session_id: frame.message.tasks for frame in golden_frames if isinstance(frame.message, Tasks)}
_STACKS = next(frame.message.threads for frame in golden_frames if isinstance(frame.message, Stacks))
_BLOCK = Block(
    seq=1, session_id="job-c1d550", task_name="Task-1", started_at=1760000060.0, duration_ms=100, cause="cpu"
)


def _snapshot(sessions: int) -> Snapshot:
    """The golden one, with so many sessions more, of a moment ago."""
    replace = msgspec.structs.replace
    worker = replace(_GOLDEN.worker, name=_NAME, pid=os.getpid(), epoch=_NAME, blocks=1)
    more = [replace(_GOLDEN.sessions[1], session_id=f"job-{number:06}") for number in range(sessions)]
    return replace(_GOLDEN, taken_at=time.time(), worker=worker, sessions=[*_GOLDEN.sessions, *more])


client_rules: Rules[Command] = Rules()
rule = client_rules


def _succeeds(run: Run, worker: str) -> None:
    said = " ".join(run.errors.split())[-200:]
    require(run.code == 0, f"exit code {run.code} from {worker}, expected 0: {said or 'nothing on stderr'}")


def _tells(run: Run, worker: str) -> None:
    if (crashed := run.crashed) is not None:
        raise Broken(f"{worker}: {crashed}")
    told = run.code != 0 or run.errors.strip()
    require(bool(told), f"{worker}: exit code 0 and nothing on stderr, as if all were well")


@rule("client-reads")
def _(command: Command) -> None:
    _succeeds(command.run(), "a well-behaved worker")


@rule("client-requests")
def _(command: Command) -> None:
    for lines in command.run().heard:
        ids = []
        for line in lines:
            try:
                request = decode_request(line)
            except RequestError as error:
                raise Broken(f"it sent {line[:80]!r}: {error}") from None
            if request.__class__.__name__ != "CancelRequest":
                ids.append(request.id)
        require(len(set(ids)) == len(ids), f"it used an id twice on one connection: {ids}")


@rule("client-newer-minor")
def _(command: Command) -> None:
    _succeeds(command.run("newer-minor"), "a worker of a newer minor version")


@rule("client-other-major")
def _(command: Command) -> None:
    run = command.run("other-major")
    _tells(run, "a worker of another major version")
    require(not run.heard, f"it went on after a hello of another major version: {run.heard}")
    told = run.output + run.errors
    missing = [
        name for name, version in (("the worker's", "2.0"), ("its own", f"{PROTOCOL_MAJOR}.")) if version not in told
    ]
    require(not missing, f"it does not tell {' and '.join(missing)} version: {' '.join(told.split())[:200]!r}")


@rule("client-pieces")
def _(command: Command) -> None:
    _succeeds(command.run("slow", sessions=50), "a worker whose lines come in pieces")


@rule("client-long-lines")
def _(command: Command) -> None:
    _succeeds(command.run(sessions=_MANY), f"a worker of {_MANY} sessions")


@rule("client-refused")
def _(command: Command) -> None:
    _tells(command.run("refuses"), "a worker that has too many clients")


@rule("client-error")
def _(command: Command) -> None:
    _tells(command.run("error-reply"), "a worker that cannot make its answer")


@rule("client-garbage")
def _(command: Command) -> None:
    _tells(command.run("garbage"), "a server that is no worker")
    _tells(command.run("garbage-reply"), "a worker that answers with what is no message")


@rule("client-cut-line")
def _(command: Command) -> None:
    _tells(command.run("half-line"), "a hello cut short by the end of the stream")
    _tells(command.run("dies-mid-frame"), "an answer cut short by the end of the stream")


@rule("client-silence")
def _(command: Command) -> None:
    _tells(command.run("silent"), "a server that says nothing")


@rule("client-text")
def _(command: Command) -> None:
    run = command.run("hostile-names")
    shown = sorted({repr(c) for c in run.output + run.errors if c in "\x07\x1b\x7f\u202e" or "\x80" <= c <= "\x9f"})
    require(not shown, f"it writes control characters from names as they are: {', '.join(shown)}")
