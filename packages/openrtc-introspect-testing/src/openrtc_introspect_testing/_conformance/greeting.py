"""The rules for a server's socket and for its first line."""

from __future__ import annotations

import os
import re
import stat

from openrtc_introspect_core import ProtocolError
from openrtc_introspect_core.wire import PROTOCOL_MAJOR, decode_server_message

from .dialer import NO_SESSION, Dialer, brief, strict
from .rules import Broken, Rules, require

rule: Rules[Dialer] = Rules()

_OPTIONAL = ("tasks", "stacks", "waits")
"""The requests that not every server of this major version answers."""


@rule("private-socket")
def _(dial: Dialer) -> None:
    status, folder = os.lstat(dial.path), os.lstat(dial.path.parent)
    require(stat.S_ISSOCK(status.st_mode), f"{dial.path} is no socket")
    mode = stat.S_IMODE(status.st_mode)
    require(mode == 0o600, f"the socket has mode {mode:04o}, expected 0600")
    require(stat.S_ISDIR(folder.st_mode), f"{dial.path.parent} is no real directory")
    require(folder.st_uid == status.st_uid, f"the directory is uid {folder.st_uid}'s, the socket uid {status.st_uid}'s")
    mode = stat.S_IMODE(folder.st_mode)
    require(not mode & 0o022, f"the directory has mode {mode:04o}: others may write to it")


@rule("hello-first")
def _(dial: Dialer) -> None:
    with dial() as line:
        line.expect("hello")


@rule("version")
def _(dial: Dialer) -> None:
    with dial.greeted() as line:
        protocol = line.hello.get("protocol")
    match = re.fullmatch(r"(\d{1,9})\.(\d{1,9})", protocol) if isinstance(protocol, str) else None
    if match is None:
        raise Broken(f'protocol is {protocol!r}, expected "major.minor"')
    require(int(match[1]) == PROTOCOL_MAJOR, f"protocol is {protocol}; this page is of {PROTOCOL_MAJOR}.x")


@rule("fields")
def _(dial: Dialer) -> None:
    with dial() as line:
        lines = [line.hear_line()]
        listed, session_id = _listed(lines[0]), dial.live_session()
        for kind in ("snapshot", "blocks", *_OPTIONAL, "bye"):
            if kind in _OPTIONAL and kind not in listed:
                continue
            line.say({"type": kind, "id": kind} | ({"session_id": session_id or NO_SESSION} if kind == "tasks" else {}))
            lines.append(line.hear_line())
    for each in lines:
        if each is None:
            raise Broken("the server closed the connection instead of answering")
        try:
            decode_server_message(each)
        except ProtocolError as error:
            raise Broken(str(error)) from None


@rule("identity")
def _(dial: Dialer) -> None:
    with dial.greeted() as line:
        worker = line.ask("snapshot", "snapshot")["worker"]
    for ours, theirs in (("worker", "name"), ("pid", "pid"), ("epoch", "epoch")):
        hello, snapshot = line.hello.get(ours), worker.get(theirs)
        require(hello == snapshot, f"the hello's {ours} is {hello!r}, the snapshot's worker.{theirs} {snapshot!r}")


@rule("capabilities")
def _(dial: Dialer) -> None:
    with dial.greeted() as line:
        listed = line.hello.get("capabilities", [])
        for kind in ("snapshot", "blocks", "stacks", "waits"):
            if kind in listed:
                line.ask(kind, kind, kind)
        if "tasks" in listed:
            line.ask("tasks", "error", "t", session_id=NO_SESSION)  # the rule not-found says which error
        if "watch" in listed:
            line.ask("watch", "snapshot", "w", interval_s=60)
        if "cancel" in listed:
            line.ask("cancel", "done", "w")
        for kind in ("x-unheard-of", *(each for each in _OPTIONAL if each not in listed)):
            reply = line.ask(kind, "error", "x", session_id=NO_SESSION)
            code = reply["code"]
            require(code == "unsupported", f"{kind} is not listed: expected unsupported, got {brief(reply)}")
        if "bye" in listed:
            line.ask("bye", "done", "b")


def _listed(hello: bytes | None) -> list[str]:
    listed = strict(hello or b"{}").get("capabilities")
    return listed if isinstance(listed, list) else []
