"""Sessions as in a worker: an entry task opens the scope and creates tasks."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from typing import Any

from . import _loops
from ._subjects import Subject

Body = Callable[[], Coroutine[Any, Any, None]]


@asynccontextmanager
async def opened(subject: Subject, bodies: Mapping[str, Body | None]) -> AsyncIterator[None]:
    """Keep these sessions live, each running its body in a child task.

    A session with the body None only waits.
    """
    done = _loops.event()
    ready = 0

    async def entry(session_id: str, body: Body | None) -> None:
        nonlocal ready
        async with subject.session(session_id):
            child = _loops.spawn(body()) if body is not None else None
            ready += 1
            await done.wait()
            if child is not None:
                child.cancel()
                await child.wait()

    entries = [_loops.spawn(entry(*item)) for item in bodies.items()]
    while ready < len(entries):
        await _loops.sleep(0)
    try:
        yield
    finally:
        done.set()
        for each in entries:
            await each.wait()


def idle(count: int, prefix: str = "idle") -> dict[str, Body | None]:
    return {f"{prefix}-{number:05}": None for number in range(count)}
