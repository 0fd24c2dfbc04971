"""The misbehaving workers that a client may meet."""

from __future__ import annotations

import json
import time
from typing import Any, ClassVar, Literal

from msgspec.structs import replace

from openrtc_introspect_core.wire import (
    Block,
    Snapshot,
    Stacks,
    StacksRequest,
    Tasks,
    TasksRequest,
    Waiter,
    Waits,
    WaitsRequest,
)
from openrtc_introspect_core.wire._source import Message

from .conversation import Conversation

Misbehaviour = Literal[
    "garbage", "half-line", "other-major", "newer-minor", "older-minor", "refuses", "silent", "slow", "garbage-reply",
    "error-reply", "dies-mid-frame", "hostile-names",
]  # fmt: skip

_PIECE_BYTES = 700
_PIECE_PAUSE_S = 0.002
_POLL_S = 0.02
OLDER_CAPABILITIES = ["snapshot", "watch", "cancel", "blocks", "bye"]
"""The requests that a worker of version 1.0 answers in any mode."""
HOSTILE = "\x1b]0;owned\x07\x1b[2J\u202e"
"""Control characters that a terminal obeys: its title, a cleared screen, the other direction."""


class _Garbage(Conversation):
    """A server of another protocol, such as HTTP."""

    def run(self) -> None:
        self.send([b"HTTP/1.1 400 Bad Request\r\n\x00\xff\r\n\r\n"])


class _HalfLine(Conversation):
    """A hello that the end of the stream cuts short.

    One brace more would make it JSON.
    """

    def run(self) -> None:
        self.send([b"".join(self.greeting())[:-20]])


class _OtherMajor(Conversation):
    """A worker of another major version: all but `protocol` has changed."""

    def greeting(self) -> Message:
        return [b'{"type":"greetings","protocol":"2.0","worker":{"called":"later"},"limits":[]}\n']


class _NewerMinor(Conversation):
    """A worker of a later minor version.

    It has fields, causes and capabilities that the client does not know.
    """

    def send(self, message: Message) -> None:
        super().send([_with_more(line) + b"\n" for line in b"".join(message).splitlines()])


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


class _OlderMinor(Conversation):
    """A worker of version 1.0: it answers only what that version has for all its workers."""

    differs: ClassVar = {"protocol": "1.0", "capabilities": OLDER_CAPABILITIES}


class _Refuses(Conversation):
    """A worker that has too many clients."""

    enforced: ClassVar = {"clients": 0}


class _Silent(Conversation):
    """A server that accepts, and sends nothing."""

    def run(self) -> None:
        while not self.hung_up() and not self.server.over.wait(_POLL_S):
            pass


class _Slow(Conversation):
    """A worker whose messages come in small pieces."""

    def send(self, message: Message) -> None:
        data = b"".join(message)
        for start in range(0, len(data), _PIECE_BYTES):
            super().send([data[start : start + _PIECE_BYTES]])
            time.sleep(_PIECE_PAUSE_S)


class _GarbageReply(Conversation):
    """A worker whose answers are no messages."""

    def message(self, now: float) -> Message:
        return [b'{"type":"snapshot","id":\xff}\n'] if super().message(now) else []


class _ErrorReply(Conversation):
    """A worker that fails to build its snapshots."""

    def snapshot(self) -> Snapshot:
        raise RuntimeError("the ledger is closed")


class _DiesMidFrame(Conversation):
    """A worker that dies in the middle of an answer."""

    def message(self, now: float) -> Message:
        if line := b"".join(super().message(now)):
            self.send([line[: len(line) // 2]])
            raise ConnectionAbortedError("it died")
        return []


class _HostileNames(Conversation):
    """A worker whose names have control characters.

    They are the names of its sessions, agents, tasks, threads and locks.
    """

    def snapshot(self) -> Snapshot:
        taken = super().snapshot()
        rows = [replace(row, session_id=HOSTILE + row.session_id, agent_name=HOSTILE) for row in taken.sessions]
        return replace(taken, sessions=rows)

    def blocks(self, since: int) -> list[Block]:
        return [replace(block, task_name=HOSTILE) for block in super().blocks(since)]

    def tasks(self, request: TasksRequest) -> Tasks | None:
        own_name = request.session_id.removeprefix(HOSTILE)
        reply = super().tasks(replace(request, session_id=own_name))
        if reply is None:
            return None
        tasks = [replace(task, name=HOSTILE, coroutine=HOSTILE, waiting_on=HOSTILE) for task in reply.tasks]
        return replace(reply, session_id=HOSTILE + own_name, tasks=tasks)

    def stacks(self, request: StacksRequest) -> Stacks:
        reply = super().stacks(request)
        return replace(reply, threads=[replace(thread, name=HOSTILE) for thread in reply.threads])

    def waits(self, request: WaitsRequest) -> Waits:
        reply = super().waits(request)
        waiter = Waiter(session_id=HOSTILE, agent_name=HOSTILE, task_name=HOSTILE)
        groups = [replace(group, what=HOSTILE, waiters=[waiter]) for group in reply.groups]
        return replace(reply, groups=groups)


MISBEHAVIOURS: dict[Misbehaviour, type[Conversation]] = {
    "garbage": _Garbage,
    "half-line": _HalfLine,
    "other-major": _OtherMajor,
    "newer-minor": _NewerMinor,
    "older-minor": _OlderMinor,
    "refuses": _Refuses,
    "silent": _Silent,
    "slow": _Slow,
    "garbage-reply": _GarbageReply,
    "error-reply": _ErrorReply,
    "dies-mid-frame": _DiesMidFrame,
    "hostile-names": _HostileNames,
}
