"""The rules for the lines that a server reads, and for the requests on them."""

from __future__ import annotations

import contextlib
import json
import time

from .._workers.golden_frames import refused_lines
from .dialer import Dialer, brief
from .rules import Broken, Rules, require

rule: Rules[Dialer] = Rules()


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
        with contextlib.suppress(Broken):  # the server may close before it has read all of this
            line.say(b" " * (limit + 1))
        line.expect("error", code="line-too-long")
        line.expect_end("line-too-long")


@rule("refusals")
def _(dial: Dialer) -> None:
    with dial.greeted() as line:
        listed = line.hello.get("capabilities", [])
        for refused in refused_lines:
            if refused.code == "unsupported" and json.loads(refused.line)["type"] in listed:
                continue  # a later minor version lists it
            if refused.line.startswith(b'{"type":"tasks"') and "tasks" not in listed:
                continue  # then the request is unsupported, however wrong it is
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
