"""Keys: the filter, pins, pause, and the pages that lie over the table."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from openrtc_introspect_core.wire import Block, SessionRow, Snapshot
from openrtc_top._model.columns import DEFAULT, SORTS
from openrtc_top._model.events import Blocked, Event, Frame, Gone, Inspected, Key, Noticed, Shown, Tick
from openrtc_top._model.page import Inspection
from openrtc_top._model.reducer import reduce
from openrtc_top._model.rows import Filter
from openrtc_top._model.state import State

MakeSession = Callable[..., SessionRow]
MakeSnapshot = Callable[..., Snapshot]
MakeBlock = Callable[..., Block]


def after(*events: Event, state: State | None = None) -> State:
    state = state or State()
    for event in events:
        state = reduce(state, event)
    return state


def typed(text: str, state: State) -> State:
    """The state after these keys; a blank is the space key."""
    return after(*(Key("space" if key == " " else key) for key in text), state=state)


def ids(state: State) -> str:
    return "".join(row.session.session_id for row in state.rows)


@pytest.fixture
def abc(make_snapshot: MakeSnapshot, make_session: MakeSession) -> State:
    """Sessions a, b and c, in this order."""
    frame = make_snapshot(
        make_session("a", cpu_pct=3.0, agent_name="Restaurant", tenant="acme"),
        make_session("b", cpu_pct=2.0, agent_name="dental", tenant="globex"),
        make_session("c", cpu_pct=1.0, agent_name="rest-home", status="slow"),
    )
    return after(Frame("w", frame))


# --- the filter ----------------------------------------------------------------------------------


def test_the_filter_follows_each_letter(abc: State) -> None:
    """By id, agent and tenant, upper and lower case alike; backspace takes a letter back."""
    assert ids(typed("/rest", abc)) == "ac"
    assert ids(typed("/resta", abc)) == "a"
    assert ids(after(Key("backspace"), state=typed("/resta", abc))) == "ac"
    assert ids(typed("/globex", abc)) == "b"
    assert ids(typed("/ACME", abc)) == "a"
    assert ids(typed("/nobody", abc)) == ""


def test_words_are_all_wanted(abc: State) -> None:
    """In whichever of the three texts; a blank that is not followed by anything does no harm."""
    assert ids(typed("/rest acme", abc)) == "a"
    assert ids(typed("/rest ", abc)) == "ac"
    assert ids(typed("/acme rest", abc)) == "a"


def test_enter_keeps_and_escape_clears(abc: State) -> None:
    """While it is typed, letters are letters; kept, they are keys again, and Escape in the table clears it."""
    typing = typed("/sq", abc)
    assert (typing.editing, typing.filter.text, typing.done, typing.sort.name) == (True, "sq", False, "cpu_pct")
    kept = after(Key("enter"), state=typed("/rest", abc))
    assert (kept.editing, ids(kept)) == (False, "ac")
    assert ids(after(Key("escape"), state=kept)) == "abc"
    assert after(Key("escape"), state=typed("/rest", abc)).filter == Filter()
    again = typed("/a", kept)
    assert again.filter.text == "resta"
    assert after(Key("ctrl-u"), state=again).filter.text == ""
    assert after(Key("ctrl-w"), state=typed(" b", again)).filter.text == "resta "
    assert after(Key("ctrl-c"), state=again).done


def test_the_filter_is_one_more(abc: State) -> None:
    """It is asked beside status, agent and tenant."""
    assert ids(typed("/rest", after(Key("f"), state=abc))) == "a"
    chosen = after(frame_of(abc), state=State(filter=Filter(tenant="acme")))
    assert ids(typed("/e", chosen)) == "a"


def frame_of(state: State) -> Frame:
    worker = state.workers[0]
    assert worker.snapshot is not None
    return Frame(worker.key, worker.snapshot)


def test_a_filter_is_not_endless(abc: State) -> None:
    """A key that is stuck fills no memory."""
    assert len(typed("/" + "x" * 500, abc).filter.text) == 200


def test_the_selection_comes_back(abc: State) -> None:
    """A session that a filter hides is selected again once it is not hidden; meanwhile another one is."""
    state = after(Key("end"), state=abc)
    assert state.selected == ("w", "c")
    hidden = typed("/dent", state)
    assert hidden.selected == ("w", "b")
    assert after(Key("escape"), state=hidden).selected == ("w", "c")
    moved = after(Key("up"), Key("escape"), state=hidden)
    assert moved.selected == ("w", "b")


def test_arrows_move_while_typing(abc: State) -> None:
    """As they do in a search box."""
    state = after(Key("down"), Key("down"), state=typed("/rest", abc))
    assert (state.editing, state.selected) == (True, ("w", "c"))


# --- pins ----------------------------------------------------------------------------------------


def test_pins_stay_on_top(abc: State) -> None:
    """Whatever the order and the filter, in the order that holds for all; p again lets go."""
    state = after(Key("end"), Key("p"), state=abc)
    assert (ids(state), state.pinned, state.selected) == ("cab", 1, ("w", "c"))
    assert ids(after(Key("i"), state=state)) == "cba"
    assert ids(typed("/dent", state)) == "cb"
    both = after(Key("end"), Key("p"), state=state)
    assert (ids(both), both.pinned) == ("bca", 2)
    assert ids(after(Key("p"), state=both)) == "cab"


def test_a_pin_is_of_one_worker(abc: State) -> None:
    """The session of the same id in another worker is not pinned."""
    two = after(Frame("v", frame_of(abc).snapshot), Key("end"), Key("p"), state=abc)
    assert two.pinned == 1
    assert two.rows[0].identity == two.selected
    assert len(two.rows) == 6


def test_p_without_a_selection(abc: State) -> None:
    """Takes the first row in sight; of an empty table nothing."""
    state = after(Key("p"), state=abc)
    assert state.pins == {("w", "a")}
    assert after(Key("p")).pins == frozenset()


# --- pause ---------------------------------------------------------------------------------------


def test_pause(abc: State, make_snapshot: MakeSnapshot, make_session: MakeSession, make_past: MakeBlock) -> None:
    """The view stands still, and can still be sorted; the newest snapshot is there as soon as it goes on."""
    later = make_snapshot(make_session("d"), taken_at=1010.0)
    state = after(Tick(5.0), Key("space"), Frame("w", later), Blocked("w", [make_past(1)]), Tick(9.0), state=abc)
    assert (state.paused, state.now - state.paused_at, ids(state)) == (True, 4.0, "abc")
    assert state.entries() == []
    assert ids(after(Key("i"), state=state)) == "cba"
    state = after(Key("space"), state=state)
    assert (state.paused, ids(state), len(state.entries())) == (False, "d", 1)


def test_workers_that_come_and_go_in_a_pause(abc: State, make_snapshot: MakeSnapshot) -> None:
    """They are followed, and seen when it goes on."""
    state = after(Key("space"), Frame("new", make_snapshot(name="new")), Gone("w", "no connection"), state=abc)
    assert [worker.key for worker in state.workers] == ["w"]
    assert state.follows("new")
    assert state.workers[0].gone is None
    state = after(Key("space"), state=state)
    assert [(worker.key, worker.gone) for worker in state.workers] == [("new", None), ("w", "no connection")]


# --- a session's page ----------------------------------------------------------------------------


def test_the_page_of_a_session(abc: State, make_snapshot: MakeSnapshot, make_session: MakeSession) -> None:
    """Enter opens it and asks at once; it follows its session, also past its end; q, Escape, Backspace lead back."""
    state = after(Key("down"), Key("down"), Key("enter"), state=abc)
    assert state.page is not None
    assert (state.page.session.session_id, state.refreshes) == ("b", 1)
    assert (state.inspects("w"), state.inspects("v")) == ("b", None)
    for key in ("q", "escape", "backspace"):
        back = after(Key(key), state=state)
        assert (back.page, back.done, back.selected) == (None, False, ("w", "b"))
    state = after(Frame("w", make_snapshot(make_session("b", cpu_pct=77.0))), state=state)
    assert state.page.session.cpu_pct == 77.0
    state = after(Frame("w", make_snapshot()), state=state)
    assert (state.page.ended, state.page.session.cpu_pct, state.inspects("w")) == (True, 77.0, None)


def test_the_first_row_has_a_page_too(abc: State) -> None:
    """Enter without a selection takes the first row in sight; of an empty table nothing."""
    state = after(Key("enter"), state=abc)
    assert state.page is not None
    assert state.page.session.session_id == "a"
    assert after(Key("enter")).page is None


def test_an_inspection_is_for_its_page_only(abc: State) -> None:
    """An answer that comes when another page is open is not shown on it."""
    inspection = Inspection(tasks=[])
    state = after(Key("enter"), Inspected("w", "b", inspection), Inspected("v", "a", inspection), state=abc)
    assert state.page is not None
    assert state.page.inspection is None
    state = after(Inspected("w", "a", inspection), state=state)
    assert state.page is not None
    assert state.page.inspection is inspection
    assert after(Inspected("w", "a", inspection), state=abc) is abc


def test_a_page_opened_in_a_pause(abc: State) -> None:
    """It is asked for once, and then stands still too."""
    state = after(Key("space"), Key("enter"), state=abc)
    assert state.inspects("w") == "a"
    assert after(Inspected("w", "a", Inspection()), state=state).inspects("w") is None


def test_a_page_scrolls(abc: State) -> None:
    """The table's keys have no effect under it; p pins its session."""
    state = after(Key("enter"), Shown(0, 5), Key("pagedown"), Key("j"), Key("up"), state=abc)
    assert state.page is not None
    assert state.page.scroll.top == 5
    assert after(Key("s"), Key("f"), Key("i"), Key("/"), Key("c"), state=state) == state
    assert after(Key("p"), state=state).pins == {("w", "a")}
    assert after(Key("g"), state=state).page.scroll.top == 0


# --- the workers ---------------------------------------------------------------------------------


@pytest.fixture
def two(make_snapshot: MakeSnapshot, make_session: MakeSession) -> State:
    """Two workers, each with a session; voice-b's has the more loop time."""
    return after(
        Frame("a", make_snapshot(make_session("a", cpu_pct=1.0), name="voice-a")),
        Frame("b", make_snapshot(make_session("b", cpu_pct=2.0), name="voice-b")),
    )


def test_one_worker_only(two: State) -> None:
    """Enter in the list of workers narrows the table to one; Escape in the table widens it again."""
    state = after(Key("w"), Key("down"), Key("down"), Key("enter"), state=two)
    assert (state.view, state.only, ids(state)) == ("sessions", "b", "b")
    assert [worker.key for worker in state.scope] == ["b"]
    assert ids(after(Key("escape"), state=state)) == "ba"
    assert after(Key("w"), Key("enter"), state=two).only is None  # it only shows where you are


def test_ways_between_the_views(two: State) -> None:
    """w and b lead there from everywhere, and back; the table's keys have no effect there."""
    workers = after(Key("w"), state=two)
    assert workers.view == "workers"
    assert after(Key("b"), state=workers).view == "blocks"
    assert after(Key("b"), Key("w"), state=workers).view == "workers"
    for key in ("w", "escape", "backspace"):
        assert after(Key(key), state=workers).view == "sessions"
    assert after(Key("s"), Key("f"), Key("/"), Key("c"), Key("p"), state=workers) == workers
    assert after(Key("q"), state=workers).done
    page = after(Key("enter"), Key("w"), state=two)
    assert (page.page, page.view) == (None, "workers")


def test_x_takes_off_a_worker_that_is_gone(two: State) -> None:
    """One that is there stays, and so does the last one."""
    state = after(Key("w"), Key("down"), Key("x"), state=two)
    assert len(state.workers) == 2
    state = after(Gone("a", "no connection"), Key("x"), state=state)
    assert [worker.key for worker in state.workers] == ["b"]
    assert not state.follows("a")
    assert ids(state) == "b"
    assert len(after(Gone("b", "no connection"), Key("x"), state=state).workers) == 1


def test_a_worker_taken_off_in_a_pause_stays_off(two: State) -> None:
    """It does not come back when the view goes on."""
    state = after(Gone("a", "no connection"), Key("space"), Key("w"), Key("home"), Key("x"), Key("space"), state=two)
    assert [worker.key for worker in state.workers] == ["b"]


def test_the_narrowed_worker_may_be_started_anew(two: State, make_snapshot: MakeSnapshot) -> None:
    """The table then shows the new one; with no successor it shows all."""
    state = after(Key("w"), Key("home"), Key("enter"), Gone("a", "no connection"), state=two)
    restarted = make_snapshot(name="voice-a", pid=9, started_at=1001.0, taken_at=1002.0)
    assert after(Frame("a2", restarted), state=state).only == "a2"
    assert after(Key("w"), Key("x"), state=state).only is None


# --- columns and the rest ------------------------------------------------------------------------


def test_columns(abc: State) -> None:
    """c opens the list, Space switches, c, Escape and q close it; s is not the sort there."""
    state = after(Key("c"), Key("s"), Key("down"), Key("space"), state=abc)
    assert (state.sort.name, "session" in state.columns, state.paused) == ("cpu_pct", False, False)
    assert after(Key("c"), state=state).chooser is None
    assert after(Key("q"), state=state).chooser is None
    assert not after(Key("q"), state=state).done
    assert after(Key("d"), Key("escape"), state=state).columns == DEFAULT


def test_help_scrolls(abc: State) -> None:
    """The other keys have no effect under it; Escape and ? close it, q quits."""
    state = after(Key("?"), Key("down"), Key("j"), state=abc)
    assert state.help is not None
    assert state.help.top == 2
    assert after(Key("s"), Key("p"), Key("/"), state=state) == state
    for key in ("escape", "?", "enter", "backspace"):
        assert after(Key(key), state=state).help is None
    assert after(Key("q"), state=state).done
    assert after(Key("b"), state=state).help is None


def test_a_notice_goes_with_the_next_key(abc: State) -> None:
    """Any key will do."""
    state = after(Noticed("read this"), state=abc)
    assert state.notice == "read this"
    assert after(Key("x"), state=state).notice == ""


def test_the_cycle_goes_on_from_a_given_sort(abc: State) -> None:
    """s goes on from the order of the command line."""
    assert after(Key("s"), state=State(sort=SORTS["agent"])).sort.name == "session"


def test_hands_that_know_htop(abc: State) -> None:
    """P, M and T sort at once, the function keys do what they do there; in the filter letters are letters."""
    assert [after(Key(key), state=abc).sort.name for key in "PMT"] == ["cpu_pct", "mem_mb", "duration_s"]
    assert after(Key("I"), state=abc).inverted
    assert after(Key("f1"), state=abc).help is not None
    assert after(Key("h"), Key("h"), state=abc).help is None
    assert after(Key("f4"), state=abc).editing
    assert after(Key("f10"), state=abc).done
    typing = typed("/PhI\\", abc)
    assert (typing.filter.text, typing.help) == ("PhI\\", None)
    assert not after(Key("f10"), state=typing).done
