"""The adapter for ASGI servers, a middleware in which each websocket connection is a session.

    from openrtc_introspect_core.adapters.asgi import IntrospectionMiddleware

    app = FastAPI()
    app.add_middleware(IntrospectionMiddleware, name="voice", slow_session_threshold_ms=50)

    app = IntrospectionMiddleware(app, name="voice")  # any other ASGI app

Each process that serves the app makes an introspector when the server starts it up, and closes it before it reports to
the server that the app has shut down. With `uvicorn --workers N` each process is a worker of its own in `openrtc top`.

If the server does not start the app up, because it or the app has no lifespan protocol, the first connection attaches.
The introspector is then closed when the interpreter exits. A signal that kills the process leaves the socket's file and
the black box; the next worker removes them.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any
from uuid import uuid4
from weakref import WeakSet

from .._base.errors import ArgumentError, ArgumentTypeError
from .._base.interrupts import is_interrupt
from .._base.log import QueuedLogger
from .._base.validation import MAX_NAME, check_text
from .._introspector import Introspector
from .._loops.running_loop import Loop, running_loop
from ._process import ProcessIntrospector

logger = QueuedLogger("openrtc.introspect")

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

_PREFIXES = {"websocket": "ws", "http": "http"}
_LAST_MESSAGES = ("lifespan.startup.failed", "lifespan.shutdown.complete", "lifespan.shutdown.failed")
_CHANGING_SEGMENT = re.compile(r"(?<=/)(?!v\d+(?:/|$))[^/]*\d[^/]*")


@dataclass(frozen=True, slots=True)
class Identity:
    """What the session of one connection is called; None and "" stand for the default.

    Raises ArgumentError for a value that is no str of at most 256 characters.
    """

    session_id: str | None = None
    """If a live session has this id, `#` and a number follow it. Default: a unique id, which no caller can choose."""
    agent_name: str | None = None
    """Default: the path, with `*` in place of each segment that has a digit, versions such as `v1` excepted."""
    tenant: str | None = None
    """Default: none."""

    def __post_init__(self) -> None:
        for what in ("session_id", "agent_name", "tenant"):
            if (value := getattr(self, what)) not in (None, ""):
                check_text(what, value)


Identify = Callable[[Scope], Identity | None]


class IntrospectionMiddleware:
    """An ASGI middleware: the call of the app that serves one connection is one session.

    app: the app inside. Its exceptions, messages and cancellations pass through unchanged.
    requests: whether each HTTP request is a session, too. False: their code belongs to no session.
    identify: returns the Identity of a connection by its ASGI scope; None: the connection is no session. If it fails,
        the connection is served unmeasured. The first such failure is logged, and the snapshot's notes count them.
        None: the defaults of Identity.
    options: the arguments of the Introspector.

    Raises ArgumentError for a wrong option. Later errors are logged, and connections are served unmeasured.
    """

    def __init__(self, app: App, *, requests: bool = False, identify: Identify | None = None, **options: Any) -> None:
        if identify is not None and not callable(identify):
            raise ArgumentTypeError(f"identify must be a function of an ASGI scope, got {identify!r}")
        self.app = app
        self.process = ProcessIntrospector(options)
        self._session_types = ("websocket", "http") if requests else ("websocket",)
        self._identify = identify
        self._taken = itertools.count(2)
        """The numbers behind ids that were live already."""
        self._unmeasured = 0
        self._left_alone: WeakSet[Loop] = WeakSet()
        """Loops that could not be attached to, or whose app has shut down."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._live(scope, receive, send)
            return
        with ExitStack() as stack:
            introspector = self._attached()
            if introspector is not None and scope["type"] in self._session_types:
                self._enter(introspector, scope, stack)
            await self.app(scope, receive, send)

    # --- the lifespan ----------------------------------------------------------------------------

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
                await self._detach()
            await send(message)

        self._leave_alone(False)
        self._attached()
        try:
            await self.app(scope, receive_next, send_on)
        finally:
            if ending:  # without a last message
                await self._detach()

    def _attached(self) -> Introspector | None:
        """Return the introspector, attached to the running loop. None: connections are served unmeasured."""
        loop = running_loop()
        if loop is None or loop in self._left_alone:
            return None
        try:
            return self.process.attached()
        except Exception as fault:
            if is_interrupt(fault):
                raise
            self._leave_alone(True)
            logger.warning(
                "introspection of %s: connections are served unmeasured: %s", self.process.name, fault, exc_info=fault
            )
            return None

    async def _detach(self) -> None:
        self._leave_alone(True)
        try:
            await self.process.detached()
        except Exception as fault:
            if is_interrupt(fault):
                raise
            logger.warning("introspection of %s could not be ended: %s", self.process.name, fault, exc_info=fault)

    def _leave_alone(self, alone: bool) -> None:
        """Attach to the running loop no more, or again."""
        loop = running_loop()
        if loop is not None:
            (self._left_alone.add if alone else self._left_alone.discard)(loop)

    # --- one connection --------------------------------------------------------------------------

    def _enter(self, introspector: Introspector, scope: Scope, stack: ExitStack) -> None:
        """Enter the session of a connection, which ends with the stack."""
        try:
            identity = self._identify(scope) if self._identify is not None else Identity()
            if identity is None:
                return
            if not isinstance(identity, Identity):
                raise ArgumentTypeError(f"identify must return an Identity or None, got {identity!r:.200}")
            session_id = identity.session_id or f"{_PREFIXES[scope['type']]}-{uuid4().hex[:12]}"
            agent_name = identity.agent_name or agent_of(scope)
            metadata = {"tenant": identity.tenant} if identity.tenant else None
            try:
                stack.enter_context(introspector.session(session_id, agent_name=agent_name, metadata=metadata))
            except ArgumentError:  # a live session has the id
                session_id = f"{session_id[: MAX_NAME - 20]}#{next(self._taken)}"
                stack.enter_context(introspector.session(session_id, agent_name=agent_name, metadata=metadata))
        except Exception as fault:
            if is_interrupt(fault):
                raise
            self._unmeasured += 1
            if self._unmeasured == 1:
                logger.warning(
                    "introspection of %s: a connection is served unmeasured, and so may be others: %s",
                    self.process.name,
                    fault,
                    exc_info=fault,
                )
            introspector.note("asgi", f"connections served unmeasured: {self._unmeasured}; the log says why")


def agent_of(scope: Scope) -> str:
    """Return the default name of a connection's agent: its path without what differs from caller to caller."""
    path = _CHANGING_SEGMENT.sub("*", scope.get("path") or "/")
    return path.encode("utf-8", "replace").decode("utf-8")[:MAX_NAME]


def header_of(scope: Scope, name: str) -> str | None:
    """Return the value of the first header with this name, in any case. None: the connection has none."""
    wanted = name.lower().encode("latin-1")
    return next((value.decode("latin-1") for key, value in scope.get("headers", ()) if key.lower() == wanted), None)
