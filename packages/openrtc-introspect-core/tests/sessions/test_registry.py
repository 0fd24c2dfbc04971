from __future__ import annotations

import pytest

from openrtc_introspect_core import ArgumentError
from openrtc_introspect_core._accounting.account import Account
from openrtc_introspect_core._base.notes import Notes
from openrtc_introspect_core._sessions.registry import SessionRegistry
from openrtc_introspect_core._sessions.session import Session
from openrtc_introspect_testing._loops.fake_clock import FakeClock


def registry() -> SessionRegistry:
    return SessionRegistry("worker", FakeClock(), Notes("worker"))


def session(session_id: str = "job-1") -> Session:
    return Session(session_id, "restaurant", {}, started=0.0)


def test_an_id_that_is_live_is_refused_and_free_again_after() -> None:
    """Two live sessions never share an id; one after the other may."""
    table = registry()
    first = session()
    table.add(first)
    with pytest.raises(ArgumentError, match=r"session id 'job-1' is live already"):
        table.add(session())
    table.remove(first)
    table.add(session())
    assert table.started == 2


def test_an_ended_session_is_kept_while_tasks_of_it_run() -> None:
    """Time of tasks that outlive it is still charged to it."""
    table = registry()
    one = session()
    account = Account(one)
    one.accounts.append(account)
    table.add(one)
    account.tasks = 1
    table.remove(one, error=ValueError())
    assert (table.retire(), list(table._ended.values()), table.errored) == ([], [one], 1)
    account.tasks = 0
    assert (table.retire(), table._ended) == ([one], {})


def test_the_first_session_and_the_last_are_passed_on() -> None:
    """`on_live` is called with True for the first, and with False for the last."""
    table, heard = registry(), list[bool]()
    table.on_live = heard.append
    one, two = session("job-1"), session("job-2")
    table.add(one)
    table.add(two)
    table.remove(one)
    assert heard == []
    table.remove(two)
    assert heard == [False]


@pytest.mark.parametrize(("error", "errored"), [(None, 0), (ValueError("x"), 1), (KeyboardInterrupt(), 0)])
def test_a_session_failed_by_an_exception_only(error: BaseException | None, errored: int) -> None:
    """An end by another exception, such as a cancellation, is no failure."""
    table, one = registry(), session()
    table.add(one)
    one.ended_at = 0.0
    table.remove(one, error=error)
    assert (table.errored, len(table.failures.shown(0.0, table.live))) == (errored, errored)
