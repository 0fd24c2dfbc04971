from __future__ import annotations

import pytest

from openrtc_introspect_core import ArgumentTypeError
from openrtc_introspect_core._accounting.account import Account
from openrtc_introspect_core._base.validation import check_metadata
from openrtc_introspect_core._sessions.session import Session, current_session


def session(session_id: str = "job-1", **metadata: object) -> Session:
    return Session(session_id, "restaurant", metadata, started=0.0)


def test_a_session_on_several_loops_is_the_sum_of_its_accounts() -> None:
    """A task that begins on one loop and ends on another is counted off; two full loops are 200 %."""
    one = session()
    for busy, steps, tasks in ((1.5, 3, 2), (0.5, 1, -1)):
        account = Account(one)
        account.busy, account.steps, account.tasks = busy, steps, tasks
        one.accounts.append(account)
    assert (one.busy, one.steps, one.tasks) == (2.0, 4, 1)
    assert one.share(1.0, one.busy) == pytest.approx(200.0)
    assert one.share(0.5, one.busy) == pytest.approx(200.0)


def test_blocks_and_delays_of_a_session_add_up() -> None:
    """Blocks are counted, the worst is kept, and delays add up."""
    one = session()
    one.has_blocked(0.2, 10.0)
    one.has_blocked(0.1, 9.0)
    one.was_delayed(0.4, exact=False)
    one.was_delayed(0.1, exact=True)
    assert (one.blocks, one.worst_block, one.slow_until) == (2, 0.2, 10.0)
    assert (round(one.delayed, 9), one.worst_delay) == (0.3, 0.4)


def test_a_share_covers_the_last_one_to_two_seconds() -> None:
    """Time before the last mark but one no longer counts."""
    one = session()
    one.mark(1.0, busy=1.0)
    one.mark(2.0, busy=1.0)
    one.mark(3.0, busy=1.1)
    assert one.share(3.5, busy=1.1) == pytest.approx(100 * 0.1 / 1.5)


def test_a_share_of_a_young_session_is_over_its_life() -> None:
    """A session that is younger than the window is measured since its start."""
    assert session().share(0.4, busy=0.1) == pytest.approx(25.0)


def test_metadata_is_a_mapping_whose_tenant_is_a_string() -> None:
    """Other values are refused by an error that names them; a tenant of None is accepted."""
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
