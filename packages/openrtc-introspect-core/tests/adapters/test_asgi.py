"""The ASGI middleware around plain apps, driven by hand; tests/runtimes has it on real servers."""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest

from openrtc_introspect_core import ArgumentError, Introspector, SessionRow, Snapshot, current_session
from openrtc_introspect_core._base.log import flush
from openrtc_introspect_core.adapters.asgi import (
    Identity,
    IntrospectionMiddleware,
    Message,
    Receive,
    Scope,
    Send,
    header_of,
)
from openrtc_introspect_testing._loops.backends import Backend

LAST = "lifespan.shutdown.complete"


class App:
    """An app inside of the middleware. It answers each request with the session that it runs in."""

    def __init__(self, serve: Callable[[Scope, Receive, Send], Any] | None = None) -> None:
        self.serve = serve
        self.seen: list[tuple[str, str, str | None] | None] = []
        self.received: list[Message] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            for kind in ("startup", "shutdown"):
                self.received.append(await receive())
                await send({"type": f"lifespan.{kind}.complete"})
            return
        session = current_session()
        self.seen.append(session and (session.session_id, session.agent_name, session.tenant))
        if self.serve is not None:
            await self.serve(scope, receive, send)


class Server:
    """As much of an ASGI server as the tests need."""

    def __init__(self, app: Any) -> None:
        self.app = app
        self.sent: list[Message] = []

    async def call(self, kind: str = "websocket", path: str = "/calls/42", **scope: Any) -> None:
        """Serve one connection to its end."""
        await self.app({"type": kind, "path": path, **scope}, self.receive, self.send)

    async def receive(self) -> Message:
        return {"type": "websocket.disconnect", "code": 1006}

    async def send(self, message: Message) -> None:
        self.sent.append(message)

    @asynccontextmanager
    async def lifespan(self) -> AsyncIterator[list[Message]]:
        """Start the app up, and shut it down at the end. It gives what the app has sent in its lifespan."""
        requests, received = anyio.create_memory_object_stream[Message](2)
        sent: list[Message] = []
        replied = anyio.Event()

        async def send(message: Message) -> None:
            nonlocal replied
            sent.append(message)
            replied.set()
            replied = anyio.Event()

        with requests, received:
            async with anyio.create_task_group() as group:
                reply = replied
                group.start_soon(self.app, {"type": "lifespan"}, received.receive, send)
                requests.send_nowait({"type": "lifespan.startup"})
                await reply.wait()
                yield sent
                requests.send_nowait({"type": "lifespan.shutdown"})


@pytest.fixture(autouse=True)
def made(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Introspector]]:
    """The introspectors of a test that were attached, closed at its end."""
    attached: list[Introspector] = []
    attach = Introspector.attach

    def remembered(self: Introspector, loop: Any = None) -> None:
        attach(self, loop)
        attached.append(self)

    monkeypatch.setattr(Introspector, "attach", remembered)
    yield attached
    for each in attached:
        each.close()


def snapshot(middleware: IntrospectionMiddleware) -> Snapshot:
    assert middleware.sessions.process.introspector is not None
    return middleware.sessions.process.introspector.snapshot()


def rows(middleware: IntrospectionMiddleware) -> list[SessionRow]:
    return snapshot(middleware).sessions


def measured(app: Any, **options: Any) -> IntrospectionMiddleware:
    return IntrospectionMiddleware(app, socket_path=False, **options)


# --- sessions ------------------------------------------------------------------------------------


def test_a_websocket_is_a_session(on_any_loop: Backend) -> None:
    """It lasts as long as the app serves the connection. By default it has a unique id, and its path's name."""

    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        (row,) = rows(middleware)
        live.append((row.session_id, row.tasks))

    live: list[Any] = []
    app = App(serve)
    middleware = measured(app)

    async def main() -> None:
        for _ in range(2):
            await Server(middleware).call()
        assert rows(middleware) == []

    on_any_loop(main())
    first, second = app.seen
    assert first is not None
    assert second is not None
    assert first[0].startswith("ws-")
    assert first[0] != second[0]
    assert first[1:] == second[1:] == ("/calls/*", None)
    assert live == [(first[0], 1), (second[0], 1)]


def test_its_tasks_are_the_sessions(on_any_loop: Backend) -> None:
    """All that the app makes while it serves a connection."""

    async def child() -> None:
        session = current_session()
        assert session is not None
        inside.append(session.session_id)

    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(child)

    inside: list[str] = []
    app = App(serve)
    on_any_loop(Server(measured(app)).call())
    assert app.seen[0] is not None
    assert inside == [app.seen[0][0]]


def test_a_sync_endpoint_is_the_sessions(on_any_loop: Backend) -> None:
    """As frameworks run it, on one of anyio's threads."""

    def endpoint() -> None:
        session = current_session()
        assert session is not None
        inside.append((session.session_id, threading.current_thread() is threading.main_thread()))

    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        await anyio.to_thread.run_sync(endpoint)

    inside: list[Any] = []
    app = App(serve)
    on_any_loop(Server(measured(app)).call())
    assert app.seen[0] is not None
    assert inside == [(app.seen[0][0], False)]


def test_a_request_is_a_session_if_asked(on_any_loop: Backend) -> None:
    """Else its code belongs to no session."""
    app = App()

    async def main() -> None:
        for requests in (False, True):
            middleware = measured(app, requests=requests)
            await Server(middleware).call("http", "/menu")
            await middleware.sessions.process.detached()

    on_any_loop(main())
    none, some = app.seen
    assert none is None
    assert some is not None
    assert some[0].startswith("http-")
    assert some[1] == "/menu"


def test_a_function_names_the_session(on_any_loop: Backend) -> None:
    """It reads the scope. What it leaves out has the default, and None stands for no session."""

    def identify(scope: Scope) -> Identity | None:
        if scope["path"] == "/health":
            return None
        return Identity(header_of(scope, "X-Call"), agent_name="desk", tenant=header_of(scope, "x-tenant"))

    app = App()
    middleware = measured(app, identify=identify)

    async def main() -> None:
        server = Server(middleware)
        await server.call(headers=[(b"x-call", b"call-7"), (b"x-tenant", b"acme"), (b"x-call", b"call-8")])
        await server.call(headers=[(b"x-call", b"")])
        await server.call(path="/health")

    on_any_loop(main())
    named, by_default, none = app.seen
    assert named == ("call-7", "desk", "acme")
    assert by_default is not None
    assert (by_default[0][:3], by_default[1:]) == ("ws-", ("desk", None))
    assert none is None


def test_an_id_that_is_live_gets_a_number(on_any_loop: Backend) -> None:
    """A caller who comes back while the broken connection still ends is served, and measured."""

    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        if len(app.seen) < 3:
            await Server(middleware).call()

    app = App(serve)
    middleware = measured(app, identify=lambda scope: Identity("c" * 256))
    on_any_loop(Server(middleware).call())
    ids = [seen and seen[0] for seen in app.seen]
    assert ids == ["c" * 256, "c" * 236 + "#2", "c" * 236 + "#3"]


# --- the app is never broken ---------------------------------------------------------------------


def test_messages_pass_unchanged(on_any_loop: Backend) -> None:
    """The app gets the server's own scope and functions: streaming costs nothing more."""

    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        got.append((scope, receive, send))

    got: list[Any] = []
    server = Server(measured(App(serve), requests=True))
    scope = {"type": "http", "path": "/"}

    async def main() -> None:
        await server.app(scope, server.receive, server.send)

    on_any_loop(main())
    ((its_scope, receive, send),) = got
    assert its_scope is scope
    assert (receive, send) == (server.receive, server.send)


def test_an_exception_passes_and_is_counted(on_any_loop: Backend) -> None:
    """The server gets the app's own."""

    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        raise error

    error = LookupError("no such menu")
    middleware = measured(App(serve))

    async def main() -> None:
        with pytest.raises(LookupError) as raised:
            await Server(middleware).call()
        assert raised.value is error
        assert [(row.status, row.error) for row in rows(middleware)] == [("errored", "LookupError: no such menu")]

    on_any_loop(main())


def test_a_cancellation_passes_and_is_no_failure(on_any_loop: Backend) -> None:
    """A server cancels connections at its end."""

    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        scopes[0].cancel()
        await anyio.sleep_forever()

    scopes: list[anyio.CancelScope] = []
    middleware = measured(App(serve))

    async def main() -> None:
        with anyio.CancelScope() as cancel_scope:
            scopes.append(cancel_scope)
            await Server(middleware).call()
        assert cancel_scope.cancelled_caught
        assert (rows(middleware), snapshot(middleware).worker.errored) == ([], 0)

    on_any_loop(main())


@pytest.mark.parametrize(
    ("identify", "problem"),
    [
        (lambda scope: scope["no such key"], "KeyError: 'no such key'"),
        (lambda scope: "call-7", "identify must return an Identity or None, got 'call-7'"),
        (lambda scope: Identity(agent_name=7), "agent_name must be a str or None, got 7"),  # type: ignore[arg-type]
    ],
)
def test_a_failing_function_is_logged_once(
    run_on_asyncio: Backend, caplog: pytest.LogCaptureFixture, identify: Any, problem: str
) -> None:
    """The connections are served unmeasured, and the snapshot counts them."""
    app = App()
    middleware = measured(app, identify=identify, name="voice")

    async def main() -> None:
        for _ in range(3):
            await Server(middleware).call()
        assert "connections that ran unmeasured: 3; the log says why" in snapshot(middleware).worker.notes

    with caplog.at_level(logging.WARNING):
        run_on_asyncio(main())
        assert flush(60.0)
    assert app.seen == [None, None, None]
    (record,) = (record for record in caplog.records if "unmeasured" in record.getMessage())
    assert "introspection of voice: one of the connections runs unmeasured" in record.getMessage()
    assert record.exc_info is not None
    assert problem in caplog.text


def test_an_app_on_a_loop_that_cannot_be_attached_to_is_served(
    run_on_asyncio: Backend, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is tried once, and logged once."""

    def attach(self: Introspector, loop: Any = None) -> None:
        tries.append(loop)
        raise OSError("the directory is not private")

    tries: list[Any] = []
    monkeypatch.setattr(Introspector, "attach", attach)
    app = App()
    server = Server(measured(app, name="voice"))

    async def main() -> None:
        async with server.lifespan() as sent:
            await server.call()
            await server.call()
        assert [message["type"] for message in sent] == ["lifespan.startup.complete", LAST]

    with caplog.at_level(logging.WARNING):
        run_on_asyncio(main())
        assert flush(60.0)
    assert (app.seen, len(tries)) == ([None, None], 1)
    (record,) = (record for record in caplog.records if "unmeasured" in record.getMessage())
    assert record.getMessage().endswith("connections run unmeasured: the directory is not private")


def test_an_end_that_fails_is_logged(
    run_on_asyncio: Backend, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The app's shutdown goes on."""

    async def aclose(self: Introspector) -> None:
        raise OSError("the socket cannot be removed")

    monkeypatch.setattr(Introspector, "aclose", aclose)
    server = Server(measured(App(), name="voice"))

    async def main() -> None:
        async with server.lifespan() as sent:
            pass
        assert [message["type"] for message in sent] == ["lifespan.startup.complete", LAST]

    with caplog.at_level(logging.WARNING):
        run_on_asyncio(main())
        assert flush(60.0)
    assert "introspection of voice: it could not be ended: the socket cannot be removed" in caplog.text


def test_an_app_without_a_known_loop_is_served() -> None:
    """Someone may drive it by hand."""
    app = App()
    with pytest.raises(StopIteration):
        Server(measured(app)).call().send(None)
    assert app.seen == [None]


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGUSR1")
def test_a_signal_handlers_exception_is_the_hosts(run_on_asyncio: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is no fault of what it interrupts."""

    class TimeLimit(Exception):
        pass

    def handler(number: int, frame: object) -> None:
        raise TimeLimit

    def interrupt(*arguments: Any) -> Any:
        signal.raise_signal(signal.SIGUSR1)

    one, other = measured(App(), identify=interrupt), measured(App())
    monkeypatch.setattr(other.sessions.process, "attached", interrupt)
    before = signal.signal(signal.SIGUSR1, handler)
    try:
        for middleware in (one, other):
            with pytest.raises(TimeLimit):
                run_on_asyncio(Server(middleware).call())
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_a_wrong_option_is_reported_where_it_is_given() -> None:
    """Not when the first caller comes."""
    with pytest.raises(ArgumentError, match="slow_session_threshold_ms must be greater than 0, got -1"):
        measured(App(), slow_session_threshold_ms=-1)
    with pytest.raises(ArgumentError, match="identify must be a function of an ASGI scope, got 'call-7'"):
        measured(App(), identify="call-7")


# --- the lifespan --------------------------------------------------------------------------------


def test_it_is_attached_from_startup_to_shutdown(on_any_loop: Backend, made: list[Introspector]) -> None:
    """When the server learns of the end, nothing is left. Another lifespan begins anew."""
    app = App()
    middleware = measured(app)
    server = Server(middleware)

    async def main() -> None:
        for _ in range(2):
            async with server.lifespan() as sent:
                assert snapshot(middleware).worker.draining is False
                await server.call()
            assert middleware.sessions.process.introspector is None
            assert [message["type"] for message in sent] == ["lifespan.startup.complete", LAST]

    on_any_loop(main())
    assert [message["type"] for message in app.received] == ["lifespan.startup", "lifespan.shutdown"] * 2
    assert None not in app.seen
    assert len(made) == 2


def test_it_is_detached_before_the_server_knows_of_the_end(on_any_loop: Backend) -> None:
    """A server may end the process at once, as uvicorn does at a signal."""
    states: list[tuple[str, bool]] = []

    async def send(message: Message) -> None:
        states.append((message["type"], middleware.sessions.process.introspector is not None))

    middleware = measured(App())
    received = iter([{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}])

    async def receive() -> Message:
        return next(received)

    async def main() -> None:
        await middleware({"type": "lifespan"}, receive, send)

    on_any_loop(main())
    assert states == [("lifespan.startup.complete", True), (LAST, False)]


def test_an_app_that_leaves_without_a_last_message_is_detached(on_any_loop: Backend) -> None:
    """Whether it returns or raises."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await receive()
        raise error

    error = LookupError("no database")
    middleware = measured(app)
    received = iter([{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}])

    async def receive() -> Message:
        return next(received)

    async def main() -> None:
        with pytest.raises(LookupError) as raised:
            await middleware({"type": "lifespan"}, receive, Server(app).send)
        assert raised.value is error
        assert middleware.sessions.process.introspector is None

    on_any_loop(main())


@pytest.mark.parametrize("known", [True, False])
def test_an_app_without_a_lifespan_stays_attached(on_any_loop: Backend, known: bool) -> None:
    """Whether the server asks for it, and the app raises, or the first connection comes."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            raise ValueError("unknown type of scope")
        await inner(scope, receive, send)

    inner = App()
    middleware = measured(app)

    async def main() -> None:
        if known:
            with pytest.raises(ValueError, match="unknown type of scope"):
                await Server(middleware).call("lifespan")
        await Server(middleware).call("http")
        assert snapshot(middleware).worker.started == 0
        await Server(middleware).call()
        assert snapshot(middleware).worker.started == 1

    on_any_loop(main())
    assert [seen is None for seen in inner.seen] == [True, False]


def test_after_the_end_connections_are_served_unmeasured(on_any_loop: Backend, made: list[Introspector]) -> None:
    """No connection that comes late attaches anew."""
    app = App()
    server = Server(measured(app))

    async def main() -> None:
        async with server.lifespan():
            pass
        await server.call()

    on_any_loop(main())
    assert (app.seen, len(made)) == ([None], 1)


def test_two_loops_have_one_introspector(run_on_asyncio: Backend, made: list[Introspector]) -> None:
    """The end of one leaves the other attached."""

    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/outer":
            await asyncio.to_thread(asyncio.run, other())

    async def other() -> None:
        async with server.lifespan():
            assert len(snapshot(middleware).worker.loops) == 2
            await server.call(path="/inner")

    async def main() -> None:
        async with server.lifespan():
            await server.call(path="/outer")
            assert snapshot(middleware).worker.loops == []  # as for any worker with one loop
        assert middleware.sessions.process.introspector is None

    app = App(serve)
    middleware = measured(app)
    server = Server(middleware)
    run_on_asyncio(main())
    assert [seen and seen[1] for seen in app.seen] == ["/outer", "/inner"]
    assert len(set(map(id, made))) == 1


def test_of_two_around_one_app_the_outer_one_counts(on_any_loop: Backend, made: list[Introspector]) -> None:
    """A connection is one session of one worker, also if a mounted app has the middleware as well."""
    app = App()
    inner = measured(app, identify=lambda scope: Identity("inner"))
    outer = measured(inner, identify=lambda scope: Identity("outer"))
    server = Server(outer)
    scope = {"type": "websocket", "path": "/calls/42"}

    async def main() -> None:
        async with server.lifespan():
            for _ in range(2):  # the same scope may be served again
                await outer(scope, server.receive, server.send)

    on_any_loop(main())
    assert [seen and seen[0] for seen in app.seen] == ["outer", "outer"]
    assert scope == {"type": "websocket", "path": "/calls/42"}
    assert inner.sessions.process.introspector is None
    assert len(made) == 1


# --- names ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "agent"),
    [
        ("/calls/42", "/calls/*"),
        ("/api/v1/calls/c-7/audio", "/api/v1/calls/*/audio"),
        ("/v2", "/v2"),
        ("/v2x", "/*"),
        ("/", "/"),
        ("", "/"),
        ("/desk", "/desk"),
        ("/desk\udc80", "/desk?"),
        ("/" + "d" * 300, "/" + "d" * 255),
    ],
)
def test_the_agent_is_the_path_without_what_is_a_callers(run_on_asyncio: Backend, path: str, agent: str) -> None:
    """So that the connections of one endpoint have one name, whatever their callers ask for."""
    app = App()
    run_on_asyncio(Server(measured(app)).call(path=path))
    assert [seen and seen[1] for seen in app.seen] == [agent]


def test_what_a_caller_chooses_is_made_usable(run_on_asyncio: Backend) -> None:
    """Else a caller could choose not to be measured."""
    app = App()
    middleware = measured(app, identify=lambda scope: Identity("c" * 300, "a\udc80", "t" * 300))
    run_on_asyncio(Server(middleware).call())
    assert app.seen == [("c" * 256, "a?", "t" * 256)]


def test_a_header_is_found_in_any_case() -> None:
    """The first one with the name."""
    scope = {"headers": [(b"x-a", b"1"), (b"X-Tenant", b"acme"), (b"x-tenant", b"globex")]}
    assert header_of(scope, "x-TENANT") == "acme"
    assert header_of(scope, "x-b") is None
    assert header_of({}, "x-b") is None
