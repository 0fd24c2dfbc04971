from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from openrtc_introspect_core import Introspector
from openrtc_introspect_core._introspector import parts_of

Run = Callable[[Coroutine[Any, Any, Any]], Any]


def test_a_ledger_left_in_mid_step_recovers_at_the_next_wait(run_virtually: Run) -> None:
    """An interrupt between two lines of ours costs one charge, and none of those after it."""

    async def main() -> Any:
        loop: Any = asyncio.get_running_loop()
        async with Introspector(socket_path=False, clock=loop.clock) as introspector:
            with introspector.session("job-1", agent_name="test") as session:
                await asyncio.sleep(1)

                def interrupted() -> None:
                    parts_of(introspector).loops[0].ledger.begin(session)

                loop.call_soon(interrupted)
                await asyncio.sleep(1)
                busy = session.busy
                await asyncio.sleep(100)
                return session.busy - busy

    assert run_virtually(main()) == pytest.approx(0.0)
