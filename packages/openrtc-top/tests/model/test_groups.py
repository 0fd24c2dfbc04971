"""Groups of sessions, the worst worker first, and the key g."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from openrtc_introspect_core.wire import Block, SessionRow, Snapshot
from openrtc_top._model.events import Dropped, Event, Found, Frame, Gone, Key, Listed
from openrtc_top._model.groups import THIS_HOST
from openrtc_top._model.reducer import reduce, take_in
from openrtc_top._model.state import State
from openrtc_top._model.trouble import worst_first

MakeSession = Callable[..., SessionRow]
MakeSnapshot = Callable[..., Snapshot]
MakeBlock = Callable[..., Block]


def after(state: State, *events: Event) -> State:
    for event in events:
        state = reduce(state, event)
    return state


def pressed(state: State, *keys: str) -> State:
    return after(state, *map(Key, keys))


@pytest.fixture
def fleet(make_session: MakeSession, make_snapshot: MakeSnapshot, make_block: MakeBlock) -> State:
    """Three hosts: a calm one, one that is slow, one whose second worker is blocked; and this machine's worker."""
    calm = make_snapshot(make_session("a1"), make_session("a2", agent_name="support"), name="w", lag_p99_ms=1.0)
    slow = make_snapshot(make_session("b1", status="slow", blocks=2, worst_block_ms=90.0), name="w", lag_p99_ms=70.0)
    held = make_snapshot(
        make_session("c2", agent_name="restaurant", status="blocked"),
        name="w2",
        blocks=[make_block(session_id="c2", agent_name="restaurant")],
    )
    return after(
        State(),
        Found("a:/1", "w", 1, "a"),
        Frame("a:/1", calm),
        Found("b:/1", "w", 1, "b"),
        Frame("b:/1", slow),
        Found("c:/1", "w1", 1, "c"),
        Frame("c:/1", make_snapshot(make_session("c1"), name="w1", lag_p99_ms=None)),
        Found("c:/2", "w2", 2, "c"),
        Frame("c:/2", held),
        Found("/here", "here", 5, None),
        Frame("/here", make_snapshot(make_session("h1"), name="here", lag_p99_ms=1.0)),
    )


def test_g_goes_through_the_groupings(fleet: State) -> None:
    """None, host, agent, and none again."""
    seen = [fleet]
    for _ in range(3):
        seen.append(pressed(seen[-1], "g"))
    assert [state.grouping for state in seen] == [None, "host", "agent", None]
    assert [state.lists_groups for state in seen] == [False, True, True, False]
    assert seen[3].rows == fleet.rows


def test_hosts_the_worst_first(fleet: State) -> None:
    """The one with a block in progress, the slow one, then the others; with the totals of each."""
    listed = pressed(fleet, "g").groups
    assert [group.name for group in listed] == ["c", "b", "a", THIS_HOST]
    worst, slow, calm, _ = listed
    assert (len(worst.workers), len(worst.sessions), worst.count("blocked")) == (2, 2, 1)
    assert worst.longest is not None
    assert worst.longest.block.session_id == "c2"
    assert (slow.count("slow"), slow.blocks, slow.worst_ms, slow.lag_p99_ms) == (1, 2, 90.0, 70.0)
    assert (calm.cpu_pct, calm.mem_mb, calm.worst_ms) == (3.0, pytest.approx(74.4), None)


def test_agents_the_worst_first(fleet: State) -> None:
    """A block counts for the agent of its session alone, though others share the worker."""
    listed = pressed(fleet, "g", "g").groups
    assert [(group.name, len(group.sessions)) for group in listed] == [("restaurant", 1), ("dental", 4), ("support", 1)]
    assert [group.longest is not None for group in listed] == [True, False, False]
    assert [len(group.workers) for group in listed] == [1, 4, 1]


def test_enter_opens_a_group(fleet: State) -> None:
    """Its sessions alone are shown, and its workers in the header; Esc goes back to the list, and then out of it."""
    opened = pressed(fleet, "g", "enter")
    assert (opened.group, [row.session.session_id for row in opened.rows]) == ("c", ["c1", "c2"])
    assert [worker.key for worker in opened.scope] == ["c:/1", "c:/2"]
    back = pressed(opened, "escape")
    assert back.lists_groups
    assert back.group_list.chosen == "c"
    assert not pressed(back, "escape").lists_groups
    second = pressed(back, "down", "enter")
    assert (second.group, [row.session.session_id for row in second.rows]) == ("b", ["b1"])
    assert pressed(fleet, "g", "g", "down", "down", "enter").group == "dental"
    agent = pressed(fleet, "g", "g", "end", "enter")
    assert (agent.group, [row.session.session_id for row in agent.rows]) == ("support", ["a2"])
    assert len(agent.scope) == 5


def test_filters_apply_to_groups(fleet: State) -> None:
    """Only what passes is counted, and a host without any of it is left out; without a filter each host is there."""
    blocked = pressed(fleet, "g", "f", "f", "f")
    assert blocked.filter.status == "blocked"
    assert [(group.name, len(group.sessions)) for group in blocked.groups] == [("c", 1)]
    typed = pressed(fleet, "g", "/", "a", "1", "enter")
    assert [group.name for group in typed.groups] == ["a"]
    assert pressed(typed, "escape").filter.text == ""
    assert pressed(typed, "escape").lists_groups
    empty = after(pressed(fleet, "g"), Found("d:/1", "w", 1, "d"))
    assert ("d", 0) in [(group.name, len(group.sessions)) for group in empty.groups]


def test_a_host_that_cannot_be_reached(fleet: State) -> None:
    """Is a group of its name."""
    state = after(pressed(fleet, "g"), Found("down", "down"), Gone("down", "no route to host"))
    group = next(group for group in state.groups if group.name == "down")
    assert [worker.gone for worker in group.gone] == ["no route to host"]
    assert state.groups.index(group) == 1  # behind the blocked one


def test_keys_of_the_table_do_nothing_in_the_list(fleet: State) -> None:
    """Their effect could not be seen."""
    listed = pressed(fleet, "g")
    for key in ("s", "i", "p", "c", "P"):
        assert pressed(listed, key) == listed
    assert pressed(listed, "b").view == "blocks"
    assert pressed(listed, "q").done


def test_a_group_whose_host_is_gone(fleet: State) -> None:
    """Is closed: the list is shown again."""
    opened = pressed(fleet, "g", "down", "down", "enter")
    assert opened.group == "b"
    assert after(opened, Dropped("b:/1")).lists_groups


def test_the_selection_stays_with_its_group(fleet: State, make_snapshot: MakeSnapshot) -> None:
    """While the groups change places."""
    listed = pressed(fleet, "g", "down", "down", "down")
    assert listed.group_list.chosen == "a"
    calmer = after(listed, Frame("c:/2", make_snapshot(name="w2")))
    assert next(group.name for group in calmer.groups) == "b"
    assert pressed(calmer, "enter").group == "a"


def test_g_is_home_in_other_lists(fleet: State) -> None:
    """As in vi: only the table has groups."""
    workers = pressed(fleet, "w", "G")
    assert pressed(workers, "g").fleet.at == 0
    assert pressed(workers, "g").grouping is None


def test_the_worst_worker_first(fleet: State, make_snapshot: MakeSnapshot) -> None:
    """Blocked, gone, slow, late, busy; workers that are equally bad stay in their order."""
    late = make_snapshot(name="late", lag_p99_ms=300.0)
    state = after(
        fleet, Found("/late", "late"), Frame("/late", late), Found("x", "x"), Gone("x", "down"), Found("new", "new")
    )
    assert [worker.key for worker in worst_first(state.workers)] == [
        "c:/2", "x", "b:/1", "/late", "a:/1", "c:/1", "/here", "new",
    ]  # fmt: skip


def test_names_count_as_numbers(make_snapshot: MakeSnapshot) -> None:
    """w2 stands before w10."""
    state = State()
    for number in (10, 1, 2, 11):
        state = after(state, Found(f"/{number}", f"w{number}", number, "h1"))
    assert [worker.name for worker in state.workers] == ["h1:w1", "h1:w2", "h1:w10", "h1:w11"]


def test_rows_are_made_once_for_much_news(fleet: State, make_snapshot: MakeSnapshot, make_session: MakeSession) -> None:
    """`take_in` leaves them as they were; the end is the same as with `reduce`."""
    news: list[Event] = [
        Frame("a:/1", make_snapshot(make_session("a1"), make_session("a3"), name="w")),
        Dropped("b:/1"),
        Frame("c:/2", make_snapshot(make_session("c2"), name="w2")),
    ]
    taken = fleet
    for event in news:
        taken = take_in(taken, event)
    assert taken.stale
    assert taken.rows == fleet.rows
    assert taken.derived_anew() == after(fleet, *news)
    assert take_in(taken, Key("x")).rows == after(fleet, *news).rows


def test_what_is_said_of_the_list_of_hosts(fleet: State) -> None:
    """Stays until a list was good again."""
    state = reduce(fleet, Listed("kubectl: it ended with exit code 1"))
    assert state.listing == "kubectl: it ended with exit code 1"
    assert pressed(state, "r").listing is not None
    assert reduce(state, Listed(None)).listing is None
