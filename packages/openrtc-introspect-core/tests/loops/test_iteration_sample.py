from __future__ import annotations

import asyncio
import select
import selectors
import socket
from collections import deque
from contextvars import ContextVar
from typing import Any

import pytest
from hooks import hook_on

from openrtc_introspect_core._accounting.ledger import Ledger
from openrtc_introspect_core._base.clock import perf_counter
from openrtc_introspect_core._loops.callbacks import Callback
from openrtc_introspect_core._loops.iteration_sample import IterationSample
from openrtc_introspect_core._loops.selector_iterations import _events_of

SELECTORS = [
    each
    for name in ("EpollSelector", "PollSelector", "SelectSelector", "KqueueSelector")
    if (each := getattr(selectors, name, None)) is not None
]


@pytest.mark.parametrize("kind", SELECTORS)
def test_a_sample_counts_what_the_selector_finds_in_iterations_without_a_step(
    kind: type[selectors.BaseSelector],
) -> None:
    """As many iterations as were asked for, and then the loop samples no more."""

    async def main() -> Any:
        loop: Any = asyncio.get_running_loop()
        hook = hook_on(loop)
        hook.attach()
        near, far = socket.socketpair()
        far.send(b"more")
        reads = 0

        def read() -> None:
            nonlocal reads
            reads += 1

        loop.add_reader(near, read)
        sample = IterationSample(hook.ledger, loop._ready, hook.callbacks.describe)
        sample.more(10)
        hook.iterations.sample = sample
        counted = hook.iterations.count
        while hook.iterations.sample is not None:
            await asyncio.sleep(0.001)
        loop.remove_reader(near)
        descriptor = near.fileno()
        near.close()
        far.close()
        counted = hook.iterations.count - counted
        hook.detach()
        return sample, descriptor, counted, reads

    with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(kind())) as runner:
        sample, descriptor, counted, reads = runner.run(main())
    assert sample.iterations == 10
    assert sample.without_step == sample.ready[descriptor, selectors.EVENT_READ]
    assert 0 < sample.without_step <= 10 <= counted
    assert reads >= sample.without_step


def test_an_iteration_in_which_a_task_stepped_counts_for_no_file() -> None:
    """Whether the step was timed or not."""
    ledger = Ledger(ContextVar("of_a_sample"), perf_counter, 1.0)
    sample = IterationSample(ledger, None, Callback)
    sample.more(3)
    for change in (None, "timed", "unsampled"):
        sample.begin_iteration([(7, selectors.EVENT_READ)])
        if change == "timed":
            ledger.holder_since += 1.0
        elif change == "unsampled":
            ledger.steps_until_sample -= 1
        assert sample.end_iteration() == (change != "unsampled")
    assert (sample.iterations, sample.without_step, dict(sample.ready)) == (3, 1, {(7, 1): 1})


def test_an_iteration_that_the_sample_found_half_over_does_not_count() -> None:
    """What its selector had found is not known."""
    sample = IterationSample(Ledger(ContextVar("of_a_sample"), perf_counter, 1.0), None, Callback)
    sample.more(1)
    assert sample.end_iteration()
    assert sample.iterations == 0


def test_the_ends_of_the_queue_stand_for_all_of_it() -> None:
    """One callback stands for itself."""
    queue: deque[str] = deque(["a", "b", "c", "d"])
    sample = IterationSample(Ledger(ContextVar("of_a_sample"), perf_counter, 1.0), queue, Callback)
    sample.more(9)
    for _ in range(5):
        sample.begin_iteration([])
        sample.end_iteration()
        if queue:
            queue.pop()
    assert sample.queued == {Callback("a"): 5.5, Callback("b"): 1.0, Callback("c"): 1.5, Callback("d"): 2.0}


@pytest.mark.skipif(not hasattr(select, "epoll"), reason="has no epoll")
def test_epoll_s_masks_are_read_as_its_selector_reads_them() -> None:
    """A failure is ready for both."""
    both = selectors.EVENT_READ | selectors.EVENT_WRITE
    assert [_events_of(mask) for mask in (select.EPOLLIN, select.EPOLLOUT, select.EPOLLHUP, select.EPOLLERR)] == [
        selectors.EVENT_READ, selectors.EVENT_WRITE, both, both,
    ]  # fmt: skip
