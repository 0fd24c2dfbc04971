"""The adapter for ASGI servers, a middleware in which each websocket connection is a session.

    from openrtc_introspect_core.adapters.asgi import IntrospectionMiddleware

    app = FastAPI()
    app.add_middleware(IntrospectionMiddleware, name="voice", slow_session_threshold_ms=50)

    app = IntrospectionMiddleware(app, name="voice")  # any other ASGI app

Each process that serves the app makes an introspector when the server starts it up, and closes it before it reports to
the server that the app has shut down. With `uvicorn --workers N` each process is a worker of its own in `openrtc top`.

If the server does not start the app up, because it or the app has no lifespan protocol, the first connection attaches.
The introspector is then closed when the interpreter exits. A signal that kills the process leaves the socket's file and
the black box; a later worker removes them.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import ExitStack
from typing import Any

from .._base.errors import ArgumentTypeError
from ._guarded_sessions import GuardedSessions
from ._identity import Identity, unique_id

__all__ = ["Identity", "IntrospectionMiddleware", "header_of"]

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
Identify = Callable[[Scope], Identity | None]

_SEEN = "openrtc_introspect_core.seen"
"""The key of a scope that a middleware of ours serves. Others inside, as in a mounted app, leave it alone."""
_PREFIXES = {"websocket": "ws", "http": "http"}
_LAST_MESSAGES = ("lifespan.startup.failed", "lifespan.shutdown.complete", "lifespan.shutdown.failed")
_CHANGING_SEGMENT = re.compile(r"(?<=/)(?!v\d+(?:/|$))[^/]*\d[^/]*")


class IntrospectionMiddleware:
    """An ASGI middleware: the call of the app that serves one connection is one session.

    app: the app inside. Its exceptions, messages and cancellations pass through unchanged.
    requests: whether each HTTP request is a session, too. False: their code belongs to no session.
    identify: returns the Identity of a connection by its ASGI scope; None: the connection is no session. If it fails,
        the connection is served unmeasured. The first such failure is logged, and the snapshot's notes count them.
        By default a session has a unique id, and as agent's name the path with `*` in place of each segment that has a
        digit, versions such as `v1` excepted; and no tenant.
    options: the arguments of the Introspector.

    If an app inside has this middleware as well, only the outer one has an effect there.

    Raises ArgumentError for a wrong option. Later errors are logged, and connections are served unmeasured.
    """

    def __init__(
        self,
        app: App,
        /,  # by name it could stand among the options as well, and Starlette's type for middlewares would not fit
        *,
        requests: bool = False,
        identify: Identify | None = None,
        **options: Any,
    ) -> None:
        if identify is not None and not callable(identify):
            raise ArgumentTypeError(f"identify must be a function of an ASGI scope, got {identify!r}")
        self.app = app
        self.sessions = GuardedSessions("connections", options)
        self._types = ("websocket", "http") if requests else ("websocket",)
        self._identify: Identify = identify if identify is not None else lambda scope: Identity()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if _SEEN in scope:
            await self.app(scope, receive, send)
            return
        scope[_SEEN] = True  # in this scope and no copy: middlewares outside read what the app leaves in it
        try:
            await self._serve(scope, receive, send)
        finally:
            scope.pop(_SEEN, None)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._live(scope, receive, send)
        elif scope["type"] in self._types:
            with ExitStack() as stack:
                self.sessions.enter(stack, lambda: self._identify(scope), lambda: _default(scope))
                await self.app(scope, receive, send)
        else:
            self.sessions.attached()
            await self.app(scope, receive, send)

    async def _live(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Attach, and pass the app's lifespan through. Detach at its end, before the server knows of it."""
        ending = False

        async def receive_next() -> Message:
            nonlocal ending
            message = await receive()
            ending = ending or message["type"] == "lifespan.shutdown"
            return message

        async def send_on(message: Message) -> None:
            if message["type"] in _LAST_MESSAGES:
                await self.sessions.detached()
            await send(message)

        self.sessions.attached(anew=True)
        try:
            await self.app(scope, receive_next, send_on)
        finally:
            if ending:  # if it sent no last message
                await self.sessions.detached()


def _default(scope: Scope) -> Identity:
    return Identity(unique_id(_PREFIXES[scope["type"]]), _CHANGING_SEGMENT.sub("*", scope.get("path") or "/"))


def header_of(scope: Scope, name: str) -> str | None:
    """Return the value of the first header with this name, in any case. None: the connection has none."""
    wanted = name.lower().encode("latin-1")
    return next((value.decode("latin-1") for key, value in scope.get("headers", ()) if key.lower() == wanted), None)
