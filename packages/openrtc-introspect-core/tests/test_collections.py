from __future__ import annotations

import gc
import threading
from collections.abc import Callable, Coroutine
from contextvars import ContextVar
from typing import Any

from openrtc_introspect_core import Introspector
from openrtc_introspect_core._collections import Collections
from openrtc_introspect_core._ledger import Ledger
from openrtc_introspect_testing._backends import Backend, in_task
from openrtc_introspect_testing._clock import FakeClock

Run = Callable[[Coroutine[Any, Any, Any]], Any]


def collect(collections: Collections, clock: FakeClock, seconds: float) -> None:
    collections._called("start", {"generation": 2})
    clock.advance(seconds)
    collections._called("stop", {"generation": 2})


def watched() -> tuple[FakeClock, Ledger, Collections]:
    clock = FakeClock()
    ledger = Ledger(ContextVar("binding"), clock, 0.05)
    here = threading.get_ident()
    return clock, ledger, Collections(clock, lambda thread_id: ledger if thread_id == here else None)


def test_a_notable_collection_is_booked_and_a_short_one_is_not() -> None:
    """0.2 ms is the line."""
    clock, ledger, collections = watched()
    here = threading.get_ident()
    for seconds in (0.0001, 0.07):
        collect(collections, clock, seconds)
    assert round(ledger.gc.busy, 9) == 0.07
    assert collections.generation(0.0, 2000.0, here) == 2
    assert collections.generation(0.0, 1.0, here) == 0


def test_another_thread_s_collection_is_not_the_loop_s() -> None:
    """It does not hold the loop's thread more than any work with the GIL, and how long it did is told."""
    clock, ledger, collections = watched()
    began = clock()
    thread = threading.Thread(target=collect, args=(collections, clock, 1.0))
    thread.start()
    thread.join()
    here = threading.get_ident()
    assert (ledger.gc.busy, collections.generation(began, clock(), here)) == (0, 0)
    assert collections.elsewhere(began + 0.25, clock() + 5, here) == 0.75
    collections._began[-1] = clock() + 1  # one that has not said yet that it is over
    assert collections.elsewhere(clock(), clock() + 5, here) == 4


def test_a_stop_without_a_start_is_nothing() -> None:
    """Attached in the middle of a collection."""
    _, ledger, collections = watched()
    collections._called("stop", {"generation": 2})
    assert ledger.gc.busy == 0


def test_it_is_there_while_attached(virtually: Backend) -> None:
    """`gc.callbacks` has ours, and has not after."""

    async def main() -> int:
        async with Introspector(socket_path=False):
            return len(gc.callbacks)

    before = len(gc.callbacks)
    assert virtually(main()) == before + 1
    assert len(gc.callbacks) == before


def test_a_collection_blames_no_session(virtually: Backend) -> None:
    """A step that was mostly a collection is a block with cause gc and no session."""

    async def main() -> Any:
        async with Introspector(socket_path=False, stacks=False, clock=virtually.clock) as introspector:
            collections = introspector._collections
            assert collections is not None

            async def work() -> None:
                collections._called("start", {"generation": 2})
                virtually.block(0.08)
                collections._called("stop", {"generation": 2})
                virtually.block(0.01)

            with introspector.session("innocent", agent_name="a") as session:
                await in_task(work)
                return introspector.blocks(), session.blocks

    (block,), blocks = virtually(main())
    assert (block.session_id, block.cause, block.detail) == (None, "gc", "generation 2, 80 ms of it")
    assert blocks == 0
