"""livekit-agents' `Agent` classes, hosted as text sessions without a room.

A session is started, which runs the agent's `on_enter`, and stays until it closes or is cancelled. It has only what
the agent brings along: a language model, tools.
"""

from __future__ import annotations

import importlib.util
import inspect
import sys
from functools import partial
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from openrtc_introspect_core import PoolSession
    from openrtc_top._dev.entrypoint import Entrypoint


def installed() -> bool:
    """Return whether livekit-agents can be imported."""
    try:
        return importlib.util.find_spec("livekit.agents") is not None
    except ModuleNotFoundError:
        return False


def agents_of(module: ModuleType, stem: str) -> dict[str, Entrypoint]:
    """Return the file's own `Agent` classes that need no arguments, as agents.

    A single one is named after the file, several after file and class.
    """
    livekit: Any = sys.modules.get("livekit.agents")
    if livekit is None:
        return {}
    classes = [
        each
        for name, each in vars(module).items()
        if inspect.isclass(each)
        and issubclass(each, livekit.Agent)
        and each.__module__ == module.__name__
        and not name.startswith("_")
        and _needs_nothing(each)
    ]
    one = len(classes) == 1
    return {stem if one else f"{stem}.{each.__name__}": partial(host, each) for each in classes}


def _needs_nothing(kind: type) -> bool:
    try:
        inspect.signature(kind).bind()
    except (TypeError, ValueError):
        return False
    return True


async def host(kind: type, session: PoolSession) -> None:
    """Run one text session of the agent, to its end.

    Raises RuntimeError with the error that closed it.
    """
    import anyio

    livekit: Any = sys.modules["livekit.agents"]
    agent_session = livekit.AgentSession(vad=None, turn_handling={"turn_detection": "manual"}, user_away_timeout=None)
    closed = anyio.Event()
    errors: list[Any] = []

    def on_close(event: Any) -> None:
        errors.append(event.error)
        closed.set()

    agent_session.on("close", on_close)
    try:
        await agent_session.start(kind())
        await closed.wait()
    finally:
        # The pool cancels a session by an anyio scope, which would cut short this wait as well.
        with anyio.CancelScope(shield=True):
            await agent_session.aclose()
    if errors[0] is not None:
        raise RuntimeError(f"the session closed: {getattr(errors[0], 'error', errors[0])!r}")
