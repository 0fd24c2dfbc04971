"""Whole screens, compared with those in screens/.

OPENRTC_WRITE_SCREENS=1 writes them anew: read the difference before you commit it.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs
from rich.cells import cell_len
from rich.console import Console

from openrtc_introspect_core.black_box import LoopState
from openrtc_introspect_core.wire import (
    Block,
    Cgroup,
    ExecutorInfo,
    Holder,
    Location,
    LoopTime,
    Outlived,
    SessionRow,
    Snapshot,
    TaskInfo,
    WaitedFor,
    Waiter,
    WaitGroup,
    Waits,
    WallTime,
)
from openrtc_top._model.box_reading import BoxReading, DeadWorker
from openrtc_top._model.columns import SORTS
from openrtc_top._model.events import (
    Blocked,
    Died,
    Event,
    Found,
    Frame,
    Gone,
    Inspected,
    Key,
    Listed,
    Shown,
    Surveyed,
    Tick,
    Unanswered,
)
from openrtc_top._model.page import Inspection
from openrtc_top._model.reducer import reduce
from openrtc_top._model.rows import Filter
from openrtc_top._model.state import State
from openrtc_top._model.waits import Survey
from openrtc_top._view.encoding import encodable
from openrtc_top._view.screen import render, render_once
from openrtc_top._view.style import DIM
from openrtc_top._view.text import to_text

SCREENS = Path(__file__).parents[1] / "screens"
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
    """Once the block itself is known, the line shows the worst of the last seconds, and its place."""
    frame = Frame("w", make_snapshot(*sessions[1:], taken_at=1003.0))
    state = after(frame, Blocked("w", past_blocks))
    compare("slow-where-{}x{}".format(*size), shown(state, size))
    later = after(Frame("w", make_snapshot(*sessions[1:], taken_at=1006.0)), state=state)
    assert " SLOW  job-77ab02 " in shown(later, size)


def test_an_unattributed_block_is_shown(
    sessions: list[SessionRow], make_snapshot: MakeSnapshot, past_blocks: list[Block]
) -> None:
    """An unattributed block has its cause and its detail."""
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
    """No snapshot so far and no blocks are different messages."""
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
    """Each worker has a line, each session has its worker, and a lost worker is GONE."""
    state = after(
        Tick(100.0),
        Frame("a", make_snapshot(*sessions[:9], blocks=[make_block()])),
        Frame("b", make_snapshot(*sessions[9:15], name="voice-b", pid=41299, memory_limit_mb=0.0)),
        Frame("c", make_snapshot(*sessions[15:20], name="chat", pid=7, max_sessions=0)),
        Gone("c", "no connection"),
        Tick(103.0),
    )
    compare("several-{}x{}".format(*size), shown(state, size))


@pytest.fixture
def many_hosts(make_session: MakeSession, make_snapshot: MakeSnapshot, make_block: MakeBlock) -> State:
    """Twelve hosts of two workers: the last one is blocked, one is slow, one cannot be reached, one is late."""
    agents, events = ("restaurant", "dental", "support"), [Tick(100.0)]
    for host in range(1, 13):
        for number in (1, 2):
            rows = [
                make_session(f"job-{host:02}{number}{row}", agent_name=agents[row % 3], cpu_pct=host / 10 + row)
                for row in range(4)
            ]
            blocks, lag = [], 14.0
            if host == 12 and number == 2:
                rows[0] = structs.replace(rows[0], status="blocked", blocks=3, worst_block_ms=3200.0)
                blocks = [make_block(session_id=rows[0].session_id)]
            if host == 7 and number == 1:
                rows[2] = structs.replace(rows[2], status="slow", blocks=1, worst_block_ms=71.0)
            if host == 5 and number == 2:
                lag = 320.0
            key, name = f"voice-{host}:/{number}", f"worker-{number}"
            made = make_snapshot(
                *rows,
                name=name,
                pid=host,
                lag_p99_ms=lag,
                blocks=blocks,
                rss_mb=148.8,
                memory_limit_mb=0,
                max_sessions=0,
            )
            events += [Found(key, name, host, f"voice-{host}"), Frame(key, made)]
    events += [Found("voice-13", "voice-13"), Gone("voice-13", "ssh: no route to host")]
    return after(*events, Tick(101.0))


@pytest.mark.parametrize("size", [(60, 15), (80, 20), (120, 26), (200, 50)])
def test_a_fleet(size: tuple[int, int], many_hosts: State) -> None:
    """Of many workers the header has the worst. By host and by agent there is a line each, the worst first."""
    compare("fleet-{}x{}".format(*size), shown(many_hosts, size))
    listed = after(Key("g"), Key("down"), state=many_hosts)
    compare("hosts-{}x{}".format(*size), shown(listed, size))
    compare("host-{}x{}".format(*size), shown(after(Key("enter"), state=listed), size))
    compare("agents-{}x{}".format(*size), shown(after(Key("g"), state=listed), size))


def test_hosts_without_workers_are_counted_apart(many_hosts: State) -> None:
    """Those that cannot be reached, those where none runs, and those of which nothing is heard so far."""
    empty = Gone("voice-15", "no worker runs there: OPENRTC_RUNTIME_DIR is set, so only '/run/x' is searched")
    state = after(Found("voice-14", "voice-14"), Found("voice-15", "voice-15"), empty, state=many_hosts)
    title = shown(state, (120, 26)).splitlines()[0]
    assert title.startswith(" openrtc top · 24 workers on 12 hosts, 1 unreached, 1 host without one, 1 connecting ")


@pytest.mark.parametrize("size", [(60, 15), (120, 26)])
def test_hosts_that_cannot_be_listed(size: tuple[int, int], many_hosts: State) -> None:
    """One line says why; the hosts that were known stay."""
    problem = "kubectl: it ended with exit code 1: no route to host; the 13 hosts known before stay"
    compare("unlisted-{}x{}".format(*size), shown(after(Listed(problem), state=many_hosts), size))


@pytest.mark.parametrize(
    ("fields", "title"),
    [
        ({"meter": "Python"}, "Python 3.13.1 · meter Python "),
        ({"meter": None}, "Python 3.13.1 · meter n/a "),
        ({"meter": None, "isolation": "process", "cpu": "off"}, "Python 3.13.1  "),
    ],
)
def test_the_meter_is_in_the_title(make_snapshot: MakeSnapshot, fields: dict[str, Any], title: str) -> None:
    """Of an older worker it is not known. In process mode there is none."""
    assert title in shown(after(Frame("w", make_snapshot(**fields))), (120, 26)).splitlines()[0]


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
        meter=None,
        loop_time=LoopTime(sessions_pct=12.0),
        lag_p99_ms=None,
        lag_max_ms=None,
        lag_method=None,
        rss_trend_mb_per_min=None,
        memory_limit_mb=0.0,
        introspection_pct=None,
        errored=2,
        draining=True,
        notes=["create_task was replaced: sessions are not distinguished"],
        host=type(make_snapshot().worker.host)(cores=1),
    )
    compare("unknown-{}x{}".format(*size), shown(after(Frame("w", snapshot)), size))


@pytest.mark.parametrize("size", [(80, 20), (120, 26), (160, 26)])
def test_the_limits_of_a_container(
    size: tuple[int, int], sessions: list[SessionRow], make_snapshot: MakeSnapshot
) -> None:
    """The nearest limit of memory, the CPU limit, and what happened at both."""
    group = Cgroup(
        cpu_limit=1.5,
        cpu_throttled_pct=38.2,
        memory_limit_mb=2048.0,
        memory_used_mb=1790.0,
        memory_current_mb=2040.0,
        oom_kills=1,
    )
    snapshot = make_snapshot(*sessions, rss_mb=1640.0, cgroup=group)
    compare("container-{}x{}".format(*size), shown(after(Frame("w", snapshot)), size))


def test_a_cpu_limit_that_is_not_used_up_is_shown_beside_the_host(
    sessions: list[SessionRow], make_snapshot: MakeSnapshot
) -> None:
    """Nothing is throttled then."""
    state = after(Frame("w", make_snapshot(*sessions, cgroup=Cgroup(cpu_limit=2.0, cpu_throttled_pct=0.0))))
    assert " limit  +12 MB/min   cpu limit 2   host cpu 46 % of 8 cores\n" in shown(state, (120, 26))


def test_how_many_steps_are_timed_is_shown_beside_what_that_costs(
    sessions: list[SessionRow], make_snapshot: MakeSnapshot
) -> None:
    """Where it is not each of them: the numbers below are estimates."""
    state = after(Frame("w", make_snapshot(*sessions, timed_one_in=8)))
    assert "   introspection ~0.3 %   times 1 step in 8\n" in shown(state, (200, 50))


@pytest.mark.parametrize("size", [(80, 20), (120, 26)])
def test_a_session_that_failed(size: tuple[int, int], make_session: MakeSession, make_snapshot: MakeSnapshot) -> None:
    """Its row says ERRORED, and the line above has the error, if nothing blocks the loop meanwhile."""
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
    """Nothing runs, and there was no block; what an older worker does not report is said, not shown as none."""
    state = after(Frame("w", make_snapshot(make_session("job-1", cpu_pct=None))), Key("enter"))
    assert "asking …" in shown(state, size)
    idle = after(Inspected("w", "job-1", Inspection(tasks=[], stack=[])), state=state)
    compare("page-idle-{}x{}".format(*size), shown(idle, size))
    old = Inspection(problem="this worker does not report tasks or stacks: too old, or in process mode")
    text = shown(after(Inspected("w", "job-1", old), state=state), size)
    assert old.problem in text
    assert "not running" not in text


def test_page_of_a_session_that_ended(page: State, make_snapshot: MakeSnapshot) -> None:
    """The last known row stays on the page, and the page says so, also if its worker is gone."""
    ended = shown(after(Frame("w", make_snapshot(taken_at=1001.0)), state=page), (120, 26))
    assert " job-c1d550 · restaurant · acme · 12:04 · ENDED " in ended.splitlines()[0]
    assert "it has ended" in ended
    assert " GONE: its worker is " in shown(after(Gone("w", "no connection"), state=page), (120, 26)).splitlines()[0]


def test_a_page_scrolls_to_its_end(page: State, utc: None) -> None:
    """Lines without room can be reached, and scrolling stops at the end."""
    state = page
    for _ in range(30):
        screen = render(state, (80, 20))
        state = after(Shown(screen.top, screen.page_rows), Key("j"), state=state)
    text = shown(state, (80, 20))
    assert "agents/restaurant.py:42 in lookup_menu" in text.splitlines()[-2]
    assert text == shown(after(Key("end"), state=page), (80, 20))


@pytest.fixture
def fleet(sessions: list[SessionRow], make_snapshot: MakeSnapshot, make_block: MakeBlock) -> State:
    """Five workers: one that drains, one on another machine, one not heard so far, one gone with its sessions."""
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
    """The header is that worker's alone; what is wrong in another one is shown all the same."""
    state = after(Key("w"), *[Key("down")] * 4, Key("enter"), state=fleet)
    text = shown(state, size)
    compare("only-{}x{}".format(*size), text)
    assert "worker voice-b" in text


@pytest.mark.parametrize("size", [(60, 15), (120, 26)])
def test_chooser(size: tuple[int, int], sessions: list[SessionRow], make_snapshot: MakeSnapshot) -> None:
    """All columns, those that are on, and the meaning of each."""
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
    """Those that were named are there, in the order they were named in, whether or not a row has a value."""
    named = ("status", "heap_mb", "worker", "steps", "cpu_s", "tasks", "worst_delay", "session", "pin")
    rows = [structs.replace(session, steps=18_204_000, cpu_s=41.2, tasks=7) for session in sessions]
    state = State(columns=named, always=frozenset(named), sort=SORTS["session"])
    text = shown(after(Frame("w", make_snapshot(*rows)), state=state), (120, 26))
    compare("named-120x26", text)
    narrow = shown(after(Frame("w", make_snapshot(*rows)), state=state), (30, 15))
    assert "status" in narrow


def test_gone_rows_are_grey(fleet: State) -> None:
    """All cells of a lost worker's sessions are dim, whatever their values; the word says it too."""
    lines = [line for line in render(fleet, (200, 50)).lines if any("GONE" in part.text for part in line.segments)]
    rows = [
        line for line in lines if not any("gone" in part.text or "no connection" in part.text for part in line.segments)
    ]
    assert len(rows) == 5
    for line in rows:
        assert all(part.style == DIM for part in line.segments if part.text.strip())


def test_the_footer_explains_the_marks_that_are_shown(make_snapshot: MakeSnapshot, make_session: MakeSession) -> None:
    """Those and no others; none if the keys take all the room."""
    plain = make_snapshot(make_session(), introspection_pct=0.3)
    marked = make_snapshot(make_session(cpu_pct=None), introspection_pct=None, lag_method="heartbeat")
    footers = [shown(after(Frame("w", frame)), (200, 26)).splitlines()[-1] for frame in (plain, marked)]
    assert [footer.partition("r refresh")[2].split() for footer in footers] == [
        ["~", "estimate"],
        ["~", "estimate", "n/a", "not", "known"],
    ]
    assert "estimate" not in shown(after(Frame("w", marked)), (120, 26)).splitlines()[-1]


@pytest.mark.parametrize("keys", [[], [Key("b")], [Key("w")], [Key("/")]])
def test_the_footer_names_the_enter_key_in_ascii_too(keys: list[Event], fleet: State) -> None:
    """By its word: no other key does the same."""
    state = after(*keys, state=fleet)
    plain, ascii = (render(state, (120, 26), unicode=unicode).lines[-1] for unicode in (True, False))
    plain_text, text = ("".join(part for part, _, _ in line.segments) for line in (plain, ascii))
    assert " ⏎ " in plain_text
    assert " Enter " in text
    assert "⏎" not in text
    assert ascii.width <= 120


def test_one_session_of_several_workers_is_one_session(make_session: MakeSession, make_snapshot: MakeSnapshot) -> None:
    """The header counts as one would say it."""
    state = after(Frame("a", make_snapshot(make_session())), Frame("b", make_snapshot(name="b", pid=2)))
    assert shown(state, (120, 26)).splitlines()[0].endswith(" 1 session · 0 errored")


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
    """No snapshot so far, no sessions, and none that passes the filter are different messages."""
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
            state = after(Shown(screen.top, screen.page_rows), state=state)
        return state.table.top

    page = render(state, (120, 26)).page_rows
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
    """Of several workers' blocks the longest is shown, and how many more there are."""
    state = after(
        Frame("a", make_snapshot(blocks=[make_block(session_id="short", running_since=999.9)])),
        Frame("b", make_snapshot(name="voice-b", blocks=[make_block(session_id="long", running_since=990.0)])),
    )
    text = shown(state, (120, 26))
    assert " BLOCKED 10.0 s  voice-b  long" in text
    assert "and 1 more" in text
    assert "short" not in text


def test_a_silent_worker_is_noticed(sessions: list[SessionRow], make_snapshot: MakeSnapshot) -> None:
    """When no snapshot has come for two periods, the view says how old what it shows is."""
    state = after(Tick(10.0), Frame("w", make_snapshot(*sessions)), Tick(12.0))
    assert "as of" not in shown(state, (120, 26))
    assert "· as of 2 s ago ·" in shown(after(Tick(12.1), state=state), (120, 26))
    assert "· as of 7 s ago " in shown(after(Tick(17.0), state=state), (60, 15))


def test_the_age_counts_in_periods_of_the_view(sessions: list[SessionRow], make_snapshot: MakeSnapshot) -> None:
    """A view that asks every two seconds has frames of up to two seconds, which are not old."""
    state = after(Tick(10.0), Frame("w", make_snapshot(*sessions)), Tick(13.9), state=State(period_s=2.0))
    assert "as of" not in shown(state, (120, 26))
    assert "as of 4 s ago" in shown(after(Tick(14.1), state=state), (120, 26))
    fast = after(Tick(10.0), Frame("w", make_snapshot(*sessions)), Tick(10.9), state=State(period_s=0.1))
    assert "as of" not in shown(fast, (120, 26)), "a frame of less than a second is not old"


def test_a_paused_view_does_not_age(sessions: list[SessionRow], make_snapshot: MakeSnapshot) -> None:
    """It says since when it stands still."""
    state = after(Tick(10.0), Frame("w", make_snapshot(*sessions)), Key("space"), Tick(60.0))
    assert "as of" not in shown(state, (120, 26))


# --- frozen and dead workers ---------------------------------------------------------------------


@pytest.fixture
def freeze(sessions: list[SessionRow], make_snapshot: MakeSnapshot, make_block: MakeBlock) -> Callable[..., Event]:
    """Make what is learned from a black box, 9 s after its last snapshot, 8.2 s into a block that keeps the GIL."""

    def make(key: str = "w", *, held: bool = True, taken_at: float = 1000.0, **fields: Any) -> Event:
        block = make_block(
            started_at=1000.8,
            running_since=1000.8,
            duration_ms=8200.0,
            cause="native",
            delayed=None,
            stack=[CALL, LOOKUP],
        )
        snapshot = make_snapshot(*sessions, taken_at=taken_at, blocks=[block] if held else [])
        reading: dict[str, Any] = {
            "box": "/run/w.box",
            "worker": "voice-a",
            "pid": 41213,
            "alive": True,
            "now": 1009.0,
            "at": 1009.0,
            "snapshot": snapshot,
            "loops": [LoopState()],
            **fields,
        }
        return Unanswered(key, BoxReading(**reading))

    return make


@pytest.mark.parametrize("size", SIZES)
def test_frozen(
    size: tuple[int, int], sessions: list[SessionRow], make_snapshot: MakeSnapshot, freeze: Callable[..., Event]
) -> None:
    """The session is BLOCKED, with its line and the cause, and the rest is as of so long ago."""
    calm = [structs.replace(sessions[0], status="active"), *sessions[1:]]
    frame = Frame("w", make_snapshot(*calm, taken_at=1000.0))
    state = after(Tick(100.0), frame, Tick(109.0), freeze())
    compare("frozen-{}x{}".format(*size), shown(state, size))


def test_frozen_in_ascii(freeze: Callable[..., Event]) -> None:
    """As everything, also on a terminal without Unicode."""
    text = encodable(to_text(render(after(freeze()), (80, 20), unicode=False), 80, 20), "ascii")
    assert " BLOCKED 8.2 s  job-c1d550  agents/restaurant.py:42 in lookup_menu  (native)" in text
    assert ". as of 9 s ago ." in text


@pytest.mark.parametrize("size", [(80, 20), (120, 26)])
def test_page_of_a_frozen_worker(size: tuple[int, int], freeze: Callable[..., Event], utc: None) -> None:
    """A session's page has the stack that the box has; its tasks cannot be had."""
    state = after(Tick(100.0), freeze(), Key("enter"))
    compare("page-frozen-{}x{}".format(*size), shown(state, size))


@pytest.mark.parametrize("size", [(80, 20), (120, 26)])
def test_workers_that_do_not_answer(
    size: tuple[int, int], sessions: list[SessionRow], make_snapshot: MakeSnapshot, freeze: Callable[..., Event]
) -> None:
    """The list says which one does not answer, and which one is late."""
    state = after(
        Tick(100.0),
        Frame("late", make_snapshot(*sessions[3:6], name="chat", pid=7)),
        Frame("w", make_snapshot(*sessions, taken_at=1000.0)),
        Tick(109.0),
        Frame("well", make_snapshot(*sessions[6:8], name="voice-b", pid=41299)),
        freeze(),
        Key("w"),
    )
    compare("workers-frozen-{}x{}".format(*size), shown(state, size))
    compare("several-frozen-{}x{}".format(*size), shown(after(Key("w"), state=state), size))


def test_a_worker_that_answers_again_is_live(
    sessions: list[SessionRow], make_snapshot: MakeSnapshot, freeze: Callable[..., Event]
) -> None:
    """With the first frame nothing is as of a while ago."""
    state = after(freeze(), Tick(1.0), Frame("w", make_snapshot(*sessions[1:], taken_at=1010.0)))
    assert "BLOCKED" not in shown(state, (120, 26))
    assert "as of" not in shown(state, (120, 26))


def dead(number: int = 1, **fields: Any) -> DeadWorker:
    held = Block(seq=0, session_id="job-x", duration_ms=8200.0, location=Location("agents/restaurant.py", 42, "look"))
    given = {"box": f"/run/{number}.box", "name": f"worker-{number}", "pid": 122 + number, "held": held, **fields}
    return DeadWorker(**{"age_s": 60.0 * 12 * number, **given})


@pytest.mark.parametrize("size", SIZES)
def test_a_worker_that_died(size: tuple[int, int], sessions: list[SessionRow], make_snapshot: MakeSnapshot) -> None:
    """One quiet line for each, below what is wrong now."""
    died = Died(None, (dead(), dead(2, held=None), dead(3, error="black box '/run/3.box': is damaged", held=None)))
    state = after(Frame("w", make_snapshot(*sessions)), died)
    compare("dead-{}x{}".format(*size), shown(state, size))
    styles = [line for line in render(state, size).lines if any("died" in text for text, _, _ in line.segments)]
    assert all(style == DIM for line in styles for text, style, _ in line.segments if text.strip())


def test_dead_workers_of_several_hosts(sessions: list[SessionRow], make_snapshot: MakeSnapshot) -> None:
    """Each host has its own, which its name is before; those that died last come first, and the rest are counted."""
    here = Died(None, (dead(2), dead(5)))
    there = Died("voice-3", (dead(1, user="alice"), dead(4)))
    state = after(Frame("w", make_snapshot(*sessions[1:])), here, there)
    lines = [line.strip() for line in shown(state, (120, 26)).splitlines() if "died" in line]
    assert lines == [
        f"{name} ago while job-x held the loop for 8.2 s at agents/restaurant.py:42 in look"
        for name in ("voice-3:alice:worker-1 pid 123 died 12 min", "worker-2 pid 124 died 24 min")
    ] + ["… and 2 more that died: openrtc postmortem"]
    alone = after(Died(None, (dead(),)), state=state)
    assert "3 workers died, the last one 12 min ago: openrtc postmortem" in shown(alone, (80, 20))
    alone = after(Died("voice-3", ()), state=alone)
    line = " worker-1 died 12 min ago while job-x held the loop at restaurant.py:42 in look\n"
    assert line in shown(alone, (80, 20))


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


# --- what sessions wait for ----------------------------------------------------------------------


def waiting(make_snapshot: MakeSnapshot, make_session: MakeSession) -> Snapshot:
    """40 sessions, most of which wait for a lock, and the tasks of one that has ended."""
    rows = [
        make_session(
            f"job-{number:02}",
            agent_name="restaurant",
            tenant="acme",
            started_at=400.0,
            duration_s=600.0,
            delayed_s=0.25,
            last_step_at=989.0 - number,
            waits="lock" if number < 37 else "timer",
        )
        for number in range(40)
    ]
    outlived = Outlived(
        session_id="job-5b21de", agent_name="dental", ended_at=986.0, tasks=1, cpu_pct=12.5, task_name="prefetch"
    )
    return make_snapshot(*rows, outlived=[outlived], iterations_per_s=240.0)


@pytest.mark.parametrize("size", [(100, 24), (120, 26), (160, 26)])
def test_idle_and_waits(size: tuple[int, int], make_snapshot: MakeSnapshot, make_session: MakeSession) -> None:
    """The kinds of waits have room at 120 columns, and the time since the last step in wider terminals."""
    state = after(Frame("w", waiting(make_snapshot, make_session)))
    compare("waiting-{}x{}".format(*size), shown(state, size))


@pytest.mark.parametrize("size", [(60, 15), (80, 20), (120, 26)])
def test_waits(
    size: tuple[int, int],
    make_snapshot: MakeSnapshot,
    make_session: MakeSession,
    make_waits: Callable[..., Waits],
    full_executor: ExecutorInfo,
) -> None:
    """The groups, and below them what else keeps tasks waiting."""
    frame = Frame("w", waiting(make_snapshot, make_session))
    answer = Surveyed("w", Survey(make_waits(executors=[full_executor], not_looked_at=12)))
    state = after(frame, Key("W"), answer, Key("down"))
    compare("waits-{}x{}".format(*size), shown(state, size))
    compare("waits-who-{}x{}".format(*size), shown(after(Key("enter"), Key("down"), state=state), size))


def test_waits_of_several_workers(
    make_snapshot: MakeSnapshot, make_session: MakeSession, make_waits: Callable[..., Waits]
) -> None:
    """In one list; one that cannot tell has a line."""
    frames = [Frame(name, make_snapshot(make_session(), name=name, epoch=name)) for name in ("voice-a", "voice-b")]
    answers = [Surveyed("voice-a", Survey(make_waits())), Surveyed("voice-b", Survey(None, "it is too old"))]
    state = after(*frames, Key("W"), *answers)
    compare("waits-several-120x26", shown(state, (120, 26)))


@pytest.mark.parametrize(
    ("event", "text"),
    [
        (None, "asking …"),
        (Surveyed("w", Survey(Waits(id=0))), "nothing waits"),
        (Surveyed("w", Survey(None, "a recording holds none")), "a recording holds none"),
    ],
)
def test_waits_that_are_not_there(event: Event | None, text: str, make_snapshot: MakeSnapshot) -> None:
    """The page says why it is empty."""
    state = after(Frame("w", make_snapshot()), Key("W"), *([event] if event else []))
    assert text in shown(state, (80, 20))


@pytest.mark.parametrize("size", [(80, 20), (120, 26)])
def test_the_time_of_a_session(size: tuple[int, int], make_snapshot: MakeSnapshot, make_session: MakeSession) -> None:
    """What it went to, with a mark at what is sampled."""
    time = WallTime(total_s=600.0, running_s=24.0, waited=[WaitedFor(kind="lock", seconds=560.0)], unknown_s=16.0)
    tasks = [TaskInfo(id=1, name="entrypoint", awaits=[Location("agents/restaurant.py", 57, "book")])]
    frame = Frame("w", waiting(make_snapshot, make_session))
    state = after(frame, Key("enter"), Inspected("w", "job-00", Inspection(tasks, stack=[], wall_time=time)))
    compare("time-{}x{}".format(*size), shown(state, size))


def test_who_held_a_block_up(make_snapshot: MakeSnapshot, make_session: MakeSession, make_block: MakeBlock) -> None:
    """The alert, the list and the page of the session name who has what the loop's thread waits for."""
    place = Location("agents/dental.py", 30, "answer")
    holder = Holder(session_id="job-77ab02", agent_name="dental", since=990.0, taken_at=place)
    block = make_block(waiting_on="threading.Lock", holder=holder)
    state = after(Frame("w", make_snapshot(make_session("job-c1d550", status="blocked"), blocks=[block])))
    for screen in (state, after(Key("b"), state=state), after(Key("enter"), state=state)):
        assert "held by job-77ab02" in shown(screen, (160, 26)).replace(" at agents/dental.py:30 in answer", "", 1)
    assert "held by job-77ab02 at agents/dental.py:30" in shown(state, (160, 26))
    narrow = shown(state, (80, 20)).splitlines()
    assert any("BLOCKED" in line and "held by job-77ab02" in line for line in narrow)
    waits = " ".join(shown(after(Key("W"), state=state), (80, 20)).split())
    assert "which waits for threading.Lock, held by job-77ab02 (dental), inside the `with`" in waits


def test_a_group_that_waits_for_a_thread_has_its_pool(
    make_snapshot: MakeSnapshot,
    make_session: MakeSession,
    make_waits: Callable[..., Waits],
    full_executor: ExecutorInfo,
) -> None:
    """Whoever has the threads is whom they wait for."""
    waiters = [Waiter(session_id="job-00", task_name="t", since=990.0)]
    group = WaitGroup(kind="executor", what="getaddrinfo", sessions=1, tasks=1, stuck=1, waiters=waiters)
    answer = Surveyed("w", Survey(make_waits(group, executors=[full_executor])))
    state = after(Frame("w", make_snapshot(make_session("job-00"))), Key("W"), answer, Key("enter"))
    assert "render_menu of job-c1d550: 8 run" in " ".join(shown(state, (80, 20)).split())


def test_the_column_that_rows_are_sorted_by_stays(make_snapshot: MakeSnapshot, make_session: MakeSession) -> None:
    """Others go before it, though it is the first to go else."""
    frame = Frame("w", make_snapshot(make_session("job-00", last_step_at=990.0)))
    for sort, stays in (("cpu_pct", False), ("idle", True)):
        state = after(frame, state=State(sort=SORTS[sort]))
        heading = next(line for line in shown(state, (100, 20)).splitlines() if line.startswith("  session"))
        assert ("idle" in heading) is stays
