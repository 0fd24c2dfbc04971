"""Groups of waits: which of them need a look, and the list of the key W."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from msgspec import structs

from openrtc_introspect_core.wire import (
    CallbackGroup,
    Creation,
    ExecutorInfo,
    Holder,
    LoopActivity,
    SessionRow,
    Snapshot,
    Waiter,
    WaitGroup,
    Waits,
)
from openrtc_top._model.events import Dropped, Event, Frame, Key, Surveyed
from openrtc_top._model.reducer import reduce
from openrtc_top._model.state import State
from openrtc_top._model.waits import Choice, Survey, all_calm, entries, is_calm, most_first, waited_s

MakeSession = Callable[..., SessionRow]
MakeSnapshot = Callable[..., Snapshot]
MakeWaits = Callable[..., Waits]


def after(*events: Event, state: State | None = None) -> State:
    state = state or State()
    for event in events:
        state = reduce(state, event)
    return state


@pytest.mark.parametrize(
    ("group", "calm"),
    [
        (WaitGroup(kind="timer", sessions=48, tasks=48), True),
        (WaitGroup(kind="queue", sessions=48, tasks=48), True),
        (WaitGroup(kind="process", sessions=2, tasks=2, shared=True), True),
        (WaitGroup(kind="event", sessions=1, tasks=1, shared=True), True),
        (WaitGroup(kind="event", sessions=2, tasks=2, shared=True), False),
        (WaitGroup(kind="of-later", sessions=2, tasks=2, shared=True), False),
        (WaitGroup(kind="lock", sessions=1, tasks=1, shared=True, holders=[Holder(task_name="t")]), False),
    ],
)
def test_a_group_is_calm_if_nobody_waits_for_another(group: WaitGroup, calm: bool) -> None:
    """Each waits for a thing of its own, alone, for something from outside, or only for a moment."""
    assert is_calm(group, 10.0) is calm
    assert is_calm(structs.replace(group, since=9.5), 10.0)
    assert is_calm(structs.replace(group, since=8.5), 10.0) is calm


@pytest.mark.parametrize(
    "fields",
    [
        {"executors": [ExecutorInfo(name="default", busy=8, queued=1)]},
        {"executors": [ExecutorInfo(name="default", busy=8, queued=1, longest_queued_s=1.5)]},
        {"loops": [LoopActivity(name="asyncio", iterations_per_s=50000.0, steps_per_s=400.0)]},
        {"loops": [LoopActivity(name="asyncio", ready=5000)]},
        {"loops": [LoopActivity(name="asyncio", callbacks=[CallbackGroup(source="ready", count=900)])]},
        {
            "loops": [
                LoopActivity(name="uvloop", sampled=20, callbacks=[CallbackGroup(source="writer", fd=9, count=19)])
            ]
        },
        {"loops": [LoopActivity(name="asyncio", asleep_since=997.0, callbacks=[CallbackGroup(source="lost")])]},
        {"creations": [Creation(kind="thread", alive=100)]},
        {"creations": [Creation(kind="task", alive=500)]},
    ],
)
def test_all_is_calm_unless_something_else_keeps_tasks_waiting(
    fields: dict[str, object], make_waits: MakeWaits
) -> None:
    """A queue before threads, a loop that is busy beside sessions, and a growing crowd are not calm."""
    group = WaitGroup(kind="timer", sessions=5, tasks=5)
    threads = [ExecutorInfo(name="default", max_threads=8, busy=8, queued=1, longest_queued_s=0.1)]
    ready = [CallbackGroup(source="ready", count=3), CallbackGroup(source="lost", count=1)]
    loop = LoopActivity(name="asyncio", iterations_per_s=300.0, asleep_since=999.9, ready=3, callbacks=ready)
    tasks = [Creation(kind="task", alive=80), Creation(kind="thread", alive=32)]
    assert all_calm(make_waits(group, executors=threads, loops=[loop], creations=tasks))
    assert not all_calm(make_waits(group, **fields))
    assert not all_calm(make_waits())


def test_a_choice_of_groups() -> None:
    """By kind, and by the agent and tenant of a waiter or holder that is named."""
    group = WaitGroup(
        kind="lock", waiters=[Waiter(agent_name="dental")], holders=[Holder(agent_name="support", tenant="acme")]
    )
    accepted = [Choice(), Choice("lock"), Choice(agent="dental"), Choice(agent="support", tenant="acme")]
    assert all(choice.accepts(group) for choice in accepted)
    assert not any(choice.accepts(group) for choice in (Choice("timer"), Choice(agent="x"), Choice(tenant="globex")))
    assert [bool(choice) for choice in (Choice(), Choice(tenant="acme"))] == [False, True]


def test_groups_of_several_workers_are_one_list() -> None:
    """Those with the most sessions come first, of equals the oldest; groups that look the same stay two."""
    one = Waits(id=0, taken_at=10.0, groups=[WaitGroup(kind="lock", sessions=3), WaitGroup(kind="lock", sessions=3)])
    other = Waits(id=0, taken_at=10.0, groups=[WaitGroup(kind="timer", sessions=3, since=4.0)])
    found = most_first([*entries("a", "a", one), *entries("b", "b", other)])
    assert [entry.identity for entry in found] == [
        ("b", "timer", "", "None", 0),
        ("a", "lock", "", "None", 0),
        ("a", "lock", "", "None", 1),
    ]
    assert (waited_s(4.0, 10.0), waited_s(11.0, 10.0), waited_s(None, 10.0)) == (6.0, 0.0, None)


# --- the key W -----------------------------------------------------------------------------------


@pytest.fixture
def opened(make_snapshot: MakeSnapshot, make_session: MakeSession, make_waits: MakeWaits) -> State:
    """The page, with an answer."""
    frame = Frame("w", make_snapshot(make_session("job-77ab02"), make_session("job-00")))
    return after(frame, Key("W"), Surveyed("w", Survey(make_waits())))


def test_w_opens_and_closes_the_page(opened: State) -> None:
    """It asks at once; W, Escape and Backspace lead back."""
    assert (opened.view, opened.refreshes) == ("waits", 1)
    assert [entry.group.kind for entry in opened.waits()] == ["lock", "timer"]
    assert {after(Key(key), state=opened).view for key in ("W", "escape", "backspace")} == {"sessions"}
    assert after(Key("b"), state=opened).view == "blocks"
    assert after(Key("s"), state=opened) is opened


def test_workers_are_asked_only_while_it_is_open(opened: State, make_waits: MakeWaits) -> None:
    """It is not asked for under a session's page, in a pause that has an answer, or of a worker out of sight."""
    assert opened.surveys("w")
    assert not opened.surveys("x")
    assert not after(Key("W"), state=opened).surveys("w")
    paused = after(Key("space"), state=opened)
    assert not paused.surveys("w")
    assert after(Surveyed("w", Survey(make_waits(tasks=1))), state=paused).waits() == opened.waits()
    page = after(Key("enter"), Key("enter"), state=opened)
    assert page.page is not None
    assert not page.surveys("w")


def test_enter_shows_who_and_then_their_page(opened: State) -> None:
    """Of the first group if none is selected; holders come before waiters; each Escape leads one step back."""
    people = after(Key("enter"), state=opened)
    group = people.wait_list.group(people.waits())
    assert group is not None
    assert group.group.kind == "lock"
    page = after(Key("enter"), state=people)
    assert page.page is not None
    assert (page.page.session.session_id, page.view) == ("job-77ab02", "waits")
    waiter = after(Key("down"), Key("down"), Key("enter"), state=people)
    assert waiter.page is not None
    assert waiter.page.session.session_id == "job-00"
    back = after(Key("escape"), state=waiter)
    assert back.page is None
    assert back.wait_list.group(back.waits()) == group
    assert after(Key("escape"), state=back).wait_list.opened is None
    assert after(Key("escape"), Key("escape"), state=back).view == "sessions"


def test_a_selection_stays_with_its_group(opened: State, make_waits: MakeWaits) -> None:
    """The groups change their order with each answer."""
    selected = after(Key("down"), Key("down"), state=opened)
    identities = [entry.identity for entry in selected.waits()]
    assert selected.wait_list.cursor.index(identities) == 1
    more = WaitGroup(kind="timer", what="sleep", location=selected.waits()[1].group.location, sessions=50, tasks=50)
    lock = opened.waits()[0].group
    later = after(Surveyed("w", Survey(make_waits(lock, more))), state=selected)
    assert later.wait_list.cursor.index([entry.identity for entry in later.waits()]) == 0


def test_a_group_that_is_gone_leads_back_to_the_groups(opened: State, make_waits: MakeWaits) -> None:
    """The lock was given back meanwhile."""
    people = after(Key("enter"), state=opened)
    later = after(Surveyed("w", Survey(make_waits(WaitGroup(kind="timer", sessions=1, tasks=1)))), state=people)
    assert later.wait_list.group(later.waits()) is None
    assert after(Key("escape"), state=later).view == "sessions"


def test_who_has_no_page_is_said(opened: State, make_waits: MakeWaits) -> None:
    """A task of no session has none, and neither has a session that has ended."""
    group = WaitGroup(kind="lock", holders=[Holder(thread="worker-1")], waiters=[Waiter(session_id="over")])
    people = after(Surveyed("w", Survey(make_waits(group))), Key("enter"), state=opened)
    assert after(Key("enter"), state=people).notice == "it belongs to no session, which has no page"
    ended = after(Key("G"), Key("enter"), state=people)
    assert (ended.notice, ended.page) == ("over has ended", None)


def test_an_answer_of_an_unknown_worker_changes_nothing(opened: State, make_waits: MakeWaits) -> None:
    """It was dropped meanwhile."""
    gone = after(Dropped("w"), state=opened)
    assert after(Surveyed("w", Survey(make_waits())), state=gone).waits() == []


def test_an_answer_is_forgotten_if_the_worker_is_started_anew(opened: State, make_snapshot: MakeSnapshot) -> None:
    """It says nothing of the new one."""
    assert after(Frame("w", make_snapshot()), state=opened).waits() == opened.waits()
    assert after(Frame("w", make_snapshot(epoch="second")), state=opened).waits() == []
