"""A step is charged to the session that is bound now, on the real clock as on a virtual one.

With the meter in C a step does not look the session up if nobody has bound one since the last step.
"""

from __future__ import annotations

import asyncio
import contextvars
import time
from collections.abc import Awaitable, Callable, Iterator
from types import coroutine
from typing import Any

import pytest

from openrtc_introspect_core import Introspector
from openrtc_introspect_core._accounting.ledger import Ledger
from openrtc_introspect_core._accounting.meter import Metered
from openrtc_introspect_core._introspector import parts_of
from openrtc_introspect_core._native import rebound
from openrtc_introspect_core._sessions.session import Session


@coroutine
def pause() -> Iterator[None]:
    yield


async def steps(count: int) -> None:
    for _ in range(count):
        await pause()


def steps_of(introspector: Introspector, session_id: str) -> int:
    return {row.session_id: row.steps for row in introspector.snapshot().sessions}[session_id]


def run(main: Callable[[Introspector], Awaitable[Any]]) -> Any:
    async def attached() -> Any:
        async with Introspector(socket_path=False, budget_pct=0, slow_session_threshold_ms=60_000) as introspector:
            return await asyncio.create_task(main(introspector))

    return asyncio.run(attached())


def test_the_steps_inside_of_a_scope_are_the_session_s_and_no_others() -> None:
    """Of a task with steps before, in and after each of two scopes, one inside of the other."""

    async def main(introspector: Introspector) -> Any:
        await steps(3)
        with introspector.session("outer", agent_name="a"):
            await steps(5)
            with introspector.session("inner", agent_name="a"):
                await steps(7)
                inner = steps_of(introspector, "inner")
            await steps(11)
            outer = steps_of(introspector, "outer")
        return inner, outer

    # The step in progress counts once it ends, and the step that leaves `inner` is the outer session's from then on.
    assert run(main) == (7 - 1 + 1, 5 + 11)


def test_a_session_bound_to_a_task_from_outside_has_the_task_s_next_steps() -> None:
    """The task is one that runs metered steps all the time."""

    async def main(introspector: Introspector) -> Any:
        context = contextvars.copy_context()
        task = asyncio.get_running_loop().create_task(steps(20), context=context)
        await steps(4)
        scope: Any = introspector.session("late", agent_name="a")
        scope.begin()
        scope.bind_to(context, task)
        await task
        found = steps_of(introspector, "late")
        scope.__exit__(None, None, None)
        return found

    assert 10 < run(main) <= 20


def test_variables_that_a_library_copies_between_contexts_count_soon() -> None:
    """asgiref sets all variables of one context in another, and nobody notices that a session was bound."""

    async def main(introspector: Introspector) -> Any:
        binding = parts_of(introspector).shared.sessions.binding
        with introspector.session("copied", agent_name="a") as session:
            elsewhere = contextvars.copy_context()

            async def task() -> None:
                await steps(10)
                binding.set(elsewhere[binding])
                until = time.perf_counter() + 60.0
                while session.steps < 100 and time.perf_counter() < until:
                    await pause()

            await asyncio.get_running_loop().create_task(task(), context=contextvars.Context())
            return session.steps

    assert run(main) >= 100


def test_a_task_made_inside_of_a_scope_is_the_session_s_from_its_first_step() -> None:
    """Also if the scope is left before that step."""

    async def main(introspector: Introspector) -> Any:
        with introspector.session("kept", agent_name="a") as kept:
            with introspector.session("left", agent_name="a") as left:
                task = asyncio.create_task(steps(6))
            await task
            return kept.session_id, left.ended, sum(account.steps for account in left.accounts)

    session_id, ended, charged = run(main)
    assert (session_id, ended) == ("kept", True)
    assert charged == pytest.approx(7)


def test_a_factory_may_give_a_task_a_context_of_its_own() -> None:
    """Its first step belongs to the session that is bound there, not to its maker's."""

    async def main(introspector: Introspector) -> Any:
        elsewhere = contextvars.copy_context()

        def factory(loop: Any, coro: Any, **given: Any) -> Any:
            return asyncio.Task(coro, loop=loop, **{**given, "context": elsewhere})

        loop = asyncio.get_running_loop()
        loop.set_task_factory(factory)
        try:
            await asyncio.sleep(0)
            with introspector.session("maker's", agent_name="a"):
                before = steps_of(introspector, "maker's")
                task = loop.create_task(steps(50))
                await task
                return steps_of(introspector, "maker's") - before
        finally:
            loop.set_task_factory(None)

    assert run(main) == 1  # the step that makes the task; the one that goes on is in progress


@pytest.mark.parametrize("clock", [time.perf_counter, lambda: time.perf_counter()], ids=["in C", "in Python"])
@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_an_interrupt_while_a_session_is_looked_up_is_the_coroutine_s(
    clock: Callable[[], float], kind: type[BaseException]
) -> None:
    """A signal's handler may raise while a step begins: nothing is lost, and the next steps are metered."""
    binding: contextvars.ContextVar[Any] = contextvars.ContextVar("binding")
    ledger = Ledger(binding, clock, 60.0)
    session = Session("a", "a", {}, 0.0)
    account_of = ledger.account_of

    def interrupted(owner: Any) -> Any:
        ledger.account_of = account_of
        raise kind("of a signal's handler")

    async def work() -> str:
        try:
            await pause()
        except kind:
            await pause()
            return "got it"
        return "lost it"

    def drive() -> Any:
        metered: Any = Metered(work(), ledger, ledger.untagged)
        metered.send(None)
        binding.set(session)
        rebound()
        ledger.account_of = interrupted
        metered.send(None)
        with pytest.raises(StopIteration) as end:
            metered.send(None)
        return end.value.value

    assert contextvars.Context().run(drive) == "got it"
    assert account_of(session).steps == 1
