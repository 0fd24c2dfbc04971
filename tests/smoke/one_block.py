"""Serve three sessions on a socket, block the loop in one of them, and read who did it and at which line."""

import asyncio
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from openrtc_introspect_core import Introspector, connect
from openrtc_introspect_core.wire import Block, Snapshot

SECONDS = 0.5


async def main() -> None:
    with TemporaryDirectory() as folder:  # it is made with mode 0700, which the socket's folder must have
        path = Path(folder, "worker.sock")
        async with Introspector(socket_path=path) as introspector:
            calls = [asyncio.create_task(call(introspector, f"call-{number}")) for number in range(3)]
            await asyncio.sleep(4 * SECONDS)
            async with connect(path) as client:
                snapshot = await client.snapshot()
                blocks = await client.blocks()
            for each in calls:
                each.cancel()
            await asyncio.gather(*calls, return_exceptions=True)
    check(snapshot, blocks.blocks)


async def call(introspector: Introspector, name: str) -> None:
    with introspector.session(name, agent_name="smoke"):
        await asyncio.sleep(SECONDS)
        if name == "call-1":
            time.sleep(SECONDS)  # the culprit
        while True:
            await asyncio.sleep(0.01)


def check(snapshot: Snapshot, blocks: list[Block]) -> None:
    rows = {row.session_id: row for row in snapshot.sessions}
    assert sorted(rows) == ["call-0", "call-1", "call-2"]
    for note in snapshot.worker.notes:
        print("note:", note)
    for block in blocks:
        print(f"block: {block.session_id}, {block.duration_ms:.0f} ms, {block.cause}, {block.location}")
    (culprit,) = (block for block in blocks if block.session_id == "call-1" and block.duration_ms >= SECONDS * 1000)
    line = next(number for number, text in enumerate(Path(__file__).read_text().splitlines(), 1) if "# the cul" in text)
    assert culprit.location is not None
    assert (Path(culprit.location.file).name, culprit.location.line) == (Path(__file__).name, line)
    assert (rows["call-1"].cpu_s or 0) >= SECONDS, "the block is not charged to the session"


asyncio.run(main())
print("one block: ok")
