"""What holds the loop is logged while it lasts, and has its cause meanwhile."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import anyio
import pytest

from openrtc_introspect_core import Block, Introspector
from openrtc_introspect_core._base.log import flush
from openrtc_introspect_core._blocks import without_gil
from openrtc_introspect_core._blocks.stall_samples import StallSamples
from openrtc_introspect_core._blocks.watchdog import Watchdog
from openrtc_introspect_core._introspector import parts_of
from openrtc_introspect_testing._loops.backends import Backend, in_task
from openrtc_introspect_testing._loops.fake_clock import FakeClock

Sampling = Callable[..., None]


@pytest.fixture(autouse=True)
def asleep(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the watchdog's own thread from sampling: the test does."""
    monkeypatch.setattr(Watchdog, "start", lambda self: None)


def elsewhere(call: Callable[[], Any]) -> Any:
    """Call it on another thread, while this one, the loop's, is held here."""
    results: list[Any] = []
    thread = threading.Thread(target=lambda: results.append(call()))
    thread.start()
    thread.join()
    return results[0]


def sampling(introspector: Introspector) -> Sampling:
    sampler = parts_of(introspector).loops[0].stall_sampler
    assert sampler is not None

    def take_sample(late: float = 0.0) -> None:
        elsewhere(lambda: sampler.sample(late))

    return take_sample


def compute(introspector: Introspector) -> None:
    """Have the loop's thread seem to have used the processor all the time, from now on."""
    usage = parts_of(introspector).loops[0].detector._probes.usage
    read = usage.read
    usage.read = lambda: read()._replace(cpu_s=1e6)  # type: ignore[method-assign]


def going_on(introspector: Introspector) -> Block:
    (block,) = elsewhere(lambda: introspector.snapshot().blocks_in_progress)
    return block  # type: ignore[no-any-return]


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    assert flush(60.0)
    return [record.getMessage() for record in caplog.records if "[blocked-now]" in record.getMessage()]


@pytest.mark.gil
def test_it_is_logged_after_1_5_and_30_seconds_and_each_minute(
    on_any_loop: Backend, caplog: pytest.LogCaptureFixture
) -> None:
    """With session, line and cause; the first line has the stack, the innermost call last."""

    async def main() -> None:
        clock = FakeClock()
        async with Introspector(socket_path=False, clock=clock) as introspector:
            take_sample = sampling(introspector)

            async def entrypoint() -> None:
                for pause in (0.9, 0.1, 0.5, 3.4, 0.2, 0.1, 24.7, 0.2, 29.8, 0.2, 0.1):
                    clock.advance(pause)
                    take_sample()

            with introspector.session("job-1", agent_name="a"):
                await in_task(entrypoint)

    on_any_loop(main())
    found = lines(caplog)
    heads = [line.partition("\n")[0] for line in found]
    assert [head.partition(" s at ")[0].rpartition(" ")[2] for head in heads] == ["1", "5", "30", "60"]
    assert all(head.startswith("[blocked-now] session_id=job-1 has been holding the loop for ") for head in heads)
    assert all(" in elsewhere (sync-call)" in head for head in heads)
    assert found[1:] == heads[1:]
    functions = [line.rpartition(" in ")[2].rpartition(".")[2] for line in found[0].split("\n    ")[1:]]
    begin = functions.index("entrypoint")
    assert functions[begin : begin + 3] == ["entrypoint", "take_sample", "elsewhere"]


@pytest.mark.gil
def test_a_hold_of_no_session_says_so(on_timed_loops: Backend, caplog: pytest.LogCaptureFixture) -> None:
    """The main task's, here: no session lives."""

    async def main() -> None:
        clock = FakeClock()
        async with Introspector(socket_path=False, clock=clock) as introspector:
            await anyio.sleep(0)
            clock.advance(1.2)
            sampling(introspector)()

    on_timed_loops(main())
    (line,) = lines(caplog)
    assert line.startswith("[blocked-now] no session has been holding the loop for 1 s at ")


def test_what_has_ended_when_it_is_to_be_reported_is_not_logged(
    on_any_loop: Backend, caplog: pytest.LogCaptureFixture
) -> None:
    """Something else holds the loop by then, and has not done so for a second."""

    async def main() -> None:
        clock = FakeClock()
        async with Introspector(socket_path=False, clock=clock) as introspector:

            async def entrypoint() -> None:
                clock.advance(0.9)
                elsewhere(parts_of(introspector).loops[0].detector.report_hold)

            await in_task(entrypoint)

    on_any_loop(main())
    assert lines(caplog) == []


def test_a_short_hold_is_not_logged(on_any_loop: Backend, caplog: pytest.LogCaptureFixture) -> None:
    """Nor are many of them in a row."""

    async def main() -> None:
        clock = FakeClock()
        async with Introspector(socket_path=False, clock=clock) as introspector:
            take_sample = sampling(introspector)

            async def entrypoint() -> None:
                for _ in range(3):
                    clock.advance(0.9)
                    take_sample()
                    await anyio.sleep(0)

            with introspector.session("job-1", agent_name="a"):
                await in_task(entrypoint)

    on_any_loop(main())
    assert lines(caplog) == []


def test_an_id_that_would_act_on_a_terminal_is_escaped(on_any_loop: Backend, caplog: pytest.LogCaptureFixture) -> None:
    """As in the lines of blocks that are over."""

    async def main() -> None:
        clock = FakeClock()
        async with Introspector(socket_path=False, clock=clock) as introspector:

            async def entrypoint() -> None:
                clock.advance(1.5)
                sampling(introspector)()

            with introspector.session("a\x1b[2J\nb", agent_name="a"):
                await in_task(entrypoint)

    on_any_loop(main())
    (line,) = lines(caplog)
    assert r"session_id=a\x1b[2J\nb has been" in line


@pytest.mark.gil
def test_a_block_in_progress_has_its_cause(on_any_loop: Backend) -> None:
    """The thread waits, and used no processor time that its clock would show."""

    async def main() -> list[Block]:
        clock = FakeClock()
        async with Introspector(socket_path=False, clock=clock) as introspector:
            take_sample = sampling(introspector)
            seen: list[Block] = []

            async def entrypoint() -> None:
                for _ in range(3):
                    clock.advance(100.0)
                    take_sample()
                seen.append(going_on(introspector))

            with introspector.session("job-1", agent_name="a"):
                await in_task(entrypoint)
            return [*seen, *introspector.blocks()]

    now, over = on_any_loop(main())
    assert (now.cause, now.session_id, now.in_progress) == ("sync-call", "job-1", True)
    assert (over.cause, over.session_id, over.location) == (now.cause, now.session_id, now.location)


@pytest.mark.gil
def test_what_was_seen_without_the_gil_is_the_place_of_a_block(
    on_any_loop: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its loop's thread kept the GIL, so it is the session's, though it used no processor time."""
    monkeypatch.setattr(without_gil, "read", lambda sampler, since, until: [(since, until, 1, FRAMES)])

    async def main() -> list[Block]:
        clock = FakeClock()
        async with Introspector(socket_path=False, clock=clock) as introspector:

            async def entrypoint() -> None:
                clock.advance(10.0)
                sampling(introspector)(late=9.5)
                clock.advance(0.001)

            with introspector.session("job-1", agent_name="a"):
                await in_task(entrypoint)
            return introspector.blocks()

    FRAMES = (("/srv/agents/restaurant.py", 42, "lookup_menu"), ("/srv/agents/restaurant.py", 7, "entrypoint"))
    (block,) = on_any_loop(main())
    assert (block.session_id, block.cause) == ("job-1", "native")
    assert block.detail == "its C code waited while it kept the GIL"
    assert str(block.location) == "/srv/agents/restaurant.py:42 in lookup_menu"


@pytest.mark.gil
def test_where_nobody_could_see_it_a_block_says_what_was_seen(on_any_loop: Backend) -> None:
    """The samples at its beginning are no line of the rest."""

    async def main() -> list[Block]:
        clock = FakeClock()
        async with Introspector(socket_path=False, clock=clock) as introspector:

            async def entrypoint() -> None:
                clock.advance(0.05)
                sampling(introspector)()
                compute(introspector)
                clock.advance(2.0)

            with introspector.session("job-1", agent_name="a"), pytest.MonkeyPatch.context() as patch:
                patch.setattr(Watchdog, "is_alive", lambda self: True)
                await in_task(entrypoint)
            return introspector.blocks()

    (block,) = on_any_loop(main())
    assert (block.session_id, block.cause) == ("job-1", "native")
    assert block.detail == "seen for 55 ms of 2.0 s; then C code kept the GIL, at or after this line"
    assert block.location is not None
    assert block.location.function == "elsewhere"


@pytest.mark.gil
def test_a_late_sample_that_loses_the_gil_again_has_seen_the_line(
    on_any_loop: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On an idle machine a sample takes longer than the 5 ms after which the loop's thread wants the GIL back."""
    monkeypatch.setattr(Watchdog, "is_alive", lambda self: True)
    has_looked, step_is_over = threading.Event(), threading.Event()

    def add(*arguments: Any, **more: Any) -> None:
        has_looked.set()
        step_is_over.wait(60.0)

    monkeypatch.setattr(StallSamples, "add", add)

    async def main() -> list[Block]:
        clock = FakeClock()
        async with Introspector(socket_path=False, clock=clock) as introspector:
            sampler = parts_of(introspector).loops[0].stall_sampler
            assert sampler is not None
            thread = threading.Thread(target=sampler.sample, args=(1.9,))

            async def entrypoint() -> None:
                clock.advance(2.0)
                thread.start()
                has_looked.wait(60.0)
                clock.advance(0.002)
                compute(introspector)

            with introspector.session("job-1", agent_name="a"):
                await in_task(entrypoint)
            step_is_over.set()
            thread.join()
            return introspector.blocks()

    (block,) = on_any_loop(main())
    assert (block.session_id, block.cause, block.detail) == ("job-1", "native", None)
    assert block.location is not None
    assert block.location.function.endswith("entrypoint")


@pytest.mark.gil
def test_where_nobody_could_see_any_of_it_the_detail_says_so(
    on_any_loop: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The watchdog got the GIL after the step."""
    monkeypatch.setattr(Watchdog, "is_alive", lambda self: True)

    async def main() -> list[Block]:
        clock = FakeClock()
        async with Introspector(socket_path=False, clock=clock) as introspector:

            async def entrypoint() -> None:
                clock.advance(2.0)
                compute(introspector)

            with introspector.session("job-1", agent_name="a"):
                await in_task(entrypoint)
            return introspector.blocks()

    (block,) = on_any_loop(main())
    assert (block.session_id, block.cause, block.location) == ("job-1", "native", None)
    assert block.detail == "C code kept the GIL until the line could no longer be seen"
