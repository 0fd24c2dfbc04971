"""Conditions on workers and sessions: what is accepted, what it means, what is said of the rest."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openrtc_introspect_core.wire import Block, Cgroup, SessionRow, Snapshot, WorkerInfo
from openrtc_top._model.columns import COLUMNS
from openrtc_top._model.condition import MAX_LENGTH, BadCondition, parse
from openrtc_top._model.condition_words import accepted, words

MakeSession = Callable[..., SessionRow]
MakeSnapshot = Callable[..., Snapshot]


def met(text: str, snapshot: Snapshot) -> str | None:
    """The id of the session that fulfils it, or "worker". None: nobody does."""
    found = parse(text).by(snapshot)
    if found is None:
        return None
    return "worker" if found.session is None else found.session.session_id


@pytest.mark.parametrize(
    ("text", "who"),
    [
        ("blocked", "job-2"),
        ("not blocked", "worker"),
        ("slow", None),
        ("blocked or lag_p99 > 200", "job-2"),
        ("lag_p99 > 10", "worker"),
        ("lag_p99_ms > 10", "worker"),
        ("10 < lag_p99_ms <= 14", "worker"),
        ("10 < lag_p99_ms < 14", None),
        ("rss >= 1945 and not blocked", "worker"),
        ("agent == 'dental' and cpu_pct > 50", None),
        ('agent_name == "restaurant" and cpu_pct > 50', "job-2"),
        ("session_id != 'job-1' and cpu_pct > 0", "job-2"),
        ("tenant == 'acme'", "job-1"),
        ("tenant != 'acme'", None),  # that of job-2 is not known
        ("mem > 30 and blocks == 2", "job-2"),
        ("worker.blocks == 7", "worker"),
        ("blocks == 7", None),
        ("session.blocks == 2", "job-2"),
        ("count(blocked) == 1", "worker"),
        ("count(blocked or agent == 'dental') > 2", None),
        ("count(slow) == 0", "worker"),
        ("cpu_s > -1.5", None),  # not known
        ("loop_time.idle_pct < 50", "worker"),
        ("loop_time.idle < 50", "worker"),
        ("host.cores == 8 and host.cpu > 45", "worker"),
        ("cgroup.memory_used_mb > 0", None),
        ("name == 'voice-a' and pid == 41213", "worker"),
        ("draining == False", "worker"),
        ("worker.draining == False", "worker"),
        ("blocks_in_progress == 0", "worker"),
        ("worst > 100", "job-2"),
        ("idle > 20", "job-1"),
        ("status == 'active'", "job-1"),
        ("active and not (agent == 'dental')", None),
        ("(\nblocked\n)", "job-2"),
    ],
)
def test_who_fulfils_it(text: str, who: str | None, make_session: MakeSession, make_snapshot: MakeSnapshot) -> None:
    """The worker itself, or the first session of which the whole condition is true."""
    sessions = [
        make_session("job-1", tenant="acme", started_at=900.0, duration_s=100.0, last_step_at=975.0),
        make_session("job-2", agent_name="restaurant", cpu_pct=88.1, status="blocked", blocks=2, worst_block_ms=120.0),
    ]
    assert met(text, make_snapshot(*sessions, blocks=[]) if "blocks" not in text else _with_blocks(sessions)) == who


def _with_blocks(sessions: list[SessionRow]) -> Snapshot:
    return Snapshot(worker=WorkerInfo(name="voice-a", pid=1, blocks=7), sessions=sessions)


def test_a_loop_that_no_session_holds(make_snapshot: MakeSnapshot, make_block: Callable[..., Block]) -> None:
    """Makes its worker `blocked`; one that a session holds makes that session."""
    assert met("blocked", make_snapshot(blocks=[make_block(session_id=None)])) == "worker"
    assert met("blocked", make_snapshot(blocks=[make_block()])) is None


def test_a_worker_that_drains(make_session: MakeSession, make_snapshot: MakeSnapshot) -> None:
    """Is `draining` itself, with sessions or without."""
    assert met("draining", make_snapshot(draining=True)) == "worker"
    assert met("draining and sessions == 0", make_snapshot(make_session(), draining=True)) is None


def test_a_part_that_is_null(make_snapshot: MakeSnapshot) -> None:
    """Its fields are not known until it is there."""
    limited = make_snapshot(cgroup=Cgroup(memory_used_mb=5.0))
    assert met("cgroup.memory_used > 4", limited) == "worker"
    assert met("not cgroup.memory_used > 4", make_snapshot()) == "worker"


def test_counts_are_counted_once(make_session: MakeSession, make_snapshot: MakeSnapshot) -> None:
    """However many sessions the rest of the condition is asked about, and each count for itself."""
    many = make_snapshot(*[make_session(f"job-{n}", cpu_pct=float(n)) for n in range(2000)])
    assert met("count(cpu_pct > 10) == 1989 and count(cpu_pct > 20) == 1979 and cpu_pct == 1999", many) == "job-1999"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "it is empty; accepted are words"),
        ("x" * (MAX_LENGTH + 1), f"it has {MAX_LENGTH + 1} characters; accepted are {MAX_LENGTH}"),
        ("lag_p90 > 2", "unknown word 'lag_p90'; did you mean lag_p99"),
        ("agent == dental", "unknown word 'dental'; a text stands in quotes; accepted are the words active, slow"),
        ("a.b.c", "unknown word 'a.b.c'"),
        ("().__class__ == 1", "unknown word '().__class__'"),
        ("lag_p99 = 3", "not understood at '= 3'; accepted are words, numbers"),
        ("blocked && slow", "not understood at '& slow'"),
        ("(blocked", "not understood at"),
        ("blocked and", "not understood at"),
        ("tenant", "'tenant' is a text: compare it, as in tenant == \"…\""),
        ("rss_mb", "'rss_mb' is a number: compare it, as in rss_mb > 0"),
        ("cpu_pct > '5'", "\"cpu_pct > '5'\" compares a number with a text"),
        ("cpu > 5", "'cpu > 5' compares a text with a number: cpu is a text; did you mean cpu_pct or cpu_s?"),
        ("status == 'BLOCKED'", "'BLOCKED' is none of active, slow, blocked, draining, errored"),
        ("count('inactive' != status) > 1", "'inactive' is none of active, slow"),
        ("worker.isolation == 'thread'", "'thread' is none of coroutine, process"),
        ("rss > 10 MB", "accepted are words, numbers without a unit, texts"),
        ("agent > 'a'", "orders a text; accepted are == and !="),
        ("blocked > slow", "orders a truth"),
        ("cpu_pct in (1, 2)", "'(1, 2)' is not accepted"),
        ("cpu_pct is 1", "compares in a way that is not accepted"),
        ("cpu_pct + 1 > 2", "'cpu_pct + 1' is not accepted"),
        ("__import__('os').system('true')", "is not accepted"),
        ("count(blocked, slow) > 1", "is not accepted"),
        ("count(count(slow) > 1) > 1", "a count within a count"),
        ("count(slow)", "'count(slow)' is not accepted"),
        ("True", "'True' is not accepted"),
        ("lambda: 1", "is not accepted"),
        ("(blocked := slow)", "is not accepted"),
        ("blocked\x00", "not understood"),
        ("(" * 400 + "blocked" + ")" * 400, "not understood"),
        ("not " * 240 + "nope", "unknown word 'nope'"),
    ],
)
def test_what_is_refused(text: str, said: str) -> None:
    """With what was given and what is accepted."""
    with pytest.raises(BadCondition) as error:
        parse(text)
    assert said in str(error.value)


@settings(deadline=None)
@given(
    st.text(max_size=60)
    | st.lists(st.sampled_from([*words(), "and", "or", "not", "(", ")", "<", "3", "'x'", "count("])).map(" ".join)
)
def test_nothing_else_is_raised(text: str) -> None:
    """Whatever is given, it is a condition that can be asked, or refused."""
    try:
        condition = parse(text)
    except BadCondition:
        return
    condition.by(Snapshot(worker=WorkerInfo(name="a", pid=1), sessions=[SessionRow(session_id="x", agent_name="y")]))


def test_each_field_is_a_word() -> None:
    """Each field of a session and a worker that is one value, each sort; the message names all of the wire's."""
    known, listed = words(), accepted()
    lists = {"left_behind", "outlived", "notes", "loops"}
    parts = {"loop_time", "host", "cgroup"}
    for kind in (SessionRow, WorkerInfo):
        names = {field.name for field in msgspec.structs.fields(kind)} - lists - parts
        assert names <= set(known)
        assert all(name in listed for name in names)
    assert {column.id for column in COLUMNS if column.wire} <= set(known)
    assert "cpu_pct" in known
    assert known["cpu"].kind == "text"  # the worker's, whose whole name it is
