"""The entrypoint that an agent's file must define: it takes one session."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from openrtc_introspect_core import PoolSession

WANTED = "`async def entrypoint(session)`"

Entrypoint = Callable[["PoolSession"], Awaitable[Any]]


class AgentError(Exception):
    """A file whose agents cannot be hosted: where and why, in one line."""
