from __future__ import annotations

import pytest

from openrtc_introspect_core import ArgumentError, ArgumentTypeError
from openrtc_introspect_core._sessions import (
    Account,
    Session,
    SessionTable,
    check_metadata,
    check_text,
    current_session,
    percent,
)


def session(session_id: str = "job-1", **metadata: object) -> Session:
    return Session(session_id, "restaurant", metadata, started=0.0)


def test_an_id_that_is_live_is_refused_and_free_again_after() -> None:
    """Two live sessions never share an id; one after the other may."""
    table = SessionTable()
    first = session()
    table.add(first)
    with pytest.raises(ArgumentError, match=r"session id 'job-1' is live already"):
        table.add(session())
    table.remove(first, errored=False)
    table.add(session())
    assert table.started == 2


def test_an_ended_session_is_kept_while_tasks_of_it_run() -> None:
    """What its left-over tasks go on using is still counted."""
    table = SessionTable()
    one = session()
    account = Account(one)
    one.accounts.append(account)
    table.add(one)
    account.tasks = 1
    table.remove(one, errored=True)
    assert (table.retire(), list(table.left_behind.values()), table.errored) == ([], [one], 1)
    account.tasks = 0
    assert (table.retire(), table.left_behind) == ([one], {})


def test_a_session_on_several_loops_is_the_sum_of_its_accounts() -> None:
    """A task counted on one loop and off on another is none; two whole loops are 200 %."""
    one = session()
    for busy, steps, tasks in ((1.5, 3, 2), (0.5, 1, -1)):
        account = Account(one)
        account.busy, account.steps, account.tasks = busy, steps, tasks
        one.accounts.append(account)
    assert (one.busy, one.steps, one.tasks) == (2.0, 4, 1)
    assert one.share(1.0, one.busy) == pytest.approx(200.0)
    assert one.share(0.5, one.busy) == pytest.approx(200.0)


def test_what_blocks_tell_of_a_session_adds_up() -> None:
    """How often it blocked, how long at worst, and what it waited for others."""
    one = session()
    one.has_blocked(0.2, 10.0)
    one.has_blocked(0.1, 9.0)
    one.was_delayed(0.4, exact=False)
    one.was_delayed(0.1, exact=True)
    assert (one.blocks, one.worst_block, one.slow_until) == (2, 0.2, 10.0)
    assert (round(one.delayed, 9), one.worst_delay) == (0.3, 0.4)


def test_a_share_looks_one_to_two_seconds_back() -> None:
    """What a session did before the last mark but one does not show any more."""
    one = session()
    one.mark(1.0, busy=1.0)
    one.mark(2.0, busy=1.0)
    one.mark(3.0, busy=1.1)
    assert one.share(3.5, busy=1.1) == pytest.approx(100 * 0.1 / 1.5)


def test_a_share_of_a_young_session_is_over_its_life() -> None:
    """A session that is younger than the window is measured since its start."""
    assert session().share(0.4, busy=0.1) == pytest.approx(25.0)


@pytest.mark.parametrize(("part", "whole", "expected"), [(1, 2, 50.0), (-1, 2, 0.0), (3, 2, 100.0), (1, 0, 0.0)])
def test_percent_stays_within_bounds(part: float, whole: float, expected: float) -> None:
    """Readings a moment apart never show less than nothing or more than the whole."""
    assert percent(part, whole) == expected


@pytest.mark.parametrize("length", [1, 256])
def test_text_of_accepted_length_is_kept(length: int) -> None:
    """1 to 256 characters are accepted."""
    assert check_text("session_id", "x" * length) == "x" * length


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ("", "an empty one"),
        ("x" * 257, "257 characters"),
        ("a\ud800", "lone surrogates"),
        (7, "must be a str, got 7"),
    ],
)
def test_text_that_cannot_be_shown_is_refused(value: object, told: str) -> None:
    """The error names what was given."""
    with pytest.raises(ArgumentError, match=told):
        check_text("session_id", value)


def test_metadata_is_a_mapping_whose_tenant_is_a_string() -> None:
    """Anything else is refused, naming the value; a tenant of None is none."""
    assert check_metadata(None) == {}
    assert session(tenant="acme").tenant == "acme"
    assert check_metadata({"tenant": None}) == {"tenant": None}
    with pytest.raises(ArgumentTypeError, match=r"metadata must be a mapping.*got 'acme'"):
        check_metadata("acme")
    with pytest.raises(TypeError, match=r"metadata\['tenant'\] must be a str, got 7"):
        check_metadata({"tenant": 7})


def test_outside_of_every_scope_there_is_no_session() -> None:
    """`current_session` is None where nothing is bound."""
    assert current_session() is None
