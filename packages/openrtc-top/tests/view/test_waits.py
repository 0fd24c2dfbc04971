"""What the tasks of a worker wait for, as printed."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from openrtc_introspect_core.wire import (
    Block,
    CallbackGroup,
    Creation,
    ExecutorInfo,
    Holder,
    Location,
    LoopActivity,
    ThreadCallGroup,
    WaitedFor,
    Waiter,
    WaitGroup,
    Waits,
    WallTime,
)
from openrtc_top._model.waits import KINDS, entries
from openrtc_top._view.activity import activity_lines
from openrtc_top._view.holder import held_up, holder_text, noun
from openrtc_top._view.line import Line
from openrtc_top._view.waits import Answer, survey
from openrtc_top._view.wall_time import wall_time_lines

MakeWaits = Callable[..., Waits]
HERE = Location("agents/menu.py", 12, "render")


def texts(lines: list[Line]) -> list[str]:
    return ["".join(text for text, _, _ in line.segments).rstrip() for line in lines]


def printed(
    waits: Waits, width: int | None = None, *, whole: bool = False, chosen: bool = False, blocks: Sequence[Block] = ()
) -> list[str]:
    answer = Answer(waits, entries("w", "voice-a", waits), blocks)
    return texts(survey("voice-a", 7, answer, width, whole=whole, chosen=chosen))


def test_a_group_has_who_holds_it_and_who_waits(make_waits: MakeWaits) -> None:
    """Below a calm group there is nothing."""
    assert printed(make_waits()) == [
        "voice-a · pid 7 · 40 sessions, 96 tasks",
        " sessions  stuck  waits for  what          longest  where",
        "       37     36  lock       asyncio.Lock     11 s  agents/restaurant.py:57 in book",
        "           held by   job-77ab02 (dental), inside the `with` at agents/dental.py:30 in answer, waits for a "
        "timer for 12 s at agents/dental.py:31 in answer, task Task-9",
        "           waiting   job-00 for 11 s, job-01 for 10 s, job-02 for 10 s and 35 more",
        "        3      -  timer      sleep             4 s  agents/common.py:77 in report",
    ]


def test_nothing_is_wider_than_the_terminal(make_waits: MakeWaits, full_executor: ExecutorInfo) -> None:
    """Texts are wrapped, and the least important columns go."""
    lines = printed(make_waits(executors=[full_executor]), 60, whole=True)
    assert max(map(len, lines)) <= 60
    assert " ".join(" ".join(lines).split()).count("inside the `with` at agents/dental.py:30 in answer") == 1


def test_all_is_each_waiter(make_waits: MakeWaits) -> None:
    """The place is said once, unless a waiter's is another one; those that are not named are counted."""
    lines = printed(make_waits(), whole=True)
    assert "           waits     job-00 (restaurant), task Task-0 for 11 s" in lines
    assert lines[24] == "                     and 18 more tasks"
    group = WaitGroup(kind="lock", shared=True, tasks=2, waiters=[Waiter(task_name="main", location=HERE)])
    assert "           waits     task main at agents/menu.py:12 in render" in printed(make_waits(group), whole=True)


def test_holders_are_the_first_few(make_waits: MakeWaits) -> None:
    """A pool has many."""
    holders = [Holder(task_name=f"t{number}") for number in range(8)]
    lines = printed(make_waits(WaitGroup(kind="semaphore", shared=True, sessions=2, tasks=2, holders=holders)))
    assert lines[3:] == [
        "           held by   task t0",
        "           held by   task t1",
        "           held by   task t2",
        "                     and 5 more",
    ]


def test_a_holder_that_cannot_be_seen_is_said(make_waits: MakeWaits) -> None:
    """A lock has one while others wait for it; an event has none."""
    for kind, lines in (("lock", ["           held by   nobody that can be seen"]), ("event", [])):
        group = WaitGroup(kind=kind, shared=True, sessions=2, tasks=2)
        assert printed(make_waits(group))[3:] == lines


def test_if_all_is_well_it_is_short(make_waits: MakeWaits) -> None:
    """The lines at which the most wait, and a sentence that this is no fault."""
    groups = [
        WaitGroup(kind="timer", location=Location("agents.py", 42, "talk"), sessions=48, tasks=48, since=996.0),
        WaitGroup(kind="own-task", sessions=1, tasks=1),
    ]
    assert printed(make_waits(*groups, sessions=50)) == [
        "voice-a · pid 7 · 50 sessions, 96 tasks · nobody waits long for another",
        " sessions  stuck  waits for  what  longest  where",
        "       48      -  timer                4 s  agents.py:42 in talk",
        "        1      -  own-task             n/a  -",
        "    They wait for things from outside, or each for its own.",
    ]
    assert printed(make_waits(*groups * 3))[-1].endswith("each for its own. 2 more groups: --all lists them.")
    assert "They wait for" not in " ".join(printed(make_waits(*groups), whole=True))
    assert printed(Waits(id=0, sessions=1, tasks=1))[1].strip() == "Nothing waits."


def test_a_loop_that_is_held_is_no_calm(make_waits: MakeWaits) -> None:
    """Nobody moves meanwhile, whatever it waits for; so the block comes first, with who holds it up."""
    group = WaitGroup(kind="timer", sessions=9, tasks=9)
    holder = Holder(session_id="call-holder", taken_at=HERE)
    block = Block(
        seq=0,
        session_id="call-comer",
        started_at=997.0,
        duration_ms=3000.0,
        in_progress=True,
        location=Location("agents/call.py", 34, "comer"),
        waiting_on="threading.Lock",
        holder=holder,
    )
    lines = printed(make_waits(group), blocks=[block])
    assert lines[1] == (
        " blocked   call-comer has held the loop for 3.0 s at agents/call.py:34 in comer, which waits for "
        "threading.Lock, held by call-holder, inside the `with` at agents/menu.py:12 in render"
    )
    assert "nobody waits" not in lines[0]


def test_tasks_that_there_was_no_time_for_are_said(make_waits: MakeWaits) -> None:
    """An answer that is not whole must not look as if it were."""
    assert printed(make_waits(not_looked_at=120))[0].endswith("· 120 tasks not looked at")


def test_one_function_of_many_sessions_is_one_line() -> None:
    """Each session's own lines are for --all; of one function the longest counts."""
    calls = [ThreadCallGroup(function="put", session_id="job-0", running=2, queued=3, longest_queued_s=4.0)]
    calls += [
        ThreadCallGroup(function="getaddrinfo", session_id=f"job-{number}", queued=1, longest_queued_s=float(number))
        for number in range(1, 4)
    ]
    waits = Waits(id=0, executors=[ExecutorInfo(name="default", max_threads=2, busy=2, queued=6, calls=calls)])
    assert texts(activity_lines(waits, None))[1:] == [
        "           put of job-0: 2 run; 3 queued, the longest for 4.0 s",
        "           getaddrinfo of 3 sessions: 3 queued, the longest for 3.0 s",
    ]
    assert len(activity_lines(waits, None, whole=True)) == 5


def test_executors(full_executor: ExecutorInfo) -> None:
    """Threads busy of how many, calls queued, by session and function; one that is idle is not mentioned."""
    idle = ExecutorInfo(name="io", max_threads=4)
    other = ExecutorInfo(name="anyio", loop="asyncio-2", busy=1, calls=[ThreadCallGroup(function="f", running=1)])
    waits = Waits(id=0, executors=[full_executor, idle, other])
    assert texts(activity_lines(waits, None)) == [
        " executor  default: 8 of 8 threads busy, 5 calls queued, the longest for 4.2 s",
        "           render_menu of job-c1d550: 8 run, the longest for 9.5 s at agents/menu.py:12 in render_menu; "
        "5 queued, the longest for 4.2 s",
        " executor  anyio of loop asyncio-2: 1 thread busy",
    ]
    assert " executor  io: 0 of 4 threads busy" in texts(activity_lines(waits, None, whole=True))
    assert "           f of no session: 1 runs" in texts(activity_lines(waits, None, whole=True))


@pytest.mark.parametrize(
    ("callback", "text"),
    [
        (
            CallbackGroup(
                source="reader", function="Feed.read", location=HERE, fd=21, peer="10.0.0.7:443 Ws", count=400
            ),
            "reader Feed.read at agents/menu.py:12 in render, fd 21, 10.0.0.7:443 Ws: found ready 400 times",
        ),
        (
            CallbackGroup(source="ready", function="f", session_id="job-1", thread="pump", count=900),
            "ready f, of job-1, added by thread pump: 900 in the queue",
        ),
        (
            CallbackGroup(source="lost", function="f", thread="pump", count=1),
            "lost f, added by thread pump: 1 in the queue while the loop sleeps, until something else wakes it",
        ),
    ],
)
def test_loops(callback: CallbackGroup, text: str) -> None:
    """A loop that runs something beside steps has a line, and so has each such callback."""
    loop = LoopActivity(
        name="asyncio", iterations_per_s=52000.0, steps_per_s=3.0, ready=1, asleep_since=7.0, callbacks=[callback]
    )
    waits = Waits(id=0, taken_at=10.0, loops=[loop, LoopActivity(name="uvloop")])
    assert texts(activity_lines(waits, None)) == [
        " loop      asyncio: 52,000 iterations and 3 steps a second, 1 callback in its queue, asleep for 3 s",
        f"           {text}",
    ]
    assert texts(activity_lines(waits, None, whole=True))[-1] == " loop      uvloop: nothing is known"


def test_creations() -> None:
    """Only a crowd is mentioned."""
    crowd = Creation(kind="thread", location=HERE, function="watch", session_id="job-1", alive=120, started=130)
    few = Creation(kind="task", function="f", alive=1)
    waits = Waits(id=0, creations=[crowd, few])
    line = (
        " started   120 threads that run watch, started at agents/menu.py:12 in render, most by job-1, "
        "of 130 started there"
    )
    assert texts(activity_lines(waits, None)) == [line]
    assert (
        texts(activity_lines(waits, None, whole=True))[1]
        == " started   1 task that runs f, started at a line that is not known"
    )


@pytest.mark.parametrize(
    ("holder", "text"),
    [
        (Holder(thread="pump", location=HERE), "thread pump, at agents/menu.py:12 in render"),
        (Holder(task_name="main", since=4.0, certain=False), "likely task main, suspended for 6 s"),
        (Holder(session_id="job-1", taken_at=HERE), "job-1, inside the `with` at agents/menu.py:12 in render"),
        (
            Holder(session_id="job-1", taken_at=HERE, certain=False),
            "likely job-1, took it at agents/menu.py:12 in render",
        ),
        (Holder(session_id="job-1", waits="of-later"), "job-1, waits for of-later"),
        (Holder(), "someone unknown"),
    ],
)
def test_holders(holder: Holder, text: str) -> None:
    """One that is only likely says so, and what is not known is not said."""
    assert holder_text(holder, 10.0) == text


def test_each_kind_has_a_noun() -> None:
    """It stands behind `for`."""
    assert all(" " in noun(kind) for kind in KINDS)


def test_who_held_a_block_up() -> None:
    """While it is in progress in the present tense; a block that waited for nothing has no such text."""
    holder = Holder(session_id="job-1", since=8.0, taken_at=HERE)
    block = Block(seq=1, started_at=9.0, duration_ms=1000.0, waiting_on="threading.Lock", holder=holder)
    where = "inside the `with` at agents/menu.py:12 in render"
    assert held_up(block) == f"waited for threading.Lock, held by job-1, {where}, suspended for 2 s"
    going_on = Block(seq=0, in_progress=True, waiting_on="threading.Lock")
    assert held_up(going_on) == "waits for threading.Lock"
    assert held_up(Block(seq=1)) is None


def test_wall_time() -> None:
    """The parts of it; those that are sampled have their mark."""
    time = WallTime(
        total_s=600.0,
        running_s=24.0,
        delayed_s=0.0,
        queued_s=0.1,
        in_threads_s=60.0,
        waited=[WaitedFor(kind="lock", seconds=500.0)],
        unknown_s=16.0,
    )
    assert texts(wall_time_lines(time, None)) == [
        " time      of 10:00: running 4.0 %, delayed by others 0 %, in threads ~10 %, waiting for a lock ~83 %, "
        "not known 2.7 %"
    ]
    assert wall_time_lines(None, None) == wall_time_lines(WallTime(), None) == []
    assert max(line.width for line in wall_time_lines(time, 60)) <= 60
