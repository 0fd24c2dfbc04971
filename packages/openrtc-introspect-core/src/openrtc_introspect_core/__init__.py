"""Session introspection from inside a worker.

It shows which session holds the event loop, which blocked it, and which grows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ._base.errors import (
    ArgumentError,
    ArgumentTypeError,
    BoxError,
    ConnectionFailed,
    EndpointError,
    IntrospectError,
    ProtocolError,
    RequestFailed,
    SessionFailed,
    StateError,
)
from ._introspector import Introspector
from ._sessions.no_session import no_session
from ._sessions.session import Session, current_session
from ._version import __version__
from .wire import Block, Location, SessionRow, Snapshot, WorkerInfo, connect, read_blocks, read_snapshot

if TYPE_CHECKING:
    from ._diagnosis.diagnose import diagnose
    from ._diagnosis.finding import Finding
    from ._hosting.hosted import PoolSession
    from ._hosting.pool import AgentPool

__all__ = [
    "AgentPool",
    "ArgumentError",
    "ArgumentTypeError",
    "Block",
    "BoxError",
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
    "no_session",
    "read_blocks",
    "read_snapshot",
]


def __getattr__(name: str) -> Any:
    # Loaded when needed: the pool needs anyio, which other hosts do not wait for; and no host diagnoses itself.
    if name in ("AgentPool", "PoolSession"):
        from ._hosting import hosted, pool

        return pool.AgentPool if name == "AgentPool" else hosted.PoolSession
    if name == "diagnose":
        from ._diagnosis.diagnose import diagnose

        return diagnose
    if name == "Finding":
        from ._diagnosis.finding import Finding

        return Finding
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
