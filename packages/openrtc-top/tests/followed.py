"""What following workers dispatches, and a way to wait for it."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import anyio

from openrtc_top._client.follow import follow_all
from openrtc_top._model.events import Event


class Followed:
    """The events of a view."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self._came = anyio.Event()

    def dispatch(self, event: Event) -> None:
        self.events.append(event)
        self._came.set()
        self._came = anyio.Event()

    async def until(self, wanted: Callable[[Event], bool]) -> Any:
        """The first event that is wanted among those that are not waited for so far."""
        while True:
            for index, event in enumerate(self.events):
                if wanted(event):
                    del self.events[: index + 1]
                    return event
            await self._came.wait()


@contextlib.asynccontextmanager
async def running(follow: Callable[[Followed], Any], within_s: float) -> AsyncIterator[Followed]:
    """Run `follow` beside a test, which has so many seconds."""
    followed = Followed()
    with anyio.fail_after(within_s):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(follow, followed)
            yield followed
            tasks.cancel_scope.cancel()


def following_all(within_s: float, **options: Any) -> contextlib.AbstractAsyncContextManager[Followed]:
    """A view of many, ten times a second. options: those of `follow_all`."""
    never = anyio.Event()

    async def follow(followed: Followed) -> None:
        await follow_all(list, 0.1, followed.dispatch, lambda: never, lambda key: True, **options)

    return running(follow, within_s)
