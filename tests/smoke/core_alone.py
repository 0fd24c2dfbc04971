"""Meter a session in an environment with core and its dependencies only."""

import asyncio
import importlib.util
import time

from openrtc_introspect_core import Introspector, current_session

ABSENT = ["rich", "typer", "trio", "pytest", "uvloop", "openrtc_top", "openrtc_introspect_testing"]


async def main() -> None:
    async with Introspector(socket_path=False) as introspector:
        with introspector.session("smoke-1", agent_name="smoke"):
            assert current_session() is not None
            await asyncio.create_task(work())
            snapshot = introspector.snapshot()
    assert current_session() is None
    (row,) = snapshot.sessions
    assert (row.session_id, row.agent_name) == ("smoke-1", "smoke")
    assert row.cpu_s is not None
    assert row.cpu_s >= 0.01, f"10 ms of work, {row.cpu_s} s metered"


async def work() -> None:
    end = time.perf_counter() + 0.01
    while time.perf_counter() < end:
        pass


present = [name for name in ABSENT if importlib.util.find_spec(name)]
assert not present, f"this environment is not core alone: {present}"
asyncio.run(main())
print("core alone: ok")
