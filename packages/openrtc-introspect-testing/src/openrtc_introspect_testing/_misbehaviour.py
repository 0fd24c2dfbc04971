"""Workers as a client may meet them: garbage, half lines, other versions, slow ones, ones that die."""

from __future__ import annotations

import json
import time
from typing import Any, Literal

import msgspec

from openrtc_introspect_core.wire import Blocks, Error, ServerMessage, Snapshot, Stacks, Tasks, encode

from ._rawserver import Conversation, Id

Misbehaviour = Literal[
    "garbage", "half-line", "other-major", "newer-minor", "refuses", "silent", "slow", "garbage-reply", "error-reply",
    "dies-mid-frame", "hostile-names",
]  # fmt: skip

_PIECE_BYTES = 700
_PIECE_PAUSE_S = 0.002
_LOOK_S = 0.02
HOSTILE = "\x1b]0;owned\x07\x1b[2J\u202e"
"""What a terminal would obey: its title, a cleared screen, the other direction."""


class _Garbage(Conversation):
    """HTTP, or something else that is no worker."""

    def run(self) -> None:
        self.send(b"HTTP/1.1 400 Bad Request\r\n\x00\xff\r\n\r\n")


class _HalfLine(Conversation):
    """Its hello is cut short by the end of the stream, right where it would still be JSON with a brace added."""

    def run(self) -> None:
        self.send(super().greeting()[:-20])


class _OtherMajor(Conversation):
    """Of a later version, in which all but the protocol's number has changed."""

    def greeting(self) -> bytes:
        return b'{"type":"greetings","protocol":"2.0","worker":{"called":"later"},"limits":[]}\n'


class _NewerMinor(Conversation):
    """Of a later minor version: fields, causes, capabilities that are not known yet."""

    def send(self, data: bytes) -> None:
        super().send(b"".join(_with_more(line) + b"\n" for line in data.splitlines()))


def _with_more(line: bytes) -> bytes:
    def more(value: Any) -> Any:
        if isinstance(value, dict):
            return {**{key: more(inner) for key, inner in value.items()}, "unheard_of": {"a": [1, None]}}
        return [more(inner) for inner in value] if isinstance(value, list) else value

    message = more(json.loads(line))
    if message["type"] == "hello":
        message["protocol"] = "1.99"
        message["capabilities"].append("unheard-of")
    for block in message.get("blocks", []):
        block["cause"] = "unheard-of"
    return json.dumps(message).encode()


class _Refuses(Conversation):
    """Has too many clients."""

    def run(self) -> None:
        self.send(self.refusal())


class _Silent(Conversation):
    """Accepts, and says nothing."""

    def run(self) -> None:
        while not self.hung_up() and not self.server.over.wait(_LOOK_S):
            pass


class _Slow(Conversation):
    """All it says comes in small pieces."""

    def send(self, data: bytes) -> None:
        for start in range(0, len(data), _PIECE_BYTES):
            super().send(data[start : start + _PIECE_BYTES])
            time.sleep(_PIECE_PAUSE_S)


class _GarbageReply(Conversation):
    """Greets, and answers with what is no message."""

    def say(self, message: ServerMessage) -> None:
        self.send(b'{"type":"snapshot","id":\xff}\n')


class _ErrorReply(Conversation):
    """Cannot make what it is asked for."""

    def snapshot(self, request_id: Id) -> Any:
        return Error(id=request_id, code="internal", message="RuntimeError: the books are closed")


class _DiesMidFrame(Conversation):
    """Is gone in the middle of an answer."""

    def say(self, message: ServerMessage) -> None:
        line = encode(message)
        self.send(line[: len(line) // 2])
        raise OSError("it died")


class _HostileNames(Conversation):
    """Its host names sessions, agents, tasks and threads after what terminals obey."""

    def tasks(self, request_id: Id, session_id: str) -> Tasks | Error:
        return super().tasks(request_id, session_id.removeprefix(HOSTILE))  # by the name that it told

    def say(self, message: ServerMessage) -> None:
        super().say(_renamed(message))


def _renamed(message: ServerMessage) -> ServerMessage:
    replace = msgspec.structs.replace
    if isinstance(message, Snapshot):
        rows = [replace(row, session_id=HOSTILE + row.session_id, agent_name=HOSTILE) for row in message.sessions]
        return replace(message, sessions=rows)
    if isinstance(message, Blocks):
        return replace(message, blocks=[replace(block, task_name=HOSTILE) for block in message.blocks])
    if isinstance(message, Tasks):
        tasks = [replace(task, name=HOSTILE, coroutine=HOSTILE, waiting_on=HOSTILE) for task in message.tasks]
        return replace(message, session_id=HOSTILE + message.session_id, tasks=tasks)
    if isinstance(message, Stacks):
        return replace(message, threads=[replace(thread, name=HOSTILE) for thread in message.threads])
    return message


MISBEHAVIOURS: dict[Misbehaviour, type[Conversation]] = {
    "garbage": _Garbage,
    "half-line": _HalfLine,
    "other-major": _OtherMajor,
    "newer-minor": _NewerMinor,
    "refuses": _Refuses,
    "silent": _Silent,
    "slow": _Slow,
    "garbage-reply": _GarbageReply,
    "error-reply": _ErrorReply,
    "dies-mid-frame": _DiesMidFrame,
    "hostile-names": _HostileNames,
}
