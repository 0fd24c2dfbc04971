"""A FastAPI app on real servers: connections and requests are sessions, and the one that blocks is named."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from runtimes.asgi_app import BLOCK_S, PARTS
from websockets.sync.client import ClientConnection, unix_connect

from openrtc_introspect_core import Block, ConnectionFailed, Snapshot, read_blocks, read_snapshot

pytestmark = pytest.mark.slow

TESTS = Path(__file__).parents[1]
WITHIN_S = 60.0
APP = "runtimes.asgi_app:app"
SERVERS = {
    "uvicorn, uvloop and httptools": ["uvicorn", "--loop=uvloop", "--http=httptools", "--ws=websockets-sansio"],
    "uvicorn, asyncio and h11": ["uvicorn", "--loop=asyncio", "--http=h11", "--ws=wsproto"],
    "hypercorn on asyncio": ["hypercorn", "--worker-class=asyncio"],
    "hypercorn on Trio": ["hypercorn", "--worker-class=trio"],
}
ENDS_WITH = {"uvicorn": -signal.SIGTERM, "hypercorn": 0}
"""What a server's process returns after SIGTERM."""
LOOPS = dict(zip(SERVERS, ("uvloop", "asyncio", "asyncio", "trio"), strict=True))


class HttpConnection(http.client.HTTPConnection):
    """A connection to a server on a Unix socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=WITHIN_S)
        self.path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(WITHIN_S)
        self.sock.connect(str(self.path))


class Server:
    """A server that runs, and its worker processes."""

    def __init__(self, folder: Path, command: list[str]) -> None:
        self.folder = folder / "run"
        self.folder.mkdir(mode=0o700)
        self.socket = folder / "s"
        bind = f"--uds={self.socket}" if command[0] == "uvicorn" else f"--bind=unix:{self.socket}"
        self._errors = folder / "errors"
        with self._errors.open("wb") as errors:
            self.process = subprocess.Popen(
                [sys.executable, "-m", *command, bind, APP],
                cwd=TESTS,
                env={**os.environ, "OPENRTC_RUNTIME_DIR": str(self.folder)},
                stdout=errors,
                stderr=errors,
            )

    def output(self) -> str:
        return self._errors.read_text(encoding="utf-8")

    def until(self, condition: Callable[[], Any]) -> Any:
        """Return what the condition returns, as soon as that is true."""
        deadline = time.monotonic() + WITHIN_S
        while True:
            try:
                if result := condition():
                    return result
            except (ConnectionFailed, OSError, http.client.HTTPException):  # it does not serve so far
                pass
            assert self.process.poll() is None, self.output()
            assert time.monotonic() < deadline, self.output()
            time.sleep(0.02)

    def started(self) -> Server:
        self.until(lambda: self.get("/loop", caller="first")[0] == 200)
        return self

    def workers(self) -> list[Path]:
        return sorted(self.folder.glob("asgi-*.sock"))

    def snapshot(self) -> Snapshot:
        (worker,) = self.workers()
        return read_snapshot(worker)

    def status_of(self, caller: str) -> str | None:
        """Return the status of the caller's session. None: it has none."""
        return {row.session_id: row.status for row in self.snapshot().sessions}.get(caller)

    def long_blocks(self, caller: str) -> list[Block]:
        (worker,) = self.workers()
        blocks = read_blocks(worker).blocks
        return [each for each in blocks if each.session_id == caller and each.duration_ms >= 1000 * BLOCK_S]

    def call(self, caller: str, number: int = 1) -> ClientConnection:
        headers = {"X-Caller": caller, "X-Tenant": "acme"}
        return unix_connect(str(self.socket), f"ws://localhost/calls/{number}", additional_headers=headers)

    def get(self, path: str, *, caller: str) -> tuple[int, str]:
        """Return the status and the body of the answer."""
        connection = HttpConnection(self.socket)
        try:
            connection.request("GET", path, headers={"X-Caller": caller})
            with connection.getresponse() as response:
                return response.status, response.read().decode()
        finally:
            connection.close()

    def end(self) -> str:
        """End it as a supervisor does, and return what it has written."""
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(WITHIN_S)
        return self.output()


@contextmanager
def serving(command: list[str]) -> Iterator[Server]:
    with tempfile.TemporaryDirectory(prefix="rt") as folder:
        server = Server(Path(folder), command)
        try:
            yield server
        finally:
            if server.process.poll() is None:
                server.end()


@pytest.fixture(scope="module", params=SERVERS)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def server(name: str) -> Iterator[Server]:
    with serving(SERVERS[name]) as server:
        yield server.started()


def test_the_server_runs_on_the_loop_that_is_meant(server: Server, name: str) -> None:
    assert server.get("/loop", caller="loop") == (200, f'"{LOOPS[name]}"')
    assert server.snapshot().worker.loop == LOOPS[name]


def test_each_websocket_is_a_session(server: Server) -> None:
    """With what its headers say, while it is open. The lifespan's state reaches the app."""
    with server.call("call-1") as one, server.call("call-2", 2):
        one.send("hello")
        assert one.recv(WITHIN_S) == "soup, hello"
        rows = {row.session_id: row for row in server.snapshot().sessions}
        assert {(rows[name].agent_name, rows[name].tenant) for name in ("call-1", "call-2")} == {("/calls/*", "acme")}
    server.until(lambda: server.status_of("call-1") is None)
    server.until(lambda: server.status_of("call-2") is None)


def test_who_blocks_is_named_with_the_line(server: Server) -> None:
    with server.call("culprit") as culprit, server.call("bystander"):
        culprit.send("archive")
        culprit.recv(WITHIN_S)
        (block,) = server.until(lambda: server.long_blocks("culprit"))  # the answer leaves before the step has ended
    assert (block.agent_name, block.tenant) == ("/calls/*", "acme")
    assert block.location is not None
    assert (Path(block.location.file).name, block.location.function) == ("asgi_app.py", "call")


def test_a_caller_who_comes_twice_is_served_twice(server: Server) -> None:
    with server.call("twice") as one, server.call("twice") as two:
        for connection in (one, two):
            connection.send("hello")
            assert connection.recv(WITHIN_S) == "soup, hello"
        ids = [row.session_id for row in server.snapshot().sessions if row.session_id.startswith("twice")]
        assert len(ids) == 2
        assert all(re.fullmatch(r"twice(#\d+)?", each) for each in ids)


def test_a_sync_endpoint_is_the_requests_session(server: Server) -> None:
    status, body = server.get("/report", caller="request-1")
    assert (status, json.loads(body)) == (200, {"session": "request-1", "in a thread": True})


def test_a_stream_is_a_session_until_the_client_leaves(server: Server) -> None:
    connection = HttpConnection(server.socket)
    connection.request("GET", "/stream", headers={"X-Caller": "listener"})
    response = connection.getresponse()
    assert [response.readline() for _ in range(PARTS)] == [b"part %d\n" % number for number in range(PARTS)]
    assert server.status_of("listener") is not None
    response.close()
    connection.close()
    server.until(lambda: server.status_of("listener") is None)


def test_an_exception_is_the_servers_and_the_session_is_errored(server: Server) -> None:
    assert server.get("/faulty", caller="unlucky")[0] == 500
    rows = {row.session_id: row for row in server.snapshot().sessions}
    assert (rows["unlucky"].status, rows["unlucky"].error) == ("errored", "LookupError: no such menu")


def test_a_connection_that_cannot_be_named_is_served(server: Server) -> None:
    """It is logged once."""
    for _ in range(2):
        status, body = server.get("/report", caller="nobody")
        assert (status, json.loads(body)["session"]) == (200, None)
    server.until(lambda: "one of the connections runs unmeasured" in server.output())
    assert server.output().count("unmeasured, and others may: nobody is no caller") == 1


def test_it_leaves_nothing_at_a_signal(name: str) -> None:
    """Nor do connections that are open keep it from ending."""
    with serving(SERVERS[name]) as server, ExitStack() as stack:
        server.started()
        stack.enter_context(server.call("call-1"))
        assert len(server.workers()) == 1
        output = server.end()
        assert server.process.returncode == ENDS_WITH[SERVERS[name][0]]
        assert "introspect" not in output  # hypercorn writes tracebacks of its own tasks that it cancels
        assert list(server.folder.iterdir()) == []


def test_without_a_lifespan_the_first_connection_attaches() -> None:
    """uvicorn can leave the lifespan out."""
    with serving(["uvicorn", "--lifespan=off"]) as server:
        server.until(server.socket.exists)
        server.until(lambda: server.get("/report", caller="request-1")[0] == 200)
        assert server.get("/report", caller="request-2")[0] == 200
        assert server.snapshot().worker.started == 2


def test_each_worker_process_serves_its_own_sessions() -> None:
    """Connections go to either; each session is in one of the two workers, and nothing is left of both."""
    with serving(["uvicorn", "--workers=2"]) as server, ExitStack() as stack:
        server.until(lambda: len(server.workers()) == 2)

        def sessions() -> list[set[str]]:
            caller = f"call-{len(callers)}"
            stack.enter_context(server.call(caller))
            callers.append(caller)  # once it is connected: the server may refuse it so far
            return [{row.session_id for row in read_snapshot(path).sessions} for path in server.workers()]

        callers: list[str] = []
        one, two = server.until(lambda: all(each := sessions()) and each)
        assert one | two == set(callers)
        assert not one & two
        stack.close()
        assert "Traceback" not in server.end()
        assert list(server.folder.iterdir()) == []
