"""The rules for a client, one check for each.

The client runs against workers that behave in one way each.
"""

from __future__ import annotations

import json

from openrtc_introspect_core import ProtocolError
from openrtc_introspect_core.wire import PROTOCOL_MAJOR, decode_request

from .._workers.misbehaviour import OLDER_CAPABILITIES
from .client_command import Command, Run
from .rules import Broken, Rules, require

_MANY_SESSIONS = 2000

client_rules: Rules[Command] = Rules()
rule = client_rules


def _succeeds(run: Run, worker: str) -> None:
    said = " ".join(run.errors.split())[-200:]
    require(run.code == 0, f"exit code {run.code} from {worker}, expected 0: {said or 'nothing on stderr'}")


def _reports(run: Run, worker: str) -> None:
    """Require that the command says that something is wrong, and does not crash."""
    if (crashed := run.crashed) is not None:
        raise Broken(f"{worker}: {crashed}")
    reported = run.code != 0 or run.errors.strip()
    require(bool(reported), f"{worker}: exit code 0 and nothing on stderr, as if all were well")


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
            except ProtocolError as error:
                raise Broken(f"it sent {line[:80]!r}: {error}") from None
            if request.__class__.__name__ != "CancelRequest":
                ids.append(request.id)
        require(len(set(ids)) == len(ids), f"it used an id twice on one connection: {ids}")


@rule("client-newer-minor")
def _(command: Command) -> None:
    _succeeds(command.run("newer-minor"), "a worker of a newer minor version")


@rule("client-older-minor")
def _(command: Command) -> None:
    run = command.run("older-minor")
    if (crashed := run.crashed) is not None:
        raise Broken(f"a worker of version 1.0: {crashed}")
    for line in (line for lines in run.heard for line in lines):
        kind = json.loads(line).get("type")
        require(kind in OLDER_CAPABILITIES, f"it asked for {kind!r}, which that worker's hello does not list")
    if run.code != 0:
        _reports(run, "a worker of version 1.0")


@rule("client-other-major")
def _(command: Command) -> None:
    run = command.run("other-major")
    _reports(run, "a worker of another major version")
    require(not run.heard, f"it went on after a hello of another major version: {run.heard}")
    text = run.output + run.errors
    missing = [
        name for name, version in (("the worker's", "2.0"), ("its own", f"{PROTOCOL_MAJOR}.")) if version not in text
    ]
    require(not missing, f"it does not report {' and '.join(missing)} version: {' '.join(text.split())[:200]!r}")


@rule("client-pieces")
def _(command: Command) -> None:
    _succeeds(command.run("slow", sessions=50), "a worker whose lines come in pieces")


@rule("client-long-lines")
def _(command: Command) -> None:
    _succeeds(command.run(sessions=_MANY_SESSIONS), f"a worker of {_MANY_SESSIONS} sessions")


@rule("client-refused")
def _(command: Command) -> None:
    _reports(command.run("refuses"), "a worker that has too many clients")


@rule("client-error")
def _(command: Command) -> None:
    _reports(command.run("error-reply"), "a worker that cannot make its answer")


@rule("client-garbage")
def _(command: Command) -> None:
    _reports(command.run("garbage"), "a server that is no worker")
    _reports(command.run("garbage-reply"), "a worker that answers with what is no message")


@rule("client-cut-line")
def _(command: Command) -> None:
    _reports(command.run("half-line"), "a hello cut short by the end of the stream")
    _reports(command.run("dies-mid-frame"), "an answer cut short by the end of the stream")


@rule("client-silence")
def _(command: Command) -> None:
    _reports(command.run("silent"), "a server that says nothing")


@rule("client-text")
def _(command: Command) -> None:
    run = command.run("hostile-names")
    shown = sorted({repr(c) for c in run.output + run.errors if c in "\x07\x1b\x7f\u202e" or "\x80" <= c <= "\x9f"})
    require(not shown, f"it writes control characters from names as they are: {', '.join(shown)}")
