"""Whole screens, compared with those in screens/.

OPENRTC_WRITE_SCREENS=1 writes them anew: look at the difference before you commit it.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from msgspec import structs
from rich.cells import cell_len
from rich.console import Console

from openrtc_introspect_core.wire import Block, Location, LoopTime, SessionRow, Snapshot, TaskInfo
from openrtc_top._encoding import encodable
from openrtc_top._page import Inspection
from openrtc_top._rows import SORTS, Filter
from openrtc_top._state import Blocked, Event, Found, Frame, Gone, Inspected, Key, Shown, State, Tick, reduce
from openrtc_top._view import render, render_once, to_text
from openrtc_top._view.style import DIM

SCREENS = Path(__file__).parent / "screens"
SIZES = [(60, 15), (80, 20), (120, 26), (200, 50)]

MakeSession = Callable[..., SessionRow]
MakeSnapshot = Callable[..., Snapshot]
MakeBlock = Callable[..., Block]


@pytest.fixture
def sessions(make_session: MakeSession) -> list[SessionRow]:
    """52 sessions, the first of which blocks."""
    agents, tenants = ("restaurant", "dental", "support"), ("acme", "globex", None)
    rest = [
        make_session(
            f"job-{number * 7919 % 0xFFFFFF:06x}",
            agent_name=agents[number % 3],
            tenant=tenants[number % 4 % 3],
            duration_s=number * 97.0,
            cpu_pct=8.0 - number * 0.15,
        )
        for number in range(1, 52)
    ]
    rest[2] = make_session(
        "job-77ab02",
        cpu_pct=9.4,
        duration_s=231.0,
        status="slow",
        blocks=1,
        worst_block_ms=71.0,
        tenant="globex",
    )
    culprit = make_session(
        "job-c1d550",
        agent_name="restaurant",
        tenant="acme",
        duration_s=724.0,
        cpu_pct=88.1,
        status="blocked",
        blocks=3,
        worst_block_ms=3200.0,
    )
    return [culprit, *rest]


def after(*events: Event, state: State | None = None) -> State:
    state = state or State()
    for event in events:
        state = reduce(state, event)
    return state


def compare(name: str, text: str) -> None:
    file = SCREENS / f"{name}.txt"
    if os.environ.get("OPENRTC_WRITE_SCREENS"):
        file.write_text(text + "\n", encoding="utf-8")
    assert text + "\n" == file.read_text(encoding="utf-8")


def shown(state: State, size: tuple[int, int]) -> str:
    width, height = size
    screen = render(state, size)
    text = to_text(screen, width, height)
    assert len(screen.lines) == height
    assert all(cell_len(line) <= width for line in text.splitlines())
    return text


@pytest.mark.parametrize("size", SIZES)
def test_blocked(
    size: tuple[int, int], sessions: list[SessionRow], make_snapshot: MakeSnapshot, make_block: MakeBlock
) -> None:
    """While a session blocks, the alert names it, the place and how long; columns go as room does."""
    history = [
        Frame(
            "w",
            make_snapshot(*sessions, taken_at=940.0 + second, loop_time=LoopTime(idle_pct=100.0 - second)),
        )
        for second in range(60)
    ]
    now = Frame("w", make_snapshot(*sessions, taken_at=1000.0, blocks=[make_block()]))
    state = after(*history, now, Key("down"), Key("down"), Key("down"))
    compare("blocked-{}x{}".format(*size), shown(state, size))


@pytest.mark.parametrize("size", [(80, 20), (120, 26)])
def test_slow(size: tuple[int, int], sessions: list[SessionRow], make_snapshot: MakeSnapshot) -> None:
    """When the block is over, a quieter line still names who it was."""
    state = after(Frame("w", make_snapshot(*sessions[1:])))
    compare("slow-{}x{}".format(*size), shown(state, size))


@pytest.mark.parametrize("size", [(80, 20), (120, 26)])
def test_slow_and_where(
    size: tuple[int, int], sessions: list[SessionRow], make_snapshot: MakeSnapshot, past_blocks: list[Block]
) -> None:
    """Once the block itself is known, the line tells the worst of the last seconds, and where it was."""
    frame = Frame("w", make_snapshot(*sessions[1:], taken_at=1003.0))
    state = after(frame, Blocked("w", past_blocks))
    compare("slow-where-{}x{}".format(*size), shown(state, size))
    later = after(Frame("w", make_snapshot(*sessions[1:], taken_at=1006.0)), state=state)
    assert " SLOW  job-77ab02 " in shown(later, size)


def test_a_block_of_no_session_is_told(
    sessions: list[SessionRow], make_snapshot: MakeSnapshot, past_blocks: list[Block]
) -> None:
    """What nobody is to blame for has its cause, and what there is to say of it."""
    state = after(Frame("w", make_snapshot(*sessions[5:], taken_at=961.0)), Blocked("w", past_blocks[:1]))
    assert " SLOW 71 ms  no session  job-77ab02 31 ms, job-9f00e1 12 ms  (burst)  2 sessions waited" in shown(
        state, (120, 26)
    )


@pytest.mark.parametrize("size", SIZES)
def test_blocks(
    size: tuple[int, int],
    sessions: list[SessionRow],
    make_snapshot: MakeSnapshot,
    make_block: MakeBlock,
    past_blocks: list[Block],
    utc: None,
) -> None:
    """The blocks take the table's place, newest first, one that goes on before all."""
    going_on = make_block(started_at=996.8, cause=None, delayed=None)
    state = after(Frame("w", make_snapshot(*sessions, blocks=[going_on])), Blocked("w", past_blocks[:-1]), Key("b"))
    compare("blocks-{}x{}".format(*size), shown(state, size))


@pytest.mark.parametrize("size", [(80, 20), (120, 26)])
def test_stack(
    size: tuple[int, int], sessions: list[SessionRow], make_snapshot: MakeSnapshot, past_blocks: list[Block], utc: None
) -> None:
    """Below the list, what is known of the selected block, its innermost call last."""
    state = after(Frame("w", make_snapshot(*sessions)), Blocked("w", past_blocks), Key("b"), Key("down"), Key("t"))
    compare("stack-{}x{}".format(*size), shown(state, size))


def test_a_long_stack_keeps_its_inner_calls(make_snapshot: MakeSnapshot, make_past: MakeBlock) -> None:
    """Where there is no room for all, the outer calls are counted, and blocks stay in sight."""
    from openrtc_introspect_core.wire import Location

    calls = [Location("deep.py", number, "call") for number in range(64)]
    state = after(Frame("w", make_snapshot()), Blocked("w", [make_past(1, stack=calls)]), Key("b"), Key("enter"))
    text = shown(state, (80, 20))
    assert "deep.py:63 in call" in text
    assert "calls further out" in text
    assert "▸" in text


def test_no_blocks(make_snapshot: MakeSnapshot) -> None:
    """No snapshot yet and no blocks are told apart."""
    assert "waiting for the first snapshot" in shown(after(Key("b")), (80, 20))
    assert "no block so far" in shown(after(Frame("w", make_snapshot()), Key("b")), (80, 20))


@pytest.mark.parametrize("size", [(60, 15), (120, 26)])
def test_hostile_blocks(size: tuple[int, int], make_snapshot: MakeSnapshot, make_past: MakeBlock) -> None:
    """Whatever a block's texts hold is shown, not obeyed."""
    from openrtc_introspect_core.wire import Delayed, Location

    evil = "\x1b[2J\x9b\u202e\n会"
    place = Location(evil, 1, evil)
    block = make_past(
        1,
        session_id=evil,
        agent_name=evil,
        task_name=evil,
        tenant=evil,
        cause=evil,
        detail=evil,
        location=place,
        stack=[place],
        delayed=[Delayed(evil, 1.0)],
    )
    state = after(Frame("w", make_snapshot(taken_at=961.0)), Blocked("w", [block]), Key("b"), Key("enter"))
    text = to_text(render(state, size), *size)
    assert all(character.isprintable() or character == "\n" for character in text)
    shown(state, size)


@pytest.mark.parametrize("size", [(80, 20), (160, 26)])
def test_several_workers(
    size: tuple[int, int], sessions: list[SessionRow], make_snapshot: MakeSnapshot, make_block: MakeBlock
) -> None:
    """Each worker has a line, each session tells its worker, and a lost worker is GONE."""
    state = after(
        Tick(100.0),
        Frame("a", make_snapshot(*sessions[:9], blocks=[make_block()])),
        Frame("b", make_snapshot(*sessions[9:15], name="voice-b", pid=41299, memory_limit_mb=0.0)),
        Frame("c", make_snapshot(*sessions[15:20], name="chat", pid=7, max_sessions=0)),
        Gone("c", "no connection"),
        Tick(103.0),
    )
    compare("several-{}x{}".format(*size), shown(state, size))


@pytest.mark.parametrize("size", [(80, 20), (120, 26)])
def test_unknown_values(
    size: tuple[int, int], make_session: MakeSession, make_snapshot: MakeSnapshot, make_block: MakeBlock
) -> None:
    """A worker on uvloop that measures little: n/a, never 0; a note says why."""
    rows = [make_session(f"job-{number}", cpu_pct=None, cpu_s=None, steps=None) for number in range(3)]
    rows.append(make_session("job-9", cpu_pct=None, heap_mb=12.0, delayed_s=1.1))
    snapshot = make_snapshot(
        *rows,
        blocks=[make_block(session_id=None, agent_name=None, task_name="Task-7", location=None, cause=None)],
        loop="uvloop",
        loop_time=LoopTime(sessions_pct=12.0),
        lag_p99_ms=None,
        lag_max_ms=None,
        lag_method=None,
        rss_trend_mb_per_min=None,
        memory_limit_mb=0.0,
        introspection_pct=None,
        errored=2,
        draining=True,
        notes=["create_task was replaced: sessions are not told apart"],
        host=type(make_snapshot().worker.host)(cores=1),
    )
    compare("unknown-{}x{}".format(*size), shown(after(Frame("w", snapshot)), size))


def test_how_many_steps_are_timed_is_told_beside_what_that_costs(
    sessions: list[SessionRow], make_snapshot: MakeSnapshot
) -> None:
    """Where it is not each of them: the numbers below are estimates."""
    state = after(Frame("w", make_snapshot(*sessions, timed_one_in=8)))
    assert "   introspection ~0.3 %   times 1 step in 8\n" in shown(state, (200, 50))


@pytest.mark.parametrize("size", [(80, 20), (120, 26)])
def test_a_session_that_failed(size: tuple[int, int], make_session: MakeSession, make_snapshot: MakeSnapshot) -> None:
    """Its row says ERRORED, and the line above says with what, where nothing blocks the loop meanwhile."""
    rows = [
        make_session("job-good"),
        make_session(
            "job-bad",
            agent_name="restaurant",
            status="errored",
            error="KeyError: 'menu'",
            mem_mb=0.0,
            cpu_pct=0.0,
            started_at=900.0,
            duration_s=90.0,
        ),
        make_session("job-before", status="errored", error="ValueError", mem_mb=0.0, started_at=900.0, duration_s=80.0),
    ]
    snapshot = make_snapshot(*rows, errored=2)
    compare("errored-{}x{}".format(*size), shown(after(Frame("w", snapshot)), size))


@pytest.mark.parametrize("size", [(60, 15), (120, 26)])
def test_hostile_names(
    size: tuple[int, int], make_session: MakeSession, make_snapshot: MakeSnapshot, make_block: MakeBlock
) -> None:
    """Escapes in names are shown, not obeyed; wide characters keep the columns straight."""
    rows = [
        make_session("job-\x1b[2J\x1b]0;pwn\x07", agent_name="ag\nent", tenant="t\tt"),
        make_session("会议室-東京-通话-0001", agent_name="日本語エージェント", tenant="顧客"),
        make_session("e\u0301\u0301combining", agent_name="❤\ufe0f", tenant="\u202eevil"),
        make_session("y" * 256, agent_name="a" * 256, tenant="x" * 256),
    ]
    block = make_block(session_id="job-\x1b[2J", agent_name="\x9b31m", cause="c\x07")
    state = after(Frame("w", make_snapshot(*rows, blocks=[block], name="名前\x1bname")))
    text = to_text(render(state, size), *size, color=False)
    assert all(character.isprintable() or character == "\n" for character in text)
    compare("hostile-{}x{}".format(*size), shown(state, size))


CALL = Location("agents/restaurant.py", 18, "entrypoint")
LOOKUP = Location("agents/menu.py", 42, "lookup_menu")
TOLD = Inspection(
    tasks=[
        TaskInfo(
            id=1, name="entrypoint", state="running", awaits=[CALL, Location("agents/menu.py", 42, "lookup_menu")]
        ),
        TaskInfo(
            id=2,
            name="Task-9",
            coroutine="AgentSession.run",
            awaits=[CALL, Location("voice/generation.py", 210, "forward"), Location("asyncio/queues.py", 186, "get")],
            awaited_by=[1],
        ),
        TaskInfo(id=3, name="playout", state="ready", waiting_on="sleep of 0.02 s", awaited_by=[1]),
        TaskInfo(id=4, name="metrics", awaits=[Location("agents/common.py", 77, "report")], waiting_on="sleep of 5 s"),
        TaskInfo(id=5, name="left", waiting_on="task right", awaited_by=[6]),
        TaskInfo(id=6, name="right", waiting_on="task left", awaited_by=[5]),
    ],
    stack=[CALL, LOOKUP, Location("requests/sessions.py", 589, "request")],
)


@pytest.fixture
def page(
    sessions: list[SessionRow], make_snapshot: MakeSnapshot, make_block: MakeBlock, past_blocks: list[Block]
) -> State:
    """The page of the session that blocks, after a minute in which it did more and more."""
    culprit = structs.replace(sessions[0], cpu_s=41.2, steps=18204, tasks=7, delayed_s=1.1)
    frames = []
    for second in range(60):
        before = structs.replace(culprit, cpu_pct=second * 1.5, mem_mb=20.0 + second / 4)
        frames.append(Frame("w", make_snapshot(before, taken_at=940.0 + second)))
    now = Frame("w", make_snapshot(culprit, *sessions[1:], taken_at=1000.0, blocks=[make_block(started_at=996.8)]))
    return after(*frames, now, Blocked("w", past_blocks), Key("enter"), Inspected("w", "job-c1d550", TOLD))


@pytest.mark.parametrize("size", SIZES)
def test_page(size: tuple[int, int], page: State, utc: None) -> None:
    """A session's last minute, where it runs, its tasks with the ring that two of them wait in, its blocks."""
    compare("page-{}x{}".format(*size), shown(page, size))


@pytest.mark.parametrize("size", [(80, 20), (120, 26)])
def test_page_of_an_idle_session(size: tuple[int, int], make_snapshot: MakeSnapshot, make_session: MakeSession) -> None:
    """Nothing runs, and there was no block; what an older worker does not tell is said, not shown as none."""
    state = after(Frame("w", make_snapshot(make_session("job-1", cpu_pct=None))), Key("enter"))
    assert "asking …" in shown(state, size)
    idle = after(Inspected("w", "job-1", Inspection(tasks=[], stack=[])), state=state)
    compare("page-idle-{}x{}".format(*size), shown(idle, size))
    old = Inspection(problem="this worker does not tell tasks or stacks: too old, or in process mode")
    text = shown(after(Inspected("w", "job-1", old), state=state), size)
    assert old.problem in text
    assert "not running" not in text


def test_page_of_a_session_that_ended(page: State, make_snapshot: MakeSnapshot) -> None:
    """What was last known stays on the page, and it says so; so it does where its worker is gone."""
    ended = shown(after(Frame("w", make_snapshot(taken_at=1001.0)), state=page), (120, 26))
    assert " job-c1d550 · restaurant · acme · 12:04 · ENDED " in ended.splitlines()[0]
    assert "it has ended" in ended
    assert " GONE: its worker is " in shown(after(Gone("w", "no connection"), state=page), (120, 26)).splitlines()[0]


def test_a_page_scrolls_to_its_end(page: State, utc: None) -> None:
    """What there is no room for can be reached, and the end is the end."""
    state = page
    for _ in range(30):
        screen = render(state, (80, 20))
        state = after(Shown(screen.top, screen.page), Key("j"), state=state)
    text = shown(state, (80, 20))
    assert "agents/restaurant.py:42 in lookup_menu" in text.splitlines()[-2]
    assert text == shown(after(Key("end"), state=page), (80, 20))


@pytest.fixture
def fleet(sessions: list[SessionRow], make_snapshot: MakeSnapshot, make_block: MakeBlock) -> State:
    """Five workers: one that drains, one on another machine, one not heard yet, one gone with its sessions."""
    return after(
        Tick(100.0),
        Frame("a", make_snapshot(*sessions[:9], blocks=[make_block()])),
        Frame("b", make_snapshot(*sessions[9:15], name="voice-b", pid=41299, memory_limit_mb=0.0, draining=True)),
        Found("d", "voice-d", 41377),
        Found("h", "far", None, "voice-3"),
        Frame(
            "h", make_snapshot(*sessions[:2], name="far", pid=12, loop="uvloop", loop_time=LoopTime(sessions_pct=9.0))
        ),
        Frame("c", make_snapshot(*sessions[15:20], name="chat", pid=7, max_sessions=0, rss_trend_mb_per_min=None)),
        Gone("c", "no connection", 4.0),
        Tick(103.0),
    )


@pytest.mark.parametrize("size", SIZES)
def test_workers(size: tuple[int, int], fleet: State) -> None:
    """A line for each, and whether it can be reached; of one that is gone when it is tried again."""
    state = after(Key("w"), Key("down"), Key("down"), state=fleet)
    compare("workers-{}x{}".format(*size), shown(state, size))


@pytest.mark.parametrize("size", [(80, 20), (120, 26)])
def test_one_worker_of_several(size: tuple[int, int], fleet: State) -> None:
    """The header is that worker's alone; what is wrong in another one is told all the same."""
    state = after(Key("w"), *[Key("down")] * 4, Key("enter"), state=fleet)
    text = shown(state, size)
    compare("only-{}x{}".format(*size), text)
    assert "worker voice-b" in text


@pytest.mark.parametrize("size", [(60, 15), (120, 26)])
def test_chooser(size: tuple[int, int], sessions: list[SessionRow], make_snapshot: MakeSnapshot) -> None:
    """What there is, what is on, and what each column means."""
    keys = map(Key, ("c", "down", "down", "J", "space"))
    compare("columns-{}x{}".format(*size), shown(after(Frame("w", make_snapshot(*sessions)), *keys), size))


@pytest.mark.parametrize("size", SIZES)
def test_filtered_pinned_and_paused(
    size: tuple[int, int], sessions: list[SessionRow], make_snapshot: MakeSnapshot
) -> None:
    """The filter being typed, two pinned rows above the others, and since when the view stands still."""
    keys = ("down", "j", "j", "p", "end", "p", "space", "/", *"rest", "down")
    state = after(Frame("w", make_snapshot(*sessions)), Tick(10.0), *map(Key, keys), Tick(52.0))
    compare("paused-{}x{}".format(*size), shown(state, size))
    kept = shown(after(Key("enter"), state=state), size)
    assert 'status all · filter "rest"' in kept


def test_all_columns(sessions: list[SessionRow], make_snapshot: MakeSnapshot) -> None:
    """Those that were named are there, in the order they were named in, whether there is something to tell or not."""
    named = ("status", "heap_mb", "worker", "steps", "cpu_s", "tasks", "worst_delay", "session", "pin")
    rows = [structs.replace(session, steps=18_204_000, cpu_s=41.2, tasks=7) for session in sessions]
    state = State(columns=named, always=frozenset(named), sort=SORTS["session"])
    text = shown(after(Frame("w", make_snapshot(*rows)), state=state), (120, 26))
    compare("named-120x26", text)
    narrow = shown(after(Frame("w", make_snapshot(*rows)), state=state), (30, 15))
    assert "status" in narrow


def test_gone_rows_are_grey(fleet: State) -> None:
    """All cells of a lost worker's sessions are dim, whatever their values; the word tells it too."""
    lines = [line for line in render(fleet, (200, 50)).lines if any("GONE" in part.text for part in line.segments)]
    rows = [
        line for line in lines if not any("gone" in part.text or "no connection" in part.text for part in line.segments)
    ]
    assert len(rows) == 5
    for line in rows:
        assert all(part.style == DIM for part in line.segments if part.text.strip())


@pytest.mark.parametrize("size", [(60, 15), (120, 26)])
def test_help(size: tuple[int, int], sessions: list[SessionRow], make_snapshot: MakeSnapshot) -> None:
    """The help takes the table's place."""
    state = after(Frame("w", make_snapshot(*sessions)), Key("?"))
    compare("help-{}x{}".format(*size), shown(state, size))


def test_once(sessions: list[SessionRow], make_snapshot: MakeSnapshot) -> None:
    """The print has all rows, no keys, and no history, which one snapshot does not have."""
    screen = render_once(after(Frame("w", make_snapshot(*sessions))), 120)
    text = to_text(screen, 120, len(screen.lines))
    assert "quit" not in text
    assert " 52  job-" in text
    compare("once-120", text)


def test_nothing_to_show(make_snapshot: MakeSnapshot, make_session: MakeSession) -> None:
    """No snapshot yet, no sessions, and none that passes the filter are told apart."""
    assert "waiting for the first snapshot" in shown(State(), (80, 20))
    assert "no sessions" in shown(after(Frame("w", make_snapshot())), (80, 20))
    filtered = State(filter=Filter(agent="nobody"))
    assert "no session passes the filter" in shown(
        after(Frame("w", make_snapshot(make_session())), state=filtered), (80, 20)
    )


@pytest.mark.parametrize("width", [1, 5, 20, 39, 59, 79, 99, 100, 119, 180, 250])
@pytest.mark.parametrize("height", [1, 2, 5, 15, 24, 80])
def test_every_size(
    width: int,
    height: int,
    sessions: list[SessionRow],
    make_snapshot: MakeSnapshot,
    make_block: MakeBlock,
    past_blocks: list[Block],
) -> None:
    """No line is ever wider than the terminal, and there are never more lines than it has."""
    several = after(
        Frame("a", make_snapshot(*sessions, blocks=[make_block()], notes=["one", "two"])),
        Frame("b", make_snapshot(*sessions, name="voice-b")),
    )
    blocked = after(Blocked("a", past_blocks), Blocked("b", past_blocks), state=several)
    for state in (
        after(Frame("w", make_snapshot(*sessions))),
        several,
        after(Key("?"), state=several),
        after(Key("w"), Key("down"), state=several),
        after(Key("c"), state=several),
        after(Key("space"), Key("/"), Key("e"), state=several),
        after(Key("enter"), Inspected("a", "job-c1d550", TOLD), Key("space"), state=blocked),
        after(Key("b"), state=blocked),
        after(Key("b"), Key("enter"), state=blocked),
        blocked,
        State(),
    ):
        screen = render(state, (width, height))
        text = to_text(screen, width, height)
        ascii = encodable(text, "ascii")
        assert ascii.isascii()
        assert [len(line) for line in ascii.splitlines()] == [cell_len(line) for line in text.splitlines()]
        assert len(screen.lines) <= height
        assert all(line.width == cell_len("".join(text for text, _, _ in line.segments)) for line in screen.lines)
        assert all(line.width <= width for line in screen.lines)


def test_the_window_moves_only_as_far_as_needed(sessions: list[SessionRow], make_snapshot: MakeSnapshot) -> None:
    """Walking down scrolls at the lower edge, walking up again only at the upper one."""
    state = after(Frame("w", make_snapshot(*sessions)))

    def draw(*keys: str) -> int:
        nonlocal state
        for key in keys:
            state = after(Key(key), state=state)
            screen = render(state, (120, 26))
            state = after(Shown(screen.top, screen.page), state=state)
        return state.table.top

    page = render(state, (120, 26)).page
    assert draw(*["down"] * page) == 0
    assert draw("down") == 1
    assert draw("up") == 1
    assert draw(*["up"] * (page - 2)) == 1
    assert draw("up") == 0
    assert draw("end") == 52 - page
    assert draw("home") == 0


def test_alert_grows_by_the_workers_clock(
    sessions: list[SessionRow], make_snapshot: MakeSnapshot, make_block: MakeBlock
) -> None:
    """The time a block has lasted is the snapshot's moment minus its start; the view's clock has no part."""

    def alert(taken_at: float) -> str:
        frame = Frame("w", make_snapshot(*sessions, taken_at=taken_at, blocks=[make_block(duration_ms=1.0)]))
        return shown(after(Tick(5e8), frame, Tick(5e8 + 3)), (120, 26)).splitlines()[3]

    assert alert(1000.0).startswith(" BLOCKED 3.2 s  job-c1d550")
    assert alert(1003.0).startswith(" BLOCKED 6.2 s  job-c1d550")


def test_the_longest_block_is_named(
    sessions: list[SessionRow], make_snapshot: MakeSnapshot, make_block: MakeBlock
) -> None:
    """Of several workers' blocks the longest is told, and how many more there are."""
    state = after(
        Frame("a", make_snapshot(blocks=[make_block(session_id="short", running_since=999.9)])),
        Frame("b", make_snapshot(name="voice-b", blocks=[make_block(session_id="long", running_since=990.0)])),
    )
    text = shown(state, (120, 26))
    assert " BLOCKED 10.0 s  voice-b  long" in text
    assert "and 1 more" in text
    assert "short" not in text


def test_a_silent_worker_is_told(sessions: list[SessionRow], make_snapshot: MakeSnapshot) -> None:
    """When no snapshot has come for seconds, the view says that what it shows is old."""
    state = after(Tick(10.0), Frame("w", make_snapshot(*sessions)), Tick(14.0))
    assert "no answer" not in shown(state, (120, 26))
    assert "no answer for 7 s" in shown(after(Tick(17.0), state=state), (120, 26))


def test_a_long_path_keeps_its_end(make_snapshot: MakeSnapshot, make_block: MakeBlock) -> None:
    """Where the path is too long for the line, the file, the line and the function stay."""
    from openrtc_introspect_core.wire import Location

    place = Location("/" + "deep/" * 30 + "agents/restaurant.py", 42, "lookup_menu")
    state = after(Frame("w", make_snapshot(blocks=[make_block(location=place)])))
    assert " agents/restaurant.py:42 in lookup_menu" in shown(state, (80, 20))


def test_colour(sessions: list[SessionRow], make_snapshot: MakeSnapshot, make_block: MakeBlock) -> None:
    """With colour the text is the same, and each style ends where it began."""
    import re

    state = after(Frame("w", make_snapshot(*sessions, blocks=[make_block()])), Key("down"))
    screen = render(state, (120, 26))
    coloured = to_text(screen, 120, 26, color=True)
    assert "\x1b[" in coloured
    plain = "\n".join(line.rstrip() for line in re.sub(r"\x1b\[[0-9;]*m", "", coloured).splitlines())
    assert plain == to_text(screen, 120, 26)
    for line in coloured.splitlines():
        codes = re.findall(r"\x1b\[([0-9;]*)m", line)
        assert codes[1::2] == ["0"] * (len(codes) // 2)


def test_rich_prints_a_screen(sessions: list[SessionRow], make_snapshot: MakeSnapshot) -> None:
    """A screen is a rich renderable: the pictures in the documentation are made so."""
    screen = render(after(Frame("w", make_snapshot(*sessions))), (120, 26))
    console = Console(file=io.StringIO(), width=120, height=26, color_system=None)
    console.print(screen, end="")
    printed = "\n".join(line.rstrip() for line in console.file.getvalue().splitlines())  # type: ignore[attr-defined]
    assert printed == to_text(screen, 120, 26)
