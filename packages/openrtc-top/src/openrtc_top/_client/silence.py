"""What happens while an answer is awaited: after a moment of silence, the black box is read.

The question goes on meanwhile, so the answer of a worker that was frozen comes as soon as it can.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import anyio

from openrtc_top._client.black_boxes import ask_box
from openrtc_top._client.targets import RemoteWorker
from openrtc_top._model.box_reading import BoxReading

if TYPE_CHECKING:
    from openrtc_introspect_core.wire import WorkerSocket

GLANCE_S = 0.1
"""After so long without an answer the box is read for a worker that cannot answer: something keeps its GIL."""
SILENT_S = 0.25
"""After so long without an answer the box is read."""
REMOTE_SILENT_S = 1.0
"""A link may be slow, which says nothing of the worker."""
AGAIN_S = 0.5
"""So often, at most, the box is read while the silence lasts."""


class Silence:
    """Notices that one worker does not answer, and reads its box.

    on_reading: is called with each reading of the box while the silence lasts.
    """

    def __init__(self, worker: WorkerSocket, on_reading: Callable[[BoxReading], object]) -> None:
        self._worker = worker
        self._on_reading = on_reading
        self._scope: anyio.CancelScope | None = None
        self._patience_s = math.inf
        self._asked = anyio.Event()
        self._asked_at = -math.inf
        self.frozen = False
        """The box says that the worker's loop is held, and there has been no answer since."""
        self.missing: str | None = None
        """The reason why nothing could be learned from a box. None: a box was read, or there was no need."""

    @contextmanager
    def awaiting(self, patience_s: float) -> Iterator[None]:
        """Await one answer in the `with` block. Raises TimeoutError after so many seconds.

        While the box says that the worker is frozen, there is no end to the wait.
        """
        self._asked_at = anyio.current_time()
        with anyio.CancelScope(deadline=self._asked_at + patience_s) as self._scope:
            self._patience_s = patience_s
            self._asked.set()
            try:
                yield
                self.frozen, self.missing = False, None
            finally:
                self._asked = anyio.Event()
        if self._scope.cancelled_caught:
            raise TimeoutError

    async def watch(self) -> None:
        """Read the box whenever an answer is awaited for too long. Never returns."""
        remote = isinstance(self._worker, RemoteWorker)
        while True:
            if remote and anyio.current_time() < self._asked_at + REMOTE_SILENT_S:
                # One timer serves the questions of a second: there may be hundreds of workers.
                await anyio.sleep_until(self._asked_at + REMOTE_SILENT_S)
                continue
            await self._asked.wait()
            asked = self._asked
            if remote:
                await self._look(asked, max(0.0, self._asked_at + REMOTE_SILENT_S - anyio.current_time()))
            else:
                await self._look(asked, GLANCE_S, glance=True)
                await self._look(asked, SILENT_S - GLANCE_S)
            while asked is self._asked:
                await self._look(asked, AGAIN_S)

    async def _look(self, asked: anyio.Event, after_s: float, *, glance: bool = False) -> None:
        """Read the box in so many seconds, if the answer has not come by then."""
        await anyio.sleep(after_s)
        if asked is not self._asked:
            return
        told = await ask_box(self._worker)
        if not glance or (isinstance(told, BoxReading) and told.gil_kept):
            self._take(told, asked)

    def _take(self, told: BoxReading | str, asked: anyio.Event) -> None:
        if asked is not self._asked:  # the answer has come meanwhile
            return
        if isinstance(told, str):
            self.frozen, self.missing = False, told
            return
        self.frozen, self.missing = told.held is not None, None
        if self.frozen and self._scope is not None:
            self._scope.deadline = anyio.current_time() + self._patience_s
        self._on_reading(told)
