"""Who holds the event loop, who blocked it, who is growing: session introspection from inside a worker."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ._errors import (
    ArgumentError,
    ArgumentTypeError,
    ConnectionFailed,
    EndpointError,
    IntrospectError,
    ProtocolError,
    RequestFailed,
    SessionFailed,
    StateError,
)
from ._introspector import Introspector
from ._sessions import Session, current_session
from ._version import __version__
from .wire import Block, Location, SessionRow, Snapshot, WorkerInfo, connect, read_blocks, read_snapshot

if TYPE_CHECKING:
    from ._diagnosis import diagnose
    from ._finding import Finding
    from ._hosting import PoolSession
    from ._pool import AgentPool

__all__ = [
    "AgentPool",
    "ArgumentError",
    "ArgumentTypeError",
    "Block",
    "ConnectionFailed",
    "EndpointError",
    "Finding",
    "IntrospectError",
    "Introspector",
    "Location",
    "PoolSession",
    "ProtocolError",
    "RequestFailed",
    "Session",
    "SessionFailed",
    "SessionRow",
    "Snapshot",
    "StateError",
    "WorkerInfo",
    "__version__",
    "connect",
    "current_session",
    "diagnose",
    "read_blocks",
    "read_snapshot",
]


def __getattr__(name: str) -> Any:
    # The pool loads anyio, which a host that brings its own runtime need not wait for; and no host diagnoses itself.
    if name in ("AgentPool", "PoolSession"):
        from . import _hosting, _pool

        return _pool.AgentPool if name == "AgentPool" else _hosting.PoolSession
    if name == "diagnose":
        from ._diagnosis import diagnose

        return diagnose
    if name == "Finding":
        from ._finding import Finding

        return Finding
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
