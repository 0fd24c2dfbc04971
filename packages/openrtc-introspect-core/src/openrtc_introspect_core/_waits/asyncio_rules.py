"""The rules of asyncio's own functions, and of uvloop's."""

from __future__ import annotations

from typing import Any

from .._loops.await_chain import is_future
from .found import Looker, TaskWait, describe
from .future_wait import pending, wait_for_children, wait_of_futures
from .rules import TRANSPARENT, Rule, Table, vars_of


def _waited(values: list[Any], inner: TaskWait | None, looker: Looker) -> TaskWait | None:
    """`asyncio.wait`, whose first argument is the set of what is waited for."""
    fs = values[0] if values else None
    return wait_of_futures(pending(fs), "wait", looker) if isinstance(fs, set | frozenset | list) else None


def _waited_for(values: list[Any], inner: TaskWait | None, looker: Looker) -> TaskWait | None:
    """`asyncio.wait_for`: up to Python 3.11 it waits for a task that it makes; later it awaits what it is given."""
    future = values[0] if values else None
    return wait_of_futures([future], "wait_for", looker) if is_future(future) else None


def grouped(values: list[Any], inner: TaskWait | None, looker: Looker) -> TaskWait | None:
    """A task group at its end: asyncio's, and anyio's on asyncio."""
    tasks = vars_of(values[0]).get("_tasks") if values else None
    return wait_for_children(pending(tasks), "task group", looker) if isinstance(tasks, set) else None


def _got(values: list[Any], inner: TaskWait | None, looker: Looker) -> TaskWait | None:
    return _queued(values, "empty")


def _put(values: list[Any], inner: TaskWait | None, looker: Looker) -> TaskWait | None:
    return _queued(values, "full")


def _joined(values: list[Any], inner: TaskWait | None, looker: Looker) -> TaskWait | None:
    return _queued(values, "with entries to be done")


def _queued(values: list[Any], state: str) -> TaskWait | None:
    return TaskWait("queue", values[0], f"{describe(values[0])}, {state}") if values else None


_PIPES = ("ReadSubprocessPipeProto", "WriteSubprocessPipeProto")


def _received(values: list[Any], inner: TaskWait | None, looker: Looker) -> TaskWait | None:
    """A stream reader that waits for data: of a connection, or of a subprocess."""
    transport = vars_of(values[0]).get("_transport") if values else None
    if transport is not None and type(transport).__module__ == "uvloop.loop":
        protocol = transport.get_protocol()
    else:
        protocol = vars_of(transport).get("_protocol") if transport is not None else None
    of_process = type(protocol).__name__ in _PIPES
    return TaskWait("process", None, "output of a process") if of_process else TaskWait("socket", None, "stream, read")


def _drained(values: list[Any], inner: TaskWait | None, looker: Looker) -> TaskWait | None:
    of_process = bool(values) and type(values[0]).__name__ == "SubprocessStreamProtocol"
    return TaskWait("process", None, "input of a process") if of_process else TaskWait("socket", None, "stream, drain")


_LOOP_SOCKETS = {
    name: Rule("socket", what=name)
    for name in (
        "sock_recv", "sock_recv_into", "sock_recvfrom", "sock_recvfrom_into", "sock_sendall", "sock_sendto",
        "sock_connect", "sock_accept",
    )
}  # fmt: skip

ASYNCIO: Table = {
    "asyncio/locks.py": {
        "Lock.acquire": Rule("lock", owner="Lock"),
        "Semaphore.acquire": Rule("semaphore", owner="Semaphore"),
        "Condition.wait": Rule("condition", owner="Condition"),
        "Condition.wait_for": Rule("condition", owner="Condition", refines=("condition",)),
        "Event.wait": Rule("event", owner="Event"),
        "Barrier._block": Rule("barrier", owner="Barrier", refines=("condition",)),
        "Barrier._wait": Rule("barrier", owner="Barrier", refines=("condition",)),
        "Barrier.wait": TRANSPARENT,
        "Barrier.__aenter__": TRANSPARENT,
        "_ContextManagerMixin.__aenter__": TRANSPARENT,
    },
    "asyncio/queues.py": {
        "Queue.get": Rule("queue", owner="Queue", reading=_got),
        "Queue.put": Rule("queue", owner="Queue", reading=_put),
        "Queue.join": Rule("queue", owner="Queue", refines=("event",), reading=_joined),
    },
    "asyncio/tasks.py": {
        "sleep": Rule("timer", "sleep"),
        "_wait": Rule("own-task", reading=_waited),
        "wait": TRANSPARENT,
        "wait_for": Rule(reading=_waited_for),
        "as_completed.<locals>._wait_for_one": Rule("own-task", "as_completed", refines=("queue",)),
        "_AsCompletedIterator._wait_for_one": Rule("own-task", "as_completed", refines=("queue",)),
        "_AsCompletedIterator.__anext__": TRANSPARENT,
    },
    "asyncio/taskgroups.py": {
        "TaskGroup.__aexit__": Rule("own-task", reading=grouped),
        "TaskGroup._aexit": Rule("own-task", reading=grouped),
    },
    "asyncio/futures.py": {"Future.__await__": TRANSPARENT},
    "asyncio/threads.py": {"to_thread": TRANSPARENT},
    "asyncio/streams.py": {
        "StreamReader._wait_for_data": Rule("socket", reading=_received),
        "FlowControlMixin._drain_helper": Rule("socket", reading=_drained),
        "StreamWriter.wait_closed": Rule("socket", what="stream, close"),
    },
    "asyncio/selector_events.py": {f"BaseSelectorEventLoop.{name}": rule for name, rule in _LOOP_SOCKETS.items()},
    "asyncio/proactor_events.py": {f"BaseProactorEventLoop.{name}": rule for name, rule in _LOOP_SOCKETS.items()},
    "asyncio/base_events.py": {
        "BaseEventLoop.getaddrinfo": Rule(what="getaddrinfo", refines=("thread", "executor")),
        "BaseEventLoop.getnameinfo": Rule(what="getnameinfo", refines=("thread", "executor")),
        "BaseEventLoop._create_connection_transport": Rule("socket", "connection, handshake"),
        "BaseEventLoop.create_datagram_endpoint": Rule("socket", "connection, handshake"),
        "BaseEventLoop.connect_accepted_socket": Rule("socket", "connection, handshake"),
        "BaseEventLoop.start_tls": Rule("socket", "connection, handshake"),
        "BaseEventLoop.shutdown_default_executor": Rule("thread", "end of the default executor"),
        "Server.serve_forever": Rule("socket", "server"),
        "Server.wait_closed": Rule("socket", "server, close"),
    },
    "asyncio/base_subprocess.py": {
        "BaseSubprocessTransport._wait": Rule("process", "end of a process"),
    },
    "asyncio/subprocess.py": {
        "Process.wait": Rule("process", "end of a process", refines=("process", "unknown")),
        "Process._read_stream": TRANSPARENT,
        "Process._feed_stdin": TRANSPARENT,
        "Process.communicate": Rule("process", "process, communicate", refines=("own-task", "unknown")),
    },
}
