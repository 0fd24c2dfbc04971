"""The rows that are shown, and their order."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from openrtc_introspect_core.wire import SessionRow
from openrtc_top._model.columns import BY_ID, CYCLE, SORTS, known_sort
from openrtc_top._model.rows import STATUSES, Filter, Row, arrange


@pytest.fixture
def rows(make_session: Callable[..., SessionRow]) -> list[Row]:
    sessions = [
        make_session("b", agent_name="y", cpu_pct=5.0, duration_s=9.0, mem_mb=1.0, last_step_at=8.0, waits="lock"),
        make_session("a", agent_name="y", cpu_pct=None, duration_s=8.0, mem_mb=1.0, tenant="acme"),
        make_session("c", agent_name="x", cpu_pct=50.0, duration_s=7.0, mem_mb=2.0, blocks=2, worst_block_ms=80.0),
        make_session(
            "d", agent_name="z", cpu_pct=0.0, duration_s=6.0, mem_mb=1.0, status="blocked", blocks=1, last_step_at=1.0
        ),
    ]
    return [Row("worker", session) for session in sessions]


@pytest.mark.parametrize(
    ("name", "order"),
    [
        ("mem_mb", "cabd"),
        ("cpu_pct", "cbda"),
        ("duration_s", "bacd"),
        ("agent", "cabd"),
        ("session", "abcd"),
        ("tenant", "abcd"),
        ("status", "dabc"),
        ("blocks", "cdab"),
        ("worst", "cdab"),
        ("idle", "dbac"),
        ("waits", "bacd"),
    ],
)
def test_order(rows: list[Row], name: str, order: str) -> None:
    """Numbers from the greatest down, text from a to z, unknown last, ties by session id."""
    assert "".join(row.session.session_id for row in arrange(rows, SORTS[name])) == order


@pytest.mark.parametrize(
    ("name", "order"), [("cpu_pct", "dbca"), ("mem_mb", "abdc"), ("session", "dcba"), ("agent", "dabc")]
)
def test_inverted(rows: list[Row], name: str, order: str) -> None:
    """The other way round, but what is unknown stays last and ties stay by session id."""
    assert "".join(row.session.session_id for row in arrange(rows, SORTS[name], inverted=True)) == order


def test_names() -> None:
    """The cycle of the key s is the documented one, and each name that is accepted is a sort."""
    assert CYCLE == ("mem_mb", "cpu_pct", "duration_s", "agent", "session")
    assert set(CYCLE) <= set(SORTS)
    assert {known_sort(BY_ID[name].wire or name) for name in SORTS} == set(SORTS)


@pytest.mark.parametrize(
    ("chosen", "accepted"),
    [
        (Filter(), "bacd"),
        (Filter(status="blocked"), "d"),
        (Filter(agent="y"), "ba"),
        (Filter(tenant="acme"), "a"),
        (Filter(agent="y", status="active", tenant="acme"), "a"),
        (Filter(agent="no such"), ""),
    ],
)
def test_filter(rows: list[Row], chosen: Filter, accepted: str) -> None:
    """A session must fulfil all that is asked."""
    assert "".join(row.session.session_id for row in rows if chosen.accepts(row.session)) == accepted
    assert bool(chosen) is (chosen != Filter())


def test_all_statuses_of_the_wire_are_known() -> None:
    """A status that the wire can carry can be filtered and sorted by."""
    from typing import get_args

    from openrtc_introspect_core.wire import _messages

    assert set(get_args(_messages.Status)) == set(STATUSES)
