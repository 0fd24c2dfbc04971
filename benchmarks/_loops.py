"""The event loops that are measured."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

LOOPS = ("asyncio", "uvloop")
Returned = TypeVar("Returned")


def run(loop: str, main: Coroutine[Any, Any, Returned]) -> Returned:
    """asyncio.run on the loop of this name."""
    factory: Any = asyncio.SelectorEventLoop
    if loop == "uvloop":
        import uvloop

        factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(main)


def needs(loop: str, subject: str = "") -> tuple[str, ...]:
    """The modules without which this combination cannot be measured."""
    return (("uvloop",) if loop == "uvloop" else ()) + (("openrtc",) if subject == "peer" else ())
