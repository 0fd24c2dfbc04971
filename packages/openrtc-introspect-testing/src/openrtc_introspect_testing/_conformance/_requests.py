"""What a server must do: its socket, its first line, lines and requests, watches."""

from __future__ import annotations

import contextlib
import json
import os
import re
import stat
import time

from openrtc_introspect_core import ProtocolError
from openrtc_introspect_core.wire import PROTOCOL_MAJOR, decode_server_message

from .._frames import refused_lines
from ._dialer import Dialer, brief, strict
from ._looks import NOBODY, live
from ._rules import Broken, Rules, require

rule: Rules[Dialer] = Rules()

_SHORTEST_S = 0.1


# --- the socket and the first line --------------------------------------------------------------------


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
        told = line.hello.get("protocol")
    match = re.fullmatch(r"(\d{1,9})\.(\d{1,9})", told) if isinstance(told, str) else None
    if match is None:
        raise Broken(f'protocol is {told!r}, expected "major.minor"')
    require(int(match[1]) == PROTOCOL_MAJOR, f"protocol is {told}; this page is of {PROTOCOL_MAJOR}.x")


@rule("fields")
def _(dial: Dialer) -> None:
    with dial() as line:
        lines = [line.hear_line()]
        listed, session_id = _listed(lines[0]), live(dial)
        for kind in ("snapshot", "blocks", "tasks", "stacks", "bye"):
            if kind in ("tasks", "stacks") and kind not in listed:
                continue
            line.say({"type": kind, "id": kind} | ({"session_id": session_id or NOBODY} if kind == "tasks" else {}))
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
        for kind in ("snapshot", "blocks", "stacks"):
            if kind in listed:
                line.ask(kind, kind, kind)
        if "tasks" in listed:
            line.ask("tasks", "error", "t", session_id=NOBODY)  # which error is another rule's
        if "watch" in listed:
            line.ask("watch", "snapshot", "w", interval_s=60)
        if "cancel" in listed:
            line.ask("cancel", "done", "w")
        for kind in ("x-unheard-of", *(each for each in ("tasks", "stacks") if each not in listed)):
            reply = line.ask(kind, "error", "x", session_id=NOBODY)
            code = reply["code"]
            require(code == "unsupported", f"{kind} is not listed: expected unsupported, got {brief(reply)}")
        if "bye" in listed:
            line.ask("bye", "done", "b")


def _listed(hello: bytes | None) -> list[str]:
    listed = strict(hello or b"{}").get("capabilities")
    return listed if isinstance(listed, list) else []


# --- lines and requests -------------------------------------------------------------------------------


@rule("id-echo")
def _(dial: Dialer) -> None:
    with dial.greeted() as line:
        for request_id in (1, -5, 0, 2**63 - 1, -(2**63), "a", "", "é\n", 64 * "x"):
            line.ask("blocks", "blocks", request_id)


@rule("order")
def _(dial: Dialer) -> None:
    kinds = ["blocks", "snapshot", "x-unheard-of"] * 5
    with dial.greeted() as line:
        line.say(*({"type": kind, "id": number} for number, kind in enumerate(kinds)))
        for number, kind in enumerate(kinds):
            line.expect("error" if kind == "x-unheard-of" else kind, id=number)


@rule("blank-lines")
def _(dial: Dialer) -> None:
    with dial.greeted() as line:
        line.say(b'\n\r\n  \n \t{"type":"blocks","id":1} \r\n\n{"type":"blocks","id":2}\r\n')
        line.expect("blocks", id=1)
        line.expect("blocks", id=2)


@rule("pieces")
def _(dial: Dialer) -> None:
    with dial.greeted() as line:
        for byte in b'{"type":"blocks","id":"pieces"}\n':
            line.say(bytes([byte]))
            time.sleep(0.0005)
        line.expect("blocks", id="pieces")


@rule("unknown-fields")
def _(dial: Dialer) -> None:
    with dial.greeted() as line:
        line.ask("blocks", "blocks", 1, unheard_of={"a": [1, None]})


@rule("request-limit")
def _(dial: Dialer) -> None:
    with dial.greeted() as line:
        limit = line.hello["limits"]["request_bytes"]
        request = b'{"type":"blocks","id":1}'
        line.say(request.ljust(limit - 1) + b"\n")
        line.expect("blocks", id=1)
        with contextlib.suppress(Broken):  # it may close before all of it is written
            line.say(b" " * (limit + 1))
        line.expect("error", code="line-too-long")
        line.expect_end("line-too-long")


@rule("refusals")
def _(dial: Dialer) -> None:
    with dial.greeted() as line:
        listed = line.hello.get("capabilities", [])
        for refused in refused_lines:
            if refused.code == "unsupported" and json.loads(refused.line)["type"] in listed:
                continue  # of a later minor version
            if refused.line.startswith(b'{"type":"tasks"') and "tasks" not in listed:
                continue  # then it is unsupported, however wrong
            line.say(refused.line + b"\n")
            reply = line.expect("error", id=refused.id)
            code = reply.get("code")
            require(code == refused.code, f"{refused.name}: expected {refused.code}, got {brief(reply)}")
        line.ask("blocks", "blocks", "after")


@rule("half-line")
def _(dial: Dialer) -> None:
    with dial.greeted() as line:
        line.say(b'{"type":"snapshot","id":1}')
        line.socket.shutdown(1)
        line.expect_end("half a line")


@rule("half-close")
def _(dial: Dialer) -> None:
    with dial.greeted() as line:
        line.say({"type": "snapshot", "id": 1}, {"type": "blocks", "id": 2})
        line.socket.shutdown(1)
        line.expect("snapshot", id=1)
        line.expect("blocks", id=2)
        line.expect_end("all was answered")


# --- watches and the rest -----------------------------------------------------------------------------


@rule("watch")
def _(dial: Dialer) -> None:
    with dial.greeted() as line:
        began = time.monotonic()
        line.say({"type": "watch", "id": "w", "interval_s": _SHORTEST_S})
        seqs = [line.expect("snapshot", id="w")["seq"] for _ in range(4)]
        took = time.monotonic() - began
        require(took >= 2.9 * _SHORTEST_S, f"four frames of a watch of {_SHORTEST_S:g} s came within {took:.3f} s")
        require(seqs == sorted(seqs), f"the frames' seq go back: {seqs}")
        line.say({"type": "blocks", "id": 2})
        while (message := line.hear()) is not None and message["type"] == "snapshot":
            pass
        require(message is not None and message["type"] == "blocks", "a request during a watch was not answered")


@rule("watch-ids")
def _(dial: Dialer) -> None:
    with dial.greeted() as line:
        line.ask("watch", "snapshot", 1, interval_s=60)
        reply = line.ask("watch", "error", 1, interval_s=60)
        require(reply["code"] == "bad-request", f"a second watch of one id: expected bad-request, got {brief(reply)}")


@rule("watch-limit")
def _(dial: Dialer) -> None:
    with dial.greeted() as line:
        for number in range(line.hello["limits"]["watches"]):
            line.ask("watch", "snapshot", number, interval_s=60)
        reply = line.ask("watch", "error", "more", interval_s=60)
        require(
            reply["code"] == "too-many-watches", f"one watch too many: expected too-many-watches, got {brief(reply)}"
        )


@rule("cancel")
def _(dial: Dialer) -> None:
    with dial.greeted() as line:
        reply = line.ask("cancel", "error", "none")
        require(reply["code"] == "bad-request", f"a watch that is not: expected bad-request, got {brief(reply)}")
        line.ask("watch", "snapshot", "w", interval_s=_SHORTEST_S)
        line.say({"type": "cancel", "id": "w"})
        while (message := line.hear()) is not None and message["type"] == "snapshot":
            pass
        require(message == {"type": "done", "id": "w"}, f"expected done, got {message and brief(message)}")
        time.sleep(2.5 * _SHORTEST_S)
        line.say({"type": "bye", "id": "b"})
        message = line.hear()
        require(message is not None and message["type"] == "done", "a frame came after its watch was done")


@rule("bye")
def _(dial: Dialer) -> None:
    with dial.greeted() as line:
        line.say({"type": "bye", "id": "b"}, {"type": "snapshot", "id": 2})
        line.expect("done", id="b")
        line.expect_end("bye")


@rule("blocks-since")
def _(dial: Dialer) -> None:
    with dial.greeted() as line:
        everything = line.ask("blocks", "blocks", 1)
        seqs = [block["seq"] for block in everything["blocks"]]
        require(all(a < b for a, b in zip([0, *seqs], seqs, strict=False)), f"blocks are not in order: {seqs}")
        last = everything["last_seq"]
        require(not seqs or last == seqs[-1], f"last_seq is {last}, the newest block's seq {seqs[-1:]}")
        middle = seqs[len(seqs) // 2] if seqs else 0
        newer = line.ask("blocks", "blocks", 2, since=middle)["blocks"]
        require(all(block["seq"] > middle for block in newer), f"blocks up to {middle} came after since={middle}")
        wanted = {seq for seq in seqs if seq > middle}
        require(wanted <= {block["seq"] for block in newer}, f"blocks after {middle} are missing")
        latest = line.ask("blocks", "blocks", 3, since=last + 10**6)
        require(not latest["blocks"], "blocks came that are older than since")
        require(latest["last_seq"] >= last, f"last_seq went from {last} to {latest['last_seq']}")
