"""Connections of asyncio's loops: who is at the other end, and which session waits for the data.

A transport calls its protocol in the context of the task that opened it or of the server that accepted it; until Python
3.14, a transport that can be written to again does so in the context of who has written. The opener says little of whom
the data is for: a pool's connection serves one session after another. So the task is looked for that waits for what the
protocol will give it: on a future that the protocol has, or an object of the protocol's (a queue, an event, a buffer).
Only references are followed, as the garbage collector sees them, so no code of the host runs. From any thread.
"""

from __future__ import annotations

import asyncio
import gc
from asyncio import sslproto
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextvars import Context
from functools import partial
from types import CodeType, FrameType, FunctionType, MethodType, ModuleType
from typing import Any, NamedTuple
from weakref import ref

from .._sessions.session import Session

MAX_DEPTH = 3
"""References from a protocol to the future, containers not counted."""
MAX_OBJECTS = 400
"""The objects that one search visits."""

PROTOCOL_METHODS = frozenset(
    {
        "buffer_updated", "connection_lost", "connection_made", "data_received", "datagram_received", "eof_received",
        "error_received", "get_buffer", "pause_writing", "pipe_data_received", "pipe_connection_lost", "process_exited",
        "resume_writing",
    }
)  # fmt: skip
"""The methods of protocols that a loop's transports call."""

UVLOOP = "uvloop.loop"
"""The module of uvloop's classes."""

_READER_PATHS = (("recv_messages", "frames", "get_waiter"),)
"""The attributes from a protocol to the future of who reads, in libraries whose protocols refer to others' tasks, too:
websockets."""

_WRITER_PATHS = (("_drain_waiters",), ("_drain_waiter",), ("write_event", "_waiters"))
"""The attributes from a protocol to the futures of who waits to write: asyncio's streams, aiohttp, anyio."""

CONTAINERS = (dict, list, tuple, set, frozenset, deque)
NOT_FOLLOWED = (
    type, ModuleType, FunctionType, CodeType, FrameType, Context, BaseException, str, bytes, bytearray, int, float,
    asyncio.AbstractEventLoop, asyncio.AbstractServer, asyncio.BaseTransport,
)  # fmt: skip


class Connection(NamedTuple):
    """A connection that a callback of the loop serves."""

    protocol: Any
    transport: Any
    """None: it is not known."""

    @property
    def peer(self) -> str | None:
        """The address at the other end: `10.0.0.7:5512`. None: it is not known, or a socket without a name."""
        return peer_of(self.transport)

    def describe(self) -> str:
        """Return the other end and the protocol's class: `10.0.0.7:5512, Decoder`."""
        name = type(self.protocol).__qualname__
        return f"{self.peer}, {name}" if self.peer is not None else name

    def was_accepted(self) -> bool:
        """Return whether a server has accepted it. False: it has not, or it is not known."""
        if type(self.transport).__module__ == UVLOOP:
            return any(type(each).__name__ == "Server" for each in gc.get_referents(self.transport))
        return getattr(self.transport, "_server", None) is not None

    def context(self) -> Context | None:
        """Return the context in which its protocol is called, whatever the handle has. None: it has none of its own."""
        if type(self.transport).__module__ == UVLOOP:
            return next((each for each in gc.get_referents(self.transport) if type(each) is Context), None)
        context = getattr(self.transport, "_context", None)  # since Python 3.15
        return context if type(context) is Context else None


class Readers(NamedTuple):
    """The sessions that are seen to use a connection."""

    waiting: set[Session]
    """Their tasks wait for what its protocol will give them."""
    referred: set[Session]
    """Its protocol refers to their tasks."""
    to_write: bool = False
    """Whether those that wait do so to write."""


def connection_of(callback: Any) -> Connection | None:
    """Return the connection whose transport this callback is a method of; None: it is no such callback."""
    if type(callback) is not MethodType:
        return None
    transport = callback.__self__
    if not isinstance_of(transport, asyncio.BaseTransport) or not type(transport).__module__.startswith("asyncio."):
        return None
    protocol = getattr(transport, "_protocol", None)
    if type(protocol) is sslproto.SSLProtocol:
        protocol = protocol._app_protocol
    return Connection(protocol, transport) if protocol is not None else None


def connection_in(frame: FrameType | None, end: FrameType | None) -> tuple[Connection, str] | None:
    """Return the connection, and the name of the protocol's method, that the frames inside of `end` were called for.

    None: none of them is a protocol's.
    """
    found = None
    while frame is not None and frame is not end:
        code = frame.f_code
        if code.co_name in PROTOCOL_METHODS and code.co_argcount:
            protocol = frame.f_locals.get(code.co_varnames[0])
            tls = type(protocol) is sslproto.SSLProtocol  # it calls the protocol that is meant
            if protocol is not None and callable(_in_class(type(protocol), code.co_name)) and not (tls and found):
                found = Connection(protocol, _transport_of(protocol)), code.co_qualname
        frame = frame.f_back
    return found


def method_in(frame: FrameType | None, end: FrameType | None) -> MethodType | None:
    """Return the method that the frames inside of `end` were called by, if it is one of a transport's.

    A handle has none any more if the transport has been closed, or has paused reading, in the middle of the method.
    """
    outermost = None
    while frame is not None and frame is not end:
        outermost, frame = frame, frame.f_back
    if outermost is None or frame is None or not outermost.f_code.co_argcount:
        return None
    code = outermost.f_code
    own = outermost.f_locals.get(code.co_varnames[0])
    method = _in_class(type(own), code.co_name)
    is_its = isinstance_of(own, asyncio.BaseTransport) and type(method) is FunctionType and method.__code__ is code
    return MethodType(method, own) if is_its else None


def isinstance_of(value: Any, kind: type | tuple[type, ...]) -> bool:
    """Return whether the type of a value is a subclass; a class that a host's object only claims is not asked for."""
    return issubclass(type(value), kind)


def is_transport(value: Any) -> bool:
    """Return whether it is a transport of asyncio's or uvloop's."""
    kind = type(value)
    return issubclass(kind, asyncio.BaseTransport) or (
        kind.__module__ == UVLOOP and kind.__name__.endswith("Transport")
    )


def peer_of(transport: Any) -> str | None:
    """Return the address at the other end: `10.0.0.7:5512`. None: it is not known, or a socket without a name."""
    if transport is None:
        return None
    if type(transport).__module__ == UVLOOP:
        peer = transport.get_extra_info("peername")
    else:
        extra = getattr(transport, "_extra", None)
        peer = extra.get("peername") if type(extra) is dict else None
    if type(peer) is tuple and len(peer) >= 2:
        host, port = peer[:2]
        return f"[{host}]:{port}" if ":" in str(host) else f"{host}:{port}"
    return peer if type(peer) is str and peer else None


def reading_sessions(
    protocol: Any,
    session_of: Callable[[asyncio.Task[Any]], Session | None],
    ready: Iterable[Any],
    *,
    writes: bool = False,
) -> Readers:
    """Return the sessions whose tasks wait for what a protocol will give them, and else those that it refers to.

    session_of: returns the session that is bound in a task. ready: what the loop is going to call, among which those
    tasks are that the protocol has just woken. writes: those that wait to write are preferred.
    """
    woken: list[asyncio.Task[Any]] | None = None

    def waiters(future: Any) -> Iterator[asyncio.Task[Any]]:
        nonlocal woken
        for callback, _ in getattr(future, "_callbacks", None) or ():
            if (task := task_of(callback)) is not None:
                yield task
        if asyncio.Future.done(future):
            if woken is None:
                woken = [task for each in ready if (task := task_of(each)) is not None]
            yield from (task for task in woken if getattr(task, "_fut_waiter", None) is future)

    def sessions(tasks: Iterable[asyncio.Task[Any]]) -> set[Session]:
        return {session for task in tasks if (session := session_of(task)) is not None and not session.ended}

    for path in (*(_WRITER_PATHS if writes else ()), *_READER_PATHS):
        found = _follow(protocol, path)
        futures = [each for each in (found if type(found) in CONTAINERS else (found,)) if _is_future(each)]
        if waiting := sessions(task for each in futures for task in waiters(each)):
            return Readers(waiting, set(), to_write=path in _WRITER_PATHS)
    referred: set[Session] = set()
    for level in _levels(protocol):
        futures = [each for each in level if _is_future(each)]
        tasks = [each for each in futures if isinstance_of(each, asyncio.Task)]
        if waiting := sessions(task for each in futures if each not in tasks for task in waiters(each)):
            return Readers(waiting, set())
        referred = referred or sessions(tasks)
    return Readers(set(), referred)


def parts_of(connection: Connection) -> list[Any]:
    """Return the objects by which code holds a connection: the protocol, the transport, those of TLS, the stream."""
    protocol, transport = connection
    around = getattr(transport, "_protocol", None) if isinstance_of(transport, asyncio.BaseTransport) else None
    tls = [around, around._app_transport] if type(around) is sslproto.SSLProtocol else []
    stream = _variables(protocol).get("_stream_reader_wr")
    return [each for each in (protocol, transport, *tls, stream() if type(stream) is ref else None) if each is not None]


def _is_future(value: Any) -> bool:
    return isinstance_of(value, asyncio.Future)


def task_of(callback: Any) -> asyncio.Task[Any] | None:
    """Return the task that a callback steps or wakes; None: it is another callback."""
    if type(callback) is not MethodType and type(callback).__module__ not in ("builtins", "_asyncio"):
        return None  # what a host's object says of itself is not asked for
    task = getattr(callback, "__self__", None)
    return task if isinstance_of(task, asyncio.Task) else None


def _levels(protocol: Any) -> Iterator[list[Any]]:
    """Yield the objects that a protocol refers to, then those that these refer to, and so on."""
    seen = {id(protocol)}
    level = [protocol]
    stream = _variables(protocol).get("_stream_reader_wr")
    more = [stream()] if type(stream) is ref else []
    for _ in range(MAX_DEPTH):
        found: list[Any] = []
        for each in level:
            if not isinstance_of(each, asyncio.Future):
                _add(found, gc.get_referents(each), protocol, seen)
        _add(found, more, protocol, seen)
        more = []
        yield found
        level = found


def _add(found: list[Any], items: Iterable[Any], protocol: Any, seen: set[int]) -> None:
    """Add to `found` what is to be followed of these items, and of the containers among them."""
    pending = deque(items)
    while pending and len(seen) < MAX_OBJECTS:
        each = pending.popleft()
        if id(each) in seen or isinstance_of(each, NOT_FOLLOWED) or type(each).__module__ == UVLOOP:
            continue
        seen.add(id(each))
        kind = type(each)
        if kind is dict:
            own = [value for key, value in each.items() if key is protocol]
            pending.extend(own or _without_registry(each.values()))
        elif kind in CONTAINERS:
            pending.extend(_without_registry(each))
        elif kind is MethodType:
            pending.append(each.__self__)
        elif kind is partial:
            pending.extend((each.func, *each.args))
        elif kind is not type(protocol):  # another connection's
            found.append(each)


def _without_registry(items: Iterable[Any]) -> list[Any]:
    """Return the items of a container, without its tasks if it has several: those of all connections."""
    listed = list(items)[:MAX_OBJECTS]
    tasks = [each for each in listed if isinstance_of(each, asyncio.Task)]
    return listed if len(tasks) <= 1 else [each for each in listed if not isinstance_of(each, asyncio.Task)]


def _follow(start: Any, path: Iterable[str]) -> Any:
    """Return what is at the end of a path of attributes in instances' dictionaries. None: nothing is."""
    for name in path:
        values = _variables(start)
        if name not in values:
            return None
        start = values[name]
    return start


def _transport_of(protocol: Any) -> Any:
    """Return the transport that a protocol has kept. None: it has kept none."""
    held = [*_variables(protocol).values(), *gc.get_referents(protocol)]  # a class with slots has no dictionary
    return next((each for each in held if is_transport(each)), None)


def _variables(instance: Any) -> dict[str, Any]:
    """Return an instance's dictionary; an empty one if the class has one of its own making."""
    descriptor = _in_class(type(instance), "__dict__")
    if type(descriptor).__name__ != "getset_descriptor":
        return {}
    values = descriptor.__get__(instance)
    return values if type(values) is dict else {}


def _in_class(kind: type, name: str) -> Any:
    """Return an attribute of a class, as it is kept. None: it has no such attribute."""
    return next((vars(each)[name] for each in kind.__mro__ if name in vars(each)), None)
