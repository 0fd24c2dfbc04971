from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from openrtc_introspect_core import ArgumentError, SessionRow, current_session
from openrtc_introspect_core._base.log import flush
from openrtc_introspect_core.adapters.livekit import Jobs, introspected, metadata_of

Run = Callable[[Coroutine[Any, Any, Any]], Any]


class FakeContext:
    """As much of a JobContext as the adapter reads."""

    def __init__(
        self, job_id: str = "job-1", agent_name: str = "restaurant", metadata: str = "", room: str = ""
    ) -> None:
        self.job = SimpleNamespace(
            id=job_id, agent_name=agent_name, metadata=metadata, room=SimpleNamespace(metadata=room)
        )
        self.callbacks: list[Any] = []

    def add_shutdown_callback(self, callback: Any) -> None:
        assert callback.__code__.co_argcount == 0  # what livekit-agents looks at
        self.callbacks.append(callback)

    async def shut_down(self) -> None:
        for callback in self.callbacks:
            await callback()


@pytest.fixture(autouse=True)
def jobs(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Jobs]]:
    """All that the decorators of a test have made, closed at its end."""
    made: list[Jobs] = []
    begin = Jobs.begin

    def remembered(self: Jobs, ctx: Any) -> Any:
        made.append(self)
        return begin(self, ctx)

    monkeypatch.setattr(Jobs, "begin", remembered)
    yield made
    for each in made:
        if each.process.introspector is not None:
            each.process.introspector.close()


def rows(jobs: list[Jobs]) -> list[SessionRow]:
    introspector = jobs[-1].process.introspector
    assert introspector is not None
    return introspector.snapshot().sessions


def test_a_job_is_a_session(run_on_asyncio: Run, jobs: list[Jobs]) -> None:
    """With the job's id, its agent's name and its tenant."""

    @introspected(socket_path=False)
    async def entrypoint(ctx: Any) -> None:
        session = current_session()
        assert session is not None
        seen.append((session.session_id, session.agent_name, session.tenant))

    seen: list[Any] = []
    run_on_asyncio(entrypoint(FakeContext("job-7", "dental", '{"tenant": "acme", "caller": "+49"}')))
    assert seen == [("job-7", "dental", "acme")]


def test_it_lasts_until_the_job_shuts_down(run_on_asyncio: Run, jobs: list[Jobs]) -> None:
    """An entrypoint returns long before the call is over; what it left running is the session's."""

    async def main() -> None:
        hung_up = asyncio.Event()

        @introspected(socket_path=False)
        async def entrypoint(ctx: Any) -> None:
            calls.append(asyncio.create_task(call()))

        async def call() -> None:
            await hung_up.wait()

        calls: list[asyncio.Task[None]] = []
        ctx = FakeContext()
        await asyncio.create_task(entrypoint(ctx))
        assert [(row.session_id, row.tasks) for row in rows(jobs)] == [("job-1", 2)]
        hung_up.set()
        await calls[0]
        await ctx.shut_down()
        assert rows(jobs) == []
        await ctx.shut_down()  # once is enough

    run_on_asyncio(main())


def test_it_ends_with_an_entrypoint_that_leaves_nothing_behind(run_on_asyncio: Run, jobs: list[Jobs]) -> None:
    """Where no shutdown ever comes."""

    async def main() -> None:
        @introspected(socket_path=False)
        async def entrypoint(ctx: Any) -> None:
            await asyncio.sleep(0)

        await entrypoint(FakeContext())
        assert rows(jobs) == []

    run_on_asyncio(main())


def test_an_entrypoint_that_fails_ends_it_with_the_error(run_on_asyncio: Run, jobs: list[Jobs]) -> None:
    """The error comes through, and is counted."""

    async def main() -> None:
        @introspected(socket_path=False)
        async def entrypoint(ctx: Any) -> None:
            tasks.append(asyncio.create_task(asyncio.sleep(0)))
            raise LookupError("no room")

        tasks: list[Any] = []
        with pytest.raises(LookupError, match="no room"):
            await entrypoint(FakeContext())
        await tasks[0]
        assert [(row.status, row.error) for row in rows(jobs)] == [("errored", "LookupError: no room")]
        assert jobs[-1].process.introspector is not None
        assert jobs[-1].process.introspector.snapshot().worker.errored == 1

    run_on_asyncio(main())


def test_jobs_of_one_process_share_a_worker(run_on_asyncio: Run, jobs: list[Jobs]) -> None:
    """The second finds the loop attached."""

    async def main() -> None:
        @introspected(socket_path=False, name="voice")
        async def entrypoint(ctx: Any) -> None:
            await both.wait()

        both = asyncio.Barrier(3)
        running = [asyncio.create_task(entrypoint(FakeContext(f"job-{n}", agent_name=""))) for n in range(2)]
        await asyncio.sleep(0.01)
        assert [(row.session_id, row.agent_name) for row in rows(jobs)] == [("job-0", "voice"), ("job-1", "voice")]
        await both.wait()
        await asyncio.gather(*running)

    run_on_asyncio(main())


def test_a_wrong_option_is_told_where_it_is_given() -> None:
    """Not when the first call comes."""
    with pytest.raises(ArgumentError, match="slow_session_threshold_ms must be greater than 0, got -1"):
        introspected(slow_session_threshold_ms=-1)


def test_a_decorator_without_its_parentheses_is_reported_with_what_to_write() -> None:
    """Not when the first job comes."""

    async def entrypoint(ctx: Any) -> None: ...

    with pytest.raises(ArgumentError, match=r"takes its options by name, got <function .*: write @introspected\(\)"):
        introspected(entrypoint)  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match="an entrypoint must be a function, got 7"):
        introspected(socket_path=False)(7)  # type: ignore[arg-type]


def test_a_job_that_cannot_be_measured_runs(run_on_asyncio: Run, caplog: pytest.LogCaptureFixture) -> None:
    """It is logged once for each job, with the traceback."""

    @introspected(socket_path=False, name="voice")
    async def entrypoint(ctx: Any) -> None:
        ran.append(ctx.job.id)

    ran: list[str] = []
    with caplog.at_level(logging.WARNING):
        run_on_asyncio(entrypoint(FakeContext("")))  # no id that a session could have
    assert ran == [""]
    assert flush(60.0)
    assert "introspection of voice: job  runs unmeasured: session_id must have 1 to 256 characters" in caplog.text
    (record,) = (record for record in caplog.records if "runs unmeasured" in record.getMessage())
    assert record.exc_info is not None


def test_a_decorated_entrypoint_keeps_its_name() -> None:
    """livekit-agents finds it by name if jobs are processes."""

    @introspected()
    async def entrypoint(ctx: Any) -> None:
        """What it says."""

    assert (entrypoint.__name__, entrypoint.__doc__) == ("entrypoint", "What it says.")


@pytest.mark.parametrize(
    ("job", "room", "tenant"),
    [
        ('{"tenant": "acme"}', "", "acme"),
        ("", '{"tenant": "globex"}', "globex"),
        ('{"tenant": "acme"}', '{"tenant": "globex"}', "acme"),
        ('{"caller": "x"}', '{"tenant": "globex"}', "globex"),
        ("plain text", "", None),
        ("[1]", "null", None),
        ('{"tenant": 7}', "", None),
        ('{"tenant": ""}', "", None),
        ("", "", None),
    ],
)
def test_the_tenant_is_the_jobs_or_the_rooms(job: str, room: str, tenant: str | None) -> None:
    """Where the metadata is a JSON object that names one."""
    assert metadata_of(FakeContext(metadata=job, room=room)).get("tenant") == tenant
