"""Several workers watched at the same time for some seconds, for what is to be said of them afterwards."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from openrtc_introspect_core import IntrospectError
from openrtc_top._connection import READ_TIMEOUT_S

if TYPE_CHECKING:
    from openrtc_introspect_core.wire import Block, Client, Snapshot, WorkerSocket

_BLOCKS_WAITING = 100
"""A worker keeps 256 blocks: in a long watch they are asked for before any is forgotten."""


@dataclass(slots=True)
class Watched:
    """One worker's snapshots, and its history of blocks at the end."""

    worker: WorkerSocket
    snapshots: list[Snapshot] = field(default_factory=list)
    blocks: list[Block] = field(default_factory=list)
    lost: str | None = None
    """Why it was watched for less, or not at all; None: it was not."""

    @property
    def seconds(self) -> float:
        return self.snapshots[-1].taken_at - self.snapshots[0].taken_at

    @property
    def not_let_run_pct(self) -> float:
        """How much of it the loop was ready to run and was not let, in blocks that the kernel says so of."""
        begin, end = self.snapshots[0].taken_at, self.snapshots[-1].taken_at
        spans = [(b.started_at, b.started_at + b.duration_ms / 1000) for b in self.blocks if b.cause == "descheduled"]
        waited = sum(max(0.0, min(until, end) - max(since, begin)) for since, until in spans)
        return 100.0 * waited / self.seconds if self.seconds > 0.0 else 0.0


def interval_s(seconds: float) -> float:
    """Ten snapshots or more, one a second at least; sixty of a watch of more than a minute."""
    return max(0.1, min(1.0, seconds / 10), seconds / 60)


def watch_workers(workers: Sequence[WorkerSocket], seconds: float) -> list[Watched]:
    """What all of them were seen to do."""
    import anyio

    found = [Watched(worker) for worker in workers]

    async def watch_all() -> None:
        async with anyio.create_task_group() as tasks:
            for each in found:
                tasks.start_soon(_watch, each, seconds)

    anyio.run(watch_all)
    return found


async def _watch(found: Watched, seconds: float) -> None:
    import anyio

    from openrtc_introspect_core import connect

    try:
        async with connect(found.worker.path) as client:
            due = anyio.current_time()
            end = due + seconds
            while True:
                with anyio.fail_after(READ_TIMEOUT_S):
                    snapshot = await client.snapshot()
                    found.snapshots.append(snapshot)
                    last = anyio.current_time() >= end
                    await _ask_for_blocks(client, found, 0 if last else _BLOCKS_WAITING)
                if last:
                    return
                due = min(max(due + interval_s(seconds), anyio.current_time()), end)
                await anyio.sleep_until(due)
    except TimeoutError:
        found.lost = f"the worker at {str(found.worker.path)!r} does not answer within {READ_TIMEOUT_S:g} s"
    except (IntrospectError, OSError) as error:
        found.lost = str(error)


async def _ask_for_blocks(client: Client, found: Watched, waiting: int) -> None:
    """Those that are new, if there are more than so many."""
    info = found.snapshots[-1].worker
    if found.snapshots[0].worker.epoch != info.epoch:
        found.blocks.clear()
    known = found.blocks[-1].seq if found.blocks else 0
    if info.blocks - known > waiting and "blocks" in client.hello.capabilities:
        found.blocks += (await client.blocks(known)).blocks
