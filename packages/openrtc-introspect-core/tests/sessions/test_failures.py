from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from openrtc_introspect_core import Introspector, SessionFailed, Snapshot
from openrtc_introspect_core._sessions.failures import KEPT, KEPT_S, Failures, describe_error
from openrtc_introspect_core._sessions.session import Session

Run = Callable[[Coroutine[Any, Any, Any]], Any]


def session(session_id: str) -> Session:
    return Session(session_id, "restaurant", {}, started=0.0)


def fail(introspector: Introspector, session_id: str, error: BaseException) -> None:
    with pytest.raises(type(error)), introspector.session(session_id, agent_name="a", metadata={"tenant": "acme"}):
        raise error


def errored(snapshot: Snapshot) -> dict[str, str | None]:
    return {row.session_id: row.error for row in snapshot.sessions if row.status == "errored"}


def test_a_session_that_fails_shows_as_errored_for_a_while(run_virtually: Run) -> None:
    """Its row has the error; 30 s after its end the row is gone, and the totals stay."""

    async def main() -> Any:
        loop: Any = asyncio.get_running_loop()
        async with Introspector(socket_path=False, clock=loop.clock) as introspector:
            with contextlib.suppress(ValueError), introspector.session("job-1", agent_name="a"):
                await asyncio.sleep(2)
                raise ValueError("mine")
            await asyncio.sleep(KEPT_S - 0.1)
            before = introspector.snapshot()
            await asyncio.sleep(0.2)
            return before, introspector.snapshot()

    before, after = run_virtually(main())
    (row,) = before.sessions
    assert (row.session_id, row.status, row.error) == ("job-1", "errored", "ValueError: mine")
    assert row.duration_s == pytest.approx(2.0)
    assert after.sessions == []
    assert (after.worker.started, after.worker.errored) == (1, 1)


def test_an_errored_session_has_no_share_of_the_present_memory(run_virtually: Run) -> None:
    """It is not counted as live, and the live rows still add up to RSS."""

    async def main() -> Snapshot:
        loop: Any = asyncio.get_running_loop()
        async with Introspector(socket_path=False, clock=loop.clock) as introspector:
            fail(introspector, "job-bad", ValueError("mine"))
            with introspector.session("job-1", agent_name="a"), introspector.session("job-2", agent_name="a"):
                return introspector.snapshot()

    snapshot = run_virtually(main())
    rows = {row.session_id: row for row in snapshot.sessions}
    assert rows.keys() == {"job-bad", "job-1", "job-2"}
    assert snapshot.worker.sessions == 2
    assert (rows["job-bad"].mem_mb, rows["job-bad"].cpu_pct) == (0.0, 0.0)
    assert sum(row.mem_mb for row in rows.values()) == pytest.approx(snapshot.worker.rss_mb)


def test_its_id_can_be_used_again_at_once(run_virtually: Run) -> None:
    """The new session's row replaces the failed one's, for good if the new session fails as well."""

    async def main() -> Any:
        loop: Any = asyncio.get_running_loop()
        async with Introspector(socket_path=False, clock=loop.clock) as introspector:
            fail(introspector, "job-1", ValueError("first"))
            with introspector.session("job-1", agent_name="a"):
                live = introspector.snapshot()
            fail(introspector, "job-1", ValueError("second"))
            return live, introspector.snapshot()

    live, after = run_virtually(main())
    assert [(row.session_id, row.status, row.error) for row in live.sessions] == [("job-1", "active", None)]
    assert errored(after) == {"job-1": "ValueError: second"}


def test_a_cancelled_session_is_not_errored(run_virtually: Run) -> None:
    """A session whose program is interrupted is not either."""

    async def main() -> Snapshot:
        loop: Any = asyncio.get_running_loop()
        async with Introspector(socket_path=False, clock=loop.clock) as introspector:
            fail(introspector, "job-1", asyncio.CancelledError())
            fail(introspector, "job-2", KeyboardInterrupt())
            return introspector.snapshot()

    snapshot = run_virtually(main())
    assert (snapshot.sessions, snapshot.worker.errored) == ([], 0)


def test_the_latest_of_many_are_kept() -> None:
    """A worker whose sessions all fail keeps at most 32 of them, for 30 s."""
    failures = Failures()
    for number in range(KEPT + 5):
        failures.add(session(f"job-{number}"), float(number) / 100, ValueError())
    shown = [failure.session.session_id for failure in failures.shown(1.0, live=())]
    assert shown == [f"job-{number}" for number in range(5, KEPT + 5)]
    failures.forget(KEPT_S + 100)
    assert failures.shown(1.0, live=()) == []


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("mine"), "ValueError: mine"),
        (ValueError(), "ValueError"),
        (ValueError("two\n  lines"), "ValueError: two lines"),
        (ExceptionGroup("all", [ExceptionGroup("inner", [KeyError("menu")])]), "KeyError: 'menu'"),
        (ExceptionGroup("two", [KeyError(), KeyError()]), "ExceptionGroup: two (2 sub-exceptions)"),
        (SessionFailed("exit code 3"), "exit code 3"),
        (ValueError("x" * 300), f"ValueError: {'x' * 186} …"),
        (ValueError("\ud800"), "ValueError: ?"),
        (Unspeakable(), "Unspeakable"),
    ],
)
def test_an_error_is_described_in_one_line(error: Exception, line: str) -> None:
    """The line has the error's type and its message, if the message can be had."""
    assert describe_error(error) == line
