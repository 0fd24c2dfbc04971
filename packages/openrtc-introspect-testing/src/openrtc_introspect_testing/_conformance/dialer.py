"""A client of bare bytes, with deadlines, and strict about JSON."""

from __future__ import annotations

import json
import socket
import time
from pathlib import Path
from typing import Any

from openrtc_introspect_core import ConnectionFailed
from openrtc_introspect_core.wire._client import reach

from .rules import Broken

Message = dict[str, Any]

NO_SESSION = "conformance: no session has this id"


class Dialer:
    """A factory of connections to one server.

    within_s: seconds that any answer may take.
    """

    def __init__(self, path: Path, within_s: float, patience_s: float) -> None:
        self.path = path
        self.within_s = within_s
        self.patience_s = patience_s
        """The longest timeout of the server, in seconds, that a check waits for."""

    def __call__(self) -> Line:
        """Connect, and leave the hello unread.

        Raises ConnectionFailed if nothing accepts.
        """
        deadline = time.monotonic() + self.within_s
        while True:
            try:
                if (connection := reach(self.path)) is not None:
                    return Line(connection, self.within_s)
            except OSError as error:
                raise ConnectionFailed(f"no server answers at {str(self.path)!r}: {error.strerror or error}") from None
            if time.monotonic() > deadline:
                raise ConnectionFailed(f"the server at {str(self.path)!r} does not accept connections")
            time.sleep(0.01)

    def greeted(self) -> Line:
        """Connect, and read the hello. If there are too many clients, wait for room.

        A server may still count clients that have just closed.
        Raises ConnectionFailed if nothing accepts, and Broken if another line comes.
        """
        deadline = time.monotonic() + self.within_s
        while True:
            line = self()
            try:
                message = line.hear()
                full = message is not None and message.get("code") == "too-many-clients"
                if not full or time.monotonic() > deadline:
                    line.hello = checked(message, "hello")
                    return line
            except BaseException:
                line.socket.close()
                raise
            line.socket.close()
            time.sleep(0.01)

    def snapshot(self) -> Message:
        with self.greeted() as line:
            return line.ask("snapshot", "snapshot")

    def live_session(self) -> str | None:
        """Return the id of a live session; None if there is none."""
        rows = [row for row in self.snapshot()["sessions"] if is_live(row)]
        return rows[0]["session_id"] if rows else None


class Line:
    """One connection."""

    hello: Message
    """Set by `Dialer.greeted`."""

    def __init__(self, connection: socket.socket, within_s: float) -> None:
        self.socket = connection
        self.socket.settimeout(within_s)
        self._within_s = within_s
        self._pending = b""

    def __enter__(self) -> Line:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def say(self, *messages: Message | bytes) -> None:
        data = b"".join(m if isinstance(m, bytes) else json.dumps(m).encode() + b"\n" for m in messages)
        try:
            self.socket.sendall(data)
        except TimeoutError:
            raise Broken(f"the server did not read {len(data)} bytes within {self._within_s:g} s") from None
        except OSError as error:
            raise Broken(f"the server closed the connection while it was written to: {error.strerror}") from None

    def hear_line(self) -> bytes | None:
        """Return the next line; None if the server has closed the connection."""
        deadline = time.monotonic() + self._within_s
        while b"\n" not in self._pending:
            if (left := deadline - time.monotonic()) <= 0:
                raise Broken(f"nothing came within {self._within_s:g} s")
            self.socket.settimeout(left)
            try:
                data = self.socket.recv(1 << 18)
            except TimeoutError:
                continue
            except ConnectionError:
                data = b""
            if not data:
                if self._pending:
                    raise Broken(f"the stream ended in the middle of a line: {self._pending[-40:]!r}")
                return None
            self._pending += data
        line, self._pending = self._pending.split(b"\n", 1)
        return line

    def hear(self) -> Message | None:
        """Return the next message; None if the server has closed the connection."""
        line = self.hear_line()
        return None if line is None else strict(line)

    def expect(self, kind: str, **fields: Any) -> Message:
        """Return the next message.

        Raises Broken unless it is of this type and has these fields.
        """
        return checked(self.hear(), kind, **fields)

    def expect_end(self, after: str) -> None:
        """Raise Broken unless the server closes the connection now."""
        message = self.hear()
        if message is not None:
            raise Broken(f"expected the end of the connection after {after}, got {brief(message)}")

    def ask(self, kind: str, expected: str, request_id: Any = 1, **fields: Any) -> Message:
        """Send a request, and return the answer.

        Raises Broken unless the answer is of the type `expected` and has the request's id.
        """
        self.say({"type": kind, "id": request_id, **fields})
        return self.expect(expected, id=request_id)


def checked(message: Message | None, kind: str, **fields: Any) -> Message:
    """Return a message; None: the connection has ended.

    Raises Broken unless it is of this type and has these fields.
    """
    if message is None:
        raise Broken(f"expected {kind}, the server closed the connection")
    wrong = {name: message.get(name) for name in fields if message.get(name) != fields[name]}
    if message.get("type") != kind or wrong:
        wanted = ", ".join([kind, *(f"{name} {value!r}" for name, value in fields.items())])
        raise Broken(f"expected {wanted}, got {brief(message)}")
    return message


def strict(line: bytes) -> Message:
    """Return the one JSON object on a line.

    Raises Broken for NaN, repeated names, other text than UTF-8.
    """

    def once(pairs: list[tuple[str, Any]]) -> Message:
        names = [name for name, _ in pairs]
        if len(set(names)) < len(names):
            raise ValueError("a name occurs twice in one object")
        return dict(pairs)

    def number(text: str) -> Any:
        raise ValueError(f"{text} is no JSON number")

    try:
        message = json.loads(line.decode("utf-8"), object_pairs_hook=once, parse_constant=number)
        if not isinstance(message, dict):
            raise ValueError("it is no object")
    except (ValueError, RecursionError) as error:
        raise Broken(f"{line[:60]!r} is no message: {error}") from None
    return message


def is_live(row: Message) -> bool:
    return row.get("status") != "errored"


def brief(message: Message) -> str:
    """Return the message as text of at most 120 characters."""
    text = json.dumps(message)
    return text if len(text) <= 120 else text[:117] + "..."
