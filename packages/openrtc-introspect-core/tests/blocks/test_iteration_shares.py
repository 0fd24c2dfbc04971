"""Blocks of steps that were not sampled: whose they are, whatever scopes opened or closed in the step."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import anyio
import pytest
from taken_samples import asleep

from openrtc_introspect_core import Introspector, no_session
from openrtc_introspect_core._accounting.account import Account, Owner
from openrtc_introspect_core._accounting.step_sampling import UnsampledPart
from openrtc_introspect_core._blocks.iteration_shares import most_of, sessions_of, shares_of
from openrtc_introspect_core._blocks.stall_samples import StallSamples
from openrtc_introspect_core._introspector import parts_of
from openrtc_introspect_core._loops.hook import Running
from openrtc_introspect_core._os.thread_usage import Usage
from openrtc_introspect_core._sessions.session import Session
from openrtc_introspect_testing._loops.backends import Backend, in_task

ONE, TWO, THREE = (Session(name, "agent", {}, 0.0) for name in ("one", "two", "three"))


def samples(*seen: tuple[Running, float]) -> StallSamples:
    """Return samples of a span that began at 0, of so many seconds each."""
    places = {((), running): seconds for running, seconds in seen}
    return StallSamples(0.0, Usage(0.0, None, None, None), places=places)


def part(session: Session | None, start: float | None, end: float, task: str = "task") -> UnsampledPart:
    return UnsampledPart(Account(session), task, start, end)


def test_without_parts_the_samples_say_what_ran() -> None:
    """As of a step in which no scope opened or closed."""
    seen = Running(ONE, "task"), Running(TWO, "other")
    shares = shares_of(samples((seen[0], 0.2), (seen[1], 0.1)), [], 0.0, 0.3)
    assert (most_of(shares), sessions_of(shares, seen[0])) == (seen[0], {ONE: 1.0})


def test_a_sample_that_came_after_the_scope_counts_for_the_session_before() -> None:
    """C code kept the GIL until the session had ended, and the next one was bound."""
    parts = [part(ONE, None, 0.299), part(None, 0.299, 0.2995), part(TWO, 0.2995, 0.3)]
    shares = shares_of(samples((Running(TWO, "task"), 0.3)), parts, 0.0, 0.3)
    assert most_of(shares) == Running(ONE, "task")
    assert sessions_of(shares, Running(None, "task")) == pytest.approx(
        {ONE: 0.299 / 0.3, None: 5 / 3000, TWO: 5 / 3000}
    )


def test_no_session_that_had_less_than_half_of_the_step_is_blamed() -> None:
    """The task is known all the same. The first sample stands for all the time before it."""
    parts = [part(None, None, 0.0), part(ONE, 0.0, 0.1), part(TWO, 0.1, 0.2), part(THREE, 0.2, 0.3)]
    assert most_of(shares_of(samples((Running(TWO, "task"), 0.3)), parts, 0.0, 0.3)) == Running(None, "task")


def test_known_parts_need_no_sample() -> None:
    """The watchdog never got the GIL while the step ran, or found the loop in the next callback."""
    parts = [part(None, None, 0.01), part(ONE, 0.01, 0.29)]
    for stall in (None, samples(), samples((Running(), 0.3))):
        assert most_of(shares_of(stall, parts, 0.0, 0.3)) == Running(ONE, "task")


def test_a_step_beside_the_one_that_held_the_loop_changes_nothing() -> None:
    """A short scope in one task, and a long step of another, whether they share a name or not."""
    parts = [part(None, None, 0.001), part(ONE, 0.001, 0.002)]
    for name in ("task", "other"):
        seen = Running(TWO, name)
        assert most_of(shares_of(samples((seen, 0.3)), parts, 0.0, 0.3)) == seen


def test_without_samples_a_short_scope_is_not_blamed_for_the_rest_of_the_iteration() -> None:
    """What held the loop is not known."""
    assert most_of(shares_of(None, [part(None, None, 0.001), part(ONE, 0.001, 0.002)], 0.0, 0.3)) == Running()


def test_parts_of_other_iterations_do_not_count() -> None:
    """Those before this one, and those after it, which another thread may see."""
    parts = [part(ONE, 0.5, 0.9), part(TWO, 1.4, 1.6)]
    seen = Running(THREE, "task")
    assert most_of(shares_of(samples((seen, 0.3)), parts, 1.0, 1.3)) == seen


# --- on loops ----------------------------------------------------------------------------------------


class Unsampled:
    """An introspector, and what holds its loop in virtual time."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self.introspector = Introspector(socket_path=False, stacks=True, clock=backend.clock, budget_pct=0)
        self.sessions: dict[str | None, Owner] = {}

    def block(self, seconds: float) -> None:
        """Hold the loop. A sample is taken at the end, in place of the watchdog, which virtual time does not wake."""
        sampler = parts_of(self.introspector).loops[0].stall_sampler
        assert sampler is not None
        self._backend.block(seconds)
        sampler.sample()

    @contextmanager
    def session(self, name: str) -> Iterator[None]:
        with self.introspector.session(name, agent_name="test"):
            self.sessions[name] = parts_of(self.introspector).loops[0].ledger.get(None)
            yield


Work = Callable[[Unsampled], Awaitable[None]]


async def run(backend: Backend, work: Work) -> tuple[list[Any], dict[str | None, float]]:
    """Return (the blocks' sessions and milliseconds, the loop seconds of each session) of untimed steps."""
    under = Unsampled(backend)
    async with under.introspector as introspector:
        ledger = parts_of(introspector).loops[0].ledger
        ledger.set_sampling_period(32)
        ledger.steps_until_sample = 1000
        await in_task(work, under)
        await anyio.sleep(1)
        blocks = [(block.session_id, round(block.duration_ms)) for block in introspector.blocks()]
        # The ledger may have closed the accounts of sessions that have ended.
        charged = {name: sum(account.busy for account in owner.accounts) for name, owner in under.sessions.items()}
        return blocks, charged | {None: ledger.untagged.busy}


async def last_step(under: Unsampled) -> None:
    with under.session("one"):
        await anyio.sleep(1)
        under.block(0.3)


async def then_another_session(under: Unsampled) -> None:
    await last_step(under)
    with under.session("two"):
        under.block(0.01)
        await anyio.sleep(1)


async def within_one_step(under: Unsampled) -> None:
    await anyio.sleep(1)
    with under.session("one"):
        under.block(0.3)
    under.block(0.01)


async def inner_scope(under: Unsampled) -> None:
    with under.session("outer"):
        await anyio.sleep(1)
        with under.session("one"):
            under.block(0.3)
        under.block(0.01)
        await anyio.sleep(1)


async def outside_of_sessions(under: Unsampled) -> None:
    with under.session("one"):
        await anyio.sleep(1)
        under.block(0.3)
        with no_session():
            under.block(0.01)


@pytest.mark.parametrize("work", [last_step, then_another_session, within_one_step, inner_scope, outside_of_sessions])
def test_the_block_is_of_the_session_that_held_most_of_the_step(
    virtually: Backend, work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever scopes opened or closed in the step, and each session is charged with its part."""
    asleep(monkeypatch)
    blocks, charged = virtually(run(virtually, work))
    rest = 0.0 if work is last_step else 0.01
    assert blocks == [("one", round(1000 * (0.3 + rest)))]
    assert charged.pop("one") == pytest.approx(0.3)
    assert sum(charged.values()) == pytest.approx(rest)


async def before_the_session(under: Unsampled) -> None:
    await anyio.sleep(1)
    under.block(0.3)
    with under.session("one"):
        under.block(0.01)
        await anyio.sleep(1)


async def many_sessions(under: Unsampled) -> None:
    await anyio.sleep(1)
    for name in ("one", "two", "three"):
        with under.session(name):
            under.block(0.1)


async def in_no_session(under: Unsampled) -> None:
    with under.session("one"):
        await anyio.sleep(1)
        with no_session():
            under.block(0.3)
        under.block(0.01)


@pytest.mark.parametrize("work", [before_the_session, many_sessions, in_no_session])
def test_no_session_is_blamed_for_what_none_held(
    virtually: Backend, work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each is charged with its part all the same."""
    asleep(monkeypatch)
    blocks, charged = virtually(run(virtually, work))
    ((session, ms),) = blocks
    assert session is None
    assert sum(charged.values()) == pytest.approx(ms / 1000)
    assert all(seconds < ms / 2000 for name, seconds in charged.items() if name is not None)
