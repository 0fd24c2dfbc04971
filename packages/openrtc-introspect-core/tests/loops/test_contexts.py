"""Loops that run callbacks in the context they were given in, and one that does not."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable
from typing import Any

import pytest
from other_loops import ElsewhereLoop, OneContextLoop, PumpedLoop, run_on

from openrtc_introspect_core import Introspector
from openrtc_introspect_core._loops.contexts import ONE_CONTEXT
from openrtc_introspect_testing._loops.fake_loop import FakeLoop


async def notes_on(loop: Any) -> list[str]:
    async with Introspector(socket_path=False, clock=loop.clock, stacks=False) as introspector:
        await asyncio.sleep(1)
        return list(introspector.snapshot().worker.notes)


def test_a_loop_that_runs_everything_in_one_context_is_named_in_a_note() -> None:
    """There the scope that was opened last is bound in all tasks."""
    assert run_on(OneContextLoop, notes_on) == [ONE_CONTEXT]


@pytest.mark.parametrize("kind", [FakeLoop, ElsewhereLoop, PumpedLoop])
def test_a_loop_that_keeps_contexts_apart_has_no_note(kind: Callable[[], Any]) -> None:
    assert run_on(kind, notes_on) == []


def test_the_host_s_context_is_as_before() -> None:
    """Attaching leaves no variable of ours behind."""

    async def main(loop: Any) -> Any:
        before = dict(contextvars.copy_context())
        async with Introspector(socket_path=False, clock=loop.clock, stacks=False):
            return before, dict(contextvars.copy_context())

    before, during = run_on(ElsewhereLoop, main)
    assert during == before
