"""The event loops of the commands."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, TypeVar

import anyio

_T = TypeVar("_T")


def run_loop(function: Callable[..., Awaitable[_T]], *arguments: Any) -> _T:
    """Run an async function in an event loop of its own, as `anyio.run` does, and return what it returns."""
    return anyio.run(partial(_run, function, *arguments))


async def _run(function: Callable[..., Awaitable[_T]], *arguments: Any) -> _T:
    asyncio.get_running_loop().set_exception_handler(_report)
    return await function(*arguments)


def _report(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Report an error of a callback, unless it is one of which nothing follows.

    If data come in the round of the loop in which a read is cancelled, anyio's UNIX sockets set the result of a future
    that was cancelled, and a traceback would be printed when a view or a stream ends.
    """
    if not isinstance(context.get("exception"), asyncio.InvalidStateError):
        loop.default_exception_handler(context)
