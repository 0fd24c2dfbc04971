"""The decorator for pipecat's bots, without pipecat; tests/pipecat has it with real pipelines."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Callable, Coroutine, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from openrtc_introspect_core import ArgumentError, SessionRow, current_session
from openrtc_introspect_core._base.log import flush
from openrtc_introspect_core.adapters.pipecat import Identity, introspected

Run = Callable[[Coroutine[Any, Any, Any]], Any]
Seen = tuple[str, str, str | None] | None


class Runner:
    """As much of a WorkerRunner or PipelineWorker as the adapter uses."""

    def __init__(self) -> None:
        self.seen: list[Seen] = []

    async def run(self, params: object, *, auto_end: bool = True) -> tuple[object, bool]:
        """What it says."""
        await asyncio.create_task(self.process())
        return params, auto_end

    async def process(self) -> None:
        self.seen.append(seen())


def seen() -> Seen:
    session = current_session()
    return session and (session.session_id, session.agent_name, session.tenant)


@pytest.fixture
def introspect() -> Iterator[introspected]:
    """Make a decorator with the defaults."""
    decorator = introspected(name="voice", socket_path=False)
    yield decorator
    close(decorator)


def close(decorator: introspected) -> None:
    if decorator.sessions.process.introspector is not None:
        decorator.sessions.process.introspector.close()


def rows(decorator: introspected) -> list[SessionRow]:
    assert decorator.sessions.process.introspector is not None
    return decorator.sessions.process.introspector.snapshot().sessions


def test_a_bot_is_a_session(run_on_asyncio: Run, introspect: introspected) -> None:
    """With what its RunnerArguments say, while it runs."""

    @introspect
    async def bot(runner_args: Any, answer: int) -> int:
        runner = Runner()
        await runner.run(None)
        found.extend(runner.seen)
        assert [row.session_id for row in rows(introspect)] == ["call-7"]
        return answer

    async def main() -> int:
        try:
            return await bot(SimpleNamespace(session_id="call-7", body={"tenant": "acme", "caller": "+49"}), answer=42)
        finally:
            assert rows(introspect) == []

    found: list[Seen] = []
    assert run_on_asyncio(main()) == 42
    assert found == [("call-7", "voice", "acme")]


@pytest.mark.parametrize(
    ("arguments", "tenant"),
    [
        ((), None),
        ((SimpleNamespace(session_id=None, body=None),), None),
        ((SimpleNamespace(session_id=None, body={"tenant": 7}),), None),
        ((7, SimpleNamespace(session_id="", body={"tenant": "acme"})), "acme"),
    ],
)
def test_a_bot_without_an_id_gets_a_unique_one(
    run_on_asyncio: Run, introspect: introspected, arguments: tuple[Any, ...], tenant: str | None
) -> None:
    """And the worker's name."""

    @introspect
    async def bot(*arguments: Any) -> Seen:
        return seen()

    async def main() -> list[Seen]:
        return [await bot(*arguments), await bot(*arguments)]

    first, second = run_on_asyncio(main())
    assert first[0].startswith("bot-")
    assert first[0] != second[0]
    assert first[1:] == second[1:] == ("voice", tenant)


def test_a_function_names_the_session(run_on_asyncio: Run) -> None:
    """By the bot's arguments. None stands for no session."""

    def identify(call: str, *, agent: str) -> Identity | None:
        return Identity(call, agent, "acme") if call != "probe" else None

    introspect = introspected(identify=identify, socket_path=False)

    @introspect
    async def bot(call: str, *, agent: str) -> Seen:
        return seen()

    async def main() -> list[Seen]:
        return [await bot("call-7", agent="dental"), await bot("probe", agent="dental")]

    assert run_on_asyncio(main()) == [("call-7", "dental", "acme"), None]
    close(introspect)


def test_a_pipeline_is_a_session_of_its_own(run_on_asyncio: Run, introspect: introspected) -> None:
    """For a runner that hosts those of several callers. The run's arguments and its result are passed on."""
    workers = [introspect.bind(Runner(), session_id=f"call-{n}", agent_name="dental", tenant="acme") for n in range(2)]
    workers.append(introspect.bind(Runner()))

    async def main() -> list[Any]:
        return list(await asyncio.gather(*(worker.run(7, auto_end=False) for worker in workers)))

    assert run_on_asyncio(main()) == [(7, False)] * 3
    one, two, by_default = (worker.seen[0] for worker in workers)
    assert (one, two) == (("call-0", "dental", "acme"), ("call-1", "dental", "acme"))
    assert by_default is not None
    assert (by_default[0][:4], by_default[1:]) == ("bot-", ("voice", None))


def test_a_failure_is_the_bots(run_on_asyncio: Run, introspect: introspected) -> None:
    """It passes, and is counted."""

    @introspect
    async def bot() -> None:
        raise error

    async def main() -> None:
        with pytest.raises(LookupError) as raised:
            await bot()
        assert raised.value is error
        assert [row.error for row in rows(introspect)] == ["LookupError: no room"]

    error = LookupError("no room")
    run_on_asyncio(main())


def test_a_bot_that_cannot_be_named_runs(run_on_asyncio: Run, caplog: pytest.LogCaptureFixture) -> None:
    """It is logged once, with the traceback."""

    def identify() -> Identity:
        raise LookupError("no such caller")

    introspect = introspected(name="voice", identify=identify, socket_path=False)

    @introspect
    async def bot() -> Seen:
        return seen()

    async def main() -> list[Seen]:
        return [await bot(), await bot()]

    with caplog.at_level(logging.WARNING):
        assert run_on_asyncio(main()) == [None, None]
        assert flush(60.0)
    (record,) = (record for record in caplog.records if "unmeasured" in record.getMessage())
    assert record.getMessage().endswith("one of the bots runs unmeasured, and others may: no such caller")
    assert record.exc_info is not None
    close(introspect)


def test_a_decorated_bot_is_still_a_coroutine_function(introspect: introspected) -> None:
    """With its name and its text, by which a runner may find it."""

    @introspect
    async def bot(runner_args: object) -> None:
        """What it says."""

    assert inspect.iscoroutinefunction(bot)
    assert (bot.__name__, bot.__doc__) == ("bot", "What it says.")
    assert introspect.bind(Runner()).run.__doc__ == "What it says."


def test_a_wrong_option_is_reported_where_it_is_given(introspect: introspected) -> None:
    """Not when the first call comes."""
    with pytest.raises(ArgumentError, match="slow_session_threshold_ms must be greater than 0, got -1"):
        introspected(slow_session_threshold_ms=-1)
    with pytest.raises(ArgumentError, match="identify must be a function of the bot's arguments, got 7"):
        introspected(identify=7)  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match="session_id must be a str or None, got 7"):
        introspect.bind(Runner(), session_id=7)  # type: ignore[arg-type]


def test_a_wrong_use_is_reported_where_it_is_made(introspect: introspected) -> None:
    """With what to write instead: a decorator without parentheses or on no function, and what cannot run."""

    async def bot() -> None: ...

    with pytest.raises(ArgumentError, match=r"takes its options by name, got <function .*: write @introspected\(\)"):
        introspected(bot)  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match="a bot must be a function, got 7"):
        introspect(7)  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match="bind takes a PipelineWorker or WorkerRunner, got 7"):
        introspect.bind(7)  # type: ignore[type-var]
