"""The reducer: what frames, keys and time do to the view."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openrtc_introspect_core.wire import Block, LoopTime, SessionRow, Snapshot, WorkerInfo
from openrtc_top._model.columns import CYCLE
from openrtc_top._model.events import Blocked, Event, Found, Frame, Gone, Inspected, Key, Noticed, Shown, Tick
from openrtc_top._model.history import HISTORY_S
from openrtc_top._model.page import Inspection
from openrtc_top._model.reducer import reduce
from openrtc_top._model.rows import STATUSES, Filter
from openrtc_top._model.state import State
from openrtc_top._model.workers import FORGET_GONE_S, busy_pct
from openrtc_top._view.screen import render

MakeSession = Callable[..., SessionRow]
MakeSnapshot = Callable[..., Snapshot]
MakeBlock = Callable[..., Block]


def after(*events: Event, state: State | None = None) -> State:
    state = state or State()
    for event in events:
        state = reduce(state, event)
    return state


def ids(state: State) -> list[str]:
    return [row.session.session_id for row in state.rows]


@pytest.fixture
def three(make_snapshot: MakeSnapshot, make_session: MakeSession) -> Snapshot:
    return make_snapshot(
        make_session("a", cpu_pct=1.0, mem_mb=9.0),
        make_session("b", cpu_pct=3.0, status="slow", mem_mb=8.0),
        make_session("c", cpu_pct=2.0, mem_mb=7.0),
    )


def test_a_frame_brings_sorted_rows(three: Snapshot) -> None:
    """Rows come by cpu% at first: who holds the loop is at the top."""
    state = after(Found("w", "voice-a", 7), Frame("w", three))
    assert ids(state) == ["b", "c", "a"]
    assert [worker.name for worker in state.workers] == ["voice-a"]


def test_s_cycles_the_sort(three: Snapshot) -> None:
    """mem_mb → cpu_pct → duration_s → agent → session → mem_mb."""
    state = after(Frame("w", three))
    names = []
    for _ in range(6):
        names.append(state.sort.name)
        state = after(Key("s"), state=state)
    start = CYCLE.index("cpu_pct")
    assert names == [CYCLE[(start + step) % 5] for step in range(6)]


def test_s_goes_from_another_sort_to_the_first(three: Snapshot) -> None:
    """A sort that only the command line knows leads into the cycle."""
    from openrtc_top._model.columns import SORTS

    assert after(Key("s"), state=State(sort=SORTS["blocks"])).sort.name == "mem_mb"


def test_f_cycles_the_status(three: Snapshot) -> None:
    """all → active → slow → blocked → draining → errored → all; rows follow at once."""
    state = after(Frame("w", three))
    seen = []
    for _ in range(7):
        seen.append((state.filter.status, ids(state)))
        state = after(Key("f"), state=state)
    assert [status for status, _ in seen] == [None, *STATUSES, None]
    assert seen[1][1] == ["c", "a"]
    assert seen[2][1] == ["b"]
    assert seen[3][1] == []


def test_i_inverts_and_a_new_sort_does_not(three: Snapshot) -> None:
    """The order turns round, until another column is sorted by."""
    state = after(Frame("w", three), Key("i"))
    assert ids(state) == ["a", "c", "b"]
    assert ids(after(Key("i"), state=state)) == ["b", "c", "a"]
    assert not after(Key("s"), state=state).inverted


def test_q_r_and_help(three: Snapshot) -> None:
    """q ends it, r asks for a refresh, ? opens and closes the help, Escape closes it."""
    assert after(Key("q")).done
    assert after(Key("r"), Key("r")).refreshes == 2
    assert after(Key("?")).help
    assert not after(Key("?"), Key("?")).help
    assert not after(Key("?"), Key("escape")).help


def test_unknown_keys_change_nothing(three: Snapshot) -> None:
    """A key without a meaning gives the very same state."""
    state = after(Frame("w", three))
    assert reduce(state, Key("x")) is state


def test_selection_follows_the_session(three: Snapshot) -> None:
    """It is the session that is selected, not the row."""
    state = after(Frame("w", three), Key("down"), Key("down"))
    assert state.selected == ("w", "c")
    state = after(Key("i"), Key("s"), Key("s"), state=state)
    assert state.selected == ("w", "c")
    assert ids(state)[state.selected_at] == "c"
    assert after(Key("escape"), state=state).selected is None


def test_selection_moves_on_when_its_session_ends(
    three: Snapshot, make_snapshot: MakeSnapshot, make_session: MakeSession
) -> None:
    """Then what stands in its place is selected; with no rows, nothing."""
    state = after(Frame("w", three), Key("down"), Key("down"))
    state = after(Frame("w", make_snapshot(make_session("a"), make_session("b"))), state=state)
    assert state.selected == ("w", "b")
    assert after(Frame("w", make_snapshot()), state=state).selected is None


def test_moving_stays_inside(make_snapshot: MakeSnapshot, make_session: MakeSession) -> None:
    """Arrows, pages, Home and End stop at the first and last row."""
    frame = Frame("w", make_snapshot(*[make_session(f"{number:02}", cpu_pct=None) for number in range(30)]))

    def at(*keys: str) -> int:
        return after(frame, Shown(0, 10), *map(Key, keys)).selected_at

    assert at("up") == at("down") == at("home") == at("up", "up") == 0
    assert at("end") == at("end", "down") == at("end", "pagedown") == 29
    assert at("home", "pagedown") == 10
    assert at("pagedown") == 10
    assert at("end", "pageup", "up") == 18
    assert after(Key("down")).selected is None


def test_same_id_in_two_workers(three: Snapshot) -> None:
    """Two workers may have a session of the same id: they are two rows."""
    state = after(Frame("v", three), Frame("w", three), Key("end"))
    assert len(state.rows) == 6
    assert len({row.identity for row in state.rows}) == 6


def test_history_is_one_value_a_second(make_snapshot: MakeSnapshot) -> None:
    """The newest value of each of the worker's last 60 seconds is kept; a restart begins anew."""

    def frame(taken_at: float, idle: float, epoch: str = "first") -> Frame:
        return Frame("w", make_snapshot(taken_at=taken_at, loop_time=LoopTime(idle_pct=idle), epoch=epoch))

    state = after(*[frame(1000.0 + step / 2, 100.0 - step / 2) for step in range(200)])
    history = state.workers[0].history
    assert len(history) == HISTORY_S
    assert history[-1] == (1099, 99.5)
    assert after(frame(1100.0, 90.0, "second"), state=state).workers[0].history == ((1100, 10.0),)


@pytest.mark.parametrize(
    ("time", "busy"),
    [
        (LoopTime(idle_pct=43.0), 57.0),
        (LoopTime(idle_pct=120.0), 0.0),
        (LoopTime(sessions_pct=40.0, untagged_pct=2.0, gc_pct=1.0), 43.0),
        (LoopTime(), None),
    ],
)
def test_busy(make_snapshot: MakeSnapshot, time: LoopTime, busy: float | None) -> None:
    """The time that is not idle; if idle is unknown, the parts that are known; unknown is not 0."""
    assert busy_pct(make_snapshot(loop_time=time).worker) == busy


def test_a_lost_worker_stays_and_comes_back(three: Snapshot) -> None:
    """Its last sessions stay; a new frame makes it live again."""
    state = after(Tick(5.0), Frame("w", three), Gone("w", "no connection"))
    assert state.workers[0].gone == "no connection"
    assert len(state.rows) == 3
    state = after(Tick(9.0), Gone("w", "still none"), state=state)
    assert state.workers[0].gone_at == 5.0
    assert after(Frame("w", three), state=state).workers[0].gone is None


def test_a_worker_long_gone_is_dropped_if_others_are_there(three: Snapshot) -> None:
    """The last one stays whatever happens, so that the screen is never empty."""
    state = after(Frame("v", three), Frame("w", three), Gone("v", "no connection"))
    assert len(after(Tick(FORGET_GONE_S), state=state).workers) == 2
    state = after(Tick(FORGET_GONE_S + 1), state=state)
    assert [worker.key for worker in state.workers] == ["w"]
    assert len(state.rows) == 3
    state = after(Gone("w", "no connection"), Tick(10 * FORGET_GONE_S), state=state)
    assert [worker.key for worker in state.workers] == ["w"]


def test_columns_that_only_some_have(make_snapshot: MakeSnapshot, make_session: MakeSession) -> None:
    """heap, delayed and loop are there as soon as one session has a value, 0 included."""
    assert after(Frame("w", make_snapshot(make_session("a")))).extras == frozenset()
    both = make_snapshot(make_session("a", heap_mb=0.0), make_session("b", delayed_s=0.0, loop="asyncio-1"))
    assert after(Frame("w", both)).extras == {"heap_mb", "delayed", "loop"}


def test_a_filter_from_the_command_line_stays(three: Snapshot) -> None:
    """Keys change the status filter only."""
    state = after(Frame("w", three), Key("f"), state=State(filter=Filter(agent="dental")))
    assert state.filter == Filter(status="active", agent="dental")


def test_blocks_add_up_until_the_worker_restarts(make_snapshot: MakeSnapshot, make_past: MakeBlock) -> None:
    """Blocks that a worker sends in pieces are kept through frames; a new epoch begins anew."""
    state = after(Frame("w", make_snapshot()), Blocked("w", [make_past(1)]), Frame("w", make_snapshot()))
    state = after(Blocked("w", [make_past(2), make_past(3)]), Gone("w", "no connection"), state=state)
    assert [entry.block.seq for entry in state.entries()] == [3, 2, 1]
    restarted = after(Frame("w", make_snapshot(epoch="second")), Blocked("w", [make_past(1)]), state=state)
    assert [entry.block.seq for entry in restarted.entries()] == [1]
    assert after(Blocked("nobody", [make_past(1)])).workers == ()


def test_b_opens_the_blocks(make_snapshot: MakeSnapshot, make_past: MakeBlock) -> None:
    """b and Escape lead back to the sessions, whose selection is as it was; q quits from there too."""
    state = after(Frame("w", make_snapshot()), Blocked("w", [make_past(1)]), Key("b"))
    assert state.view == "blocks"
    assert after(Key("b"), state=state).view == "sessions"
    assert after(Key("escape"), state=state).view == "sessions"
    assert after(Key("s"), Key("f"), Key("i"), state=state) == state
    assert after(Key("q"), state=state).done
    helped = after(Key("?"), state=state)
    assert helped.help
    closed = after(Key("escape"), state=helped)
    assert (closed.help, closed.view) == (None, "blocks")


def test_moving_in_the_blocks(make_snapshot: MakeSnapshot, make_past: MakeBlock) -> None:
    """Arrows, pages, Home and End select; the selection stays with its block as new ones come."""
    blocks = [make_past(number) for number in range(1, 31)]
    state = after(Frame("w", make_snapshot()), Blocked("w", blocks), Key("b"), Shown(0, 10))

    def at(*keys: str) -> int | None:
        moved = after(*map(Key, keys), state=state)
        return moved.blocks.index(moved.entries())

    assert at() is None
    assert at("down") == at("up") == at("home") == 0
    assert at("pagedown") == 10
    assert at("end", "down") == 29
    assert at("end", "pageup", "up") == 18
    state = after(Key("down"), Key("down"), Blocked("w", [make_past(31)]), state=state)
    assert state.blocks.index(state.entries()) == 2
    assert state.table.top == 0


def test_the_stack_of_a_block(make_snapshot: MakeSnapshot, make_past: MakeBlock) -> None:
    """Enter and t show it and hide it, of the first block if none was selected; Escape hides it first."""
    state = after(Frame("w", make_snapshot()), Key("b"))
    assert not after(Key("enter"), state=state).blocks.stack
    state = after(Blocked("w", [make_past(1), make_past(2)]), Key("enter"), state=state)
    assert state.blocks.stack
    assert state.blocks.index(state.entries()) == 0
    assert not after(Key("t"), state=state).blocks.stack
    state = after(Key("escape"), state=state)
    assert (state.blocks.stack, state.view) == (False, "blocks")


def test_a_selected_block_that_ends(make_snapshot: MakeSnapshot, make_block: MakeBlock, make_past: MakeBlock) -> None:
    """It gets its number and stays selected; one that is forgotten leaves its place to another."""
    going_on = make_snapshot(blocks=[make_block(started_at=996.8)])
    state = after(Frame("w", going_on), Key("b"), Key("down"))
    state = after(Frame("w", make_snapshot()), Blocked("w", [make_past(1, started_at=996.8)]), state=state)
    state = after(Blocked("w", [make_past(2, started_at=999.0)]), state=state)
    assert state.blocks.index(state.entries()) == 1
    state = after(Frame("w", make_snapshot(epoch="second")), state=state)
    assert state.blocks.index(state.entries()) is None
    assert after(Key("down"), state=state).blocks.cursor.chosen is None


_SESSIONS = st.lists(
    st.builds(
        SessionRow,
        session_id=st.sampled_from("abcdefgh"),
        agent_name=st.sampled_from(["x", "y"]),
        cpu_pct=st.none() | st.floats(0, 100),
        heap_mb=st.none() | st.just(1.0),
        status=st.sampled_from(STATUSES),
    ),
    unique_by=lambda session: session.session_id,
)
_NAMED = ["escape", "up", "down", "pageup", "pagedown", "home", "end", "enter", "backspace", "space", "ctrl-u", "tab"]
_KEYS = st.sampled_from([*"sfirbtw/?pcxdJKjkgGaq", *_NAMED])
_BLOCKS = st.lists(st.builds(Block, seq=st.integers(1, 50), started_at=st.integers(0, 9).map(float)), min_size=1)
_TOLD = st.builds(Inspection, tasks=st.none() | st.just(()), stack=st.none() | st.just(()), problem=st.text(max_size=3))
_EVENTS = st.lists(
    st.builds(
        lambda key, sessions, at: Frame(
            key, Snapshot(worker=WorkerInfo(name=key, pid=1), sessions=sessions, taken_at=float(at))
        ),
        st.sampled_from("vw"),
        _SESSIONS,
        st.integers(0, 90),
    )
    | st.builds(Blocked, st.sampled_from("vwx"), _BLOCKS)
    | st.builds(Gone, st.sampled_from("vwx"), st.text(max_size=3), st.none() | st.floats(0, 5))
    | st.builds(Found, st.sampled_from("vwx"), st.sampled_from("vwx"), st.none() | st.just(7))
    | st.builds(Inspected, st.sampled_from("vw"), st.sampled_from("abcdefgh"), _TOLD)
    | st.builds(Noticed, st.text(max_size=5))
    | st.builds(Key, _KEYS)
    | st.builds(Tick, st.floats(0, 2000))
)


@given(events=_EVENTS, size=st.tuples(st.integers(1, 130), st.integers(1, 40)))
def test_any_events(events: list[Event], size: tuple[int, int]) -> None:
    """Whatever comes, nothing raises, the selection stays on its session, and the screen fits the terminal."""
    state = State()
    for event in events:
        before = state
        state = reduce(state, event)
        if state.selected:
            assert state.rows[state.selected_at].identity == state.selected
        if isinstance(event, Frame) and before.selected:  # it moves on only when the session has ended
            ended = before.selected not in {row.identity for row in state.rows}
            assert ended or state.selected in (before.selected, before.sticky_selection)
        if isinstance(event, Key) and event.name in ("s", "i") and before.view == "sessions":
            assert before.editing or state.selected == before.selected
        assert all(row.identity in state.pins for row in state.rows[: state.pinned])
        index = state.blocks.index(state.entries())
        assert index is None or index < len(state.entries())
        screen = render(state, size)
        assert len(screen.lines) <= size[1]
        assert all(line.width <= size[0] for line in screen.lines)
        state = reduce(state, Shown(screen.top, screen.page_rows))
