"""The rules of a diagnosis about waiting: each just under and just over its thresholds, and healthy waiting."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from watched_series import (
    NOW,
    OF_WAITS,
    PLACE,
    SECONDS,
    Edge,
    Series,
    Watched,
    block,
    codes,
    loop_time,
    row,
    series,
    several,
)

from openrtc_introspect_core import Finding, diagnose
from openrtc_introspect_core.wire import (
    CallbackGroup,
    Creation,
    ExecutorInfo,
    Holder,
    Host,
    Location,
    LoopActivity,
    LoopTime,
    SessionRow,
    ThreadCallGroup,
    Waiter,
    WaitGroup,
    Waits,
)

LOCK = Location("agents/summary.py", 31, "summarises")
MOMENTS = (0.0, 1.25, 2.5, 3.75, 5.0)
"""When the command asks, seconds after the first snapshot."""

At = Callable[[float], dict[str, Any]]


def asked(at: At, shown: Series | None = None, moments: tuple[float, ...] = MOMENTS) -> Watched:
    """A worker and its answers, whose fields are those that `at` returns for the seconds since the first snapshot."""
    frames, blocks = shown or series()
    return frames, blocks, [Waits(id=0, taken_at=NOW - SECONDS + t, **at(t)) for t in moments]


def found(shown: Watched) -> Finding:
    """Return the only finding."""
    (only,) = diagnose(*shown)
    return only


def group(kind: str, number: int, waited_s: float, t: float, **fields: Any) -> WaitGroup:
    """Sessions that have waited at PLACE at t; the first for the given seconds, each other a moment less."""
    now = NOW - SECONDS + t
    waiters = [
        Waiter(session_id=f"job-{n}", task_name=f"Task-{n}", since=now - waited_s + 0.001 * n, location=PLACE)
        for n in range(min(number, 20))
    ]
    shown = {
        "kind": kind,
        "what": f"asyncio.{kind.capitalize()}",
        "location": PLACE,
        "sessions": number,
        "tasks": number,
        "stuck": number,
        "since": now - waited_s,
        "waiters": waiters,
    }
    return WaitGroup(**{**shown, **fields})


def waiting(kind: str, number: int, waited_s: float, **fields: Any) -> Watched:
    """The same group in each answer, each time with the same waits: others in it, or the same again."""
    return asked(lambda t: {"groups": [group(kind, number, waited_s, t, **fields)]})


def stuck(kind: str, number: int, waited_s: float, **fields: Any) -> Watched:
    """The same sessions in each answer: at the last one they have waited for the given seconds."""
    return asked(lambda t: {"groups": [group(kind, number, waited_s - SECONDS + t, t, **fields)]})


def holder(t: float, held_s: float, **fields: Any) -> Holder:
    """The session that has the lock, and took no step for the given seconds."""
    since = NOW - SECONDS + t - held_s
    shown = {"session_id": "call-sum", "agent_name": "desk", "task_name": "Task-99", "since": since, "location": LOCK}
    return Holder(**{**shown, **fields})


def convoy(waited_s: float = 4.0, held_s: float = 4.0, number: int = 10, **fields: Any) -> Watched:
    """Sessions that wait for a lock whose holder is suspended."""
    return asked(
        lambda t: {"groups": [group("lock", number, waited_s, t, shared=True, holders=[holder(t, held_s, **fields)])]}
    )


def pool(busy: int = 6, queued: int = 34, queued_s: float = 9.0, **fields: Any) -> dict[str, Any]:
    """An executor of six threads, used by one session above all."""
    calls = [
        ThreadCallGroup(
            session_id="call-upload", agent_name="desk", function="put", location=PLACE, running=busy, queued=queued
        ),
        ThreadCallGroup(session_id="job-1", agent_name="dental", function="getaddrinfo", queued=1),
    ]
    shown = {"name": "default", "kind": "executor", "max_threads": 6, "busy": busy, "queued": queued, "calls": calls}
    return {"executors": [ExecutorInfo(**{**shown, "longest_queued_s": queued_s, **fields})]}


def ring(waited_s: float, *, certain: bool = True, slots: int = 1) -> Watched:
    """Two tasks of which each has the lock that the other waits for."""

    def at(t: float) -> dict[str, Any]:
        since = NOW - waited_s
        groups = []
        for mine, other in (("a", "b"), ("b", "a")):
            waiter = Waiter(session_id=f"job-{mine}", task_name=f"T-{mine}", since=since, location=PLACE)
            has = Holder(session_id=f"job-{other}", task_name=f"T-{other}", since=since, taken_at=LOCK, certain=certain)
            groups.append(
                WaitGroup(kind="lock", stuck=1, sessions=1, since=since, waiters=[waiter], holders=[has] * slots)
            )
        return {"groups": groups}

    return asked(at)


def stale(
    start: int = 20, rise: float = 2.0, waited_s: float = 8.0, kind: str = "queue", sessions: float = 2.0
) -> Watched:
    """Sessions that gather at a line while their number grows."""

    def at(t: float) -> dict[str, Any]:
        now = NOW - SECONDS + t
        number = start + int(rise * t)
        since = [NOW - waited_s + 0.01 * n for n in range(start)] + [now - 0.2] * (number - start)
        waiters = [Waiter(session_id=f"ws-{n}", task_name="t", since=moment) for n, moment in enumerate(since)][:20]
        return {"groups": [group(kind, number, waited_s, t, since=since[0], waiters=waiters)]}

    rows = lambda t: [row(f"job-{n}", cpu_s=0.01 * t, steps=int(50 * t)) for n in range(20 + int(sessions * t))]  # noqa: E731
    return asked(at, series(sessions=rows))


def loop(**fields: Any) -> Watched:
    """What the only loop does, the same in each answer."""
    return asked(lambda t: {"loops": [LoopActivity(name="asyncio", **fields)]})


def reader(**fields: Any) -> CallbackGroup:
    """A callback of a session."""
    shown: dict[str, Any] = {
        "source": "reader",
        "function": "dials_out.<locals>.on_readable",
        "location": PLACE,
        "session_id": "call-side",
        "fd": 9,
        "count": 8,
    }
    return CallbackGroup(**{**shown, **fields})


def lost(asleep_s: float, answers: int = 5) -> Watched:
    """A loop that sleeps, with a callback in its queue, in the last answers."""

    def at(t: float) -> dict[str, Any]:
        asleep = LoopActivity(
            name="asyncio",
            asleep_since=NOW - SECONDS + t - asleep_s,
            callbacks=[reader(source="lost", fd=None, count=1)],
        )
        return {"loops": [asleep if t in MOMENTS[-answers:] else LoopActivity(name="asyncio")]}

    return asked(at)


def threads(rise: float, start: int = 20, *, kind: str = "thread", function: str = "Event.wait") -> Watched:
    """Threads that are started at a line, so many more a second."""

    def at(t: float) -> dict[str, Any]:
        made = Creation(kind=kind, function=function, location=PLACE, session_id="call-ws", alive=start + int(rise * t))
        return {**pool(busy=1, queued=0), "creations": [made]}

    return asked(at)


FED = reader(source="ready", fd=None, count=10, thread="feed")
OWN = reader(source="ready", fd=None, count=10)

EDGES = [
    Edge("executor-full", "threads", *(asked(lambda t, n=n: pool(busy=n)) for n in (5, 6))),
    Edge("executor-full", "queued", *(asked(lambda t, n=n: pool(queued=n)) for n in (0, 1))),
    Edge("executor-full", "seconds", *(asked(lambda t, s=s: pool(queued_s=s)) for s in (0.9, 1.1))),
    Edge("deadlock", "seconds", ring(1.9), ring(2.1)),
    Edge("deadlock", "certain", ring(60.0, certain=False), ring(60.0)),
    Edge("deadlock", "slots", ring(60.0, slots=2), ring(60.0)),
    Edge("lock-convoy", "sessions", convoy(number=2), convoy(number=3)),
    Edge("lock-convoy", "seconds", convoy(0.9), convoy(1.1)),
    Edge("lock-convoy", "held", convoy(1.9, held_s=0.4), convoy(1.9, held_s=0.6)),
    Edge("lock-convoy", "slots", *(waiting("semaphore", 9, s, holders=[holder(SECONDS, 60.0)]) for s in (1.9, 2.1))),
    Edge("waiting-together", "sessions", waiting("semaphore", 2, 9.0), waiting("semaphore", 3, 9.0)),
    Edge("waiting-together", "seconds", waiting("semaphore", 9, 1.9), waiting("semaphore", 9, 2.1)),
    Edge("waiting-together", "kind", waiting("event", 9, 900.0, shared=True), waiting("shared-task", 9, 900.0)),
    Edge("waiting-together", "stuck", waiting("semaphore", 9, 9.0, stuck=2), waiting("semaphore", 9, 9.0, stuck=3)),
    Edge(
        "waiting-together",
        "queue",
        *(waiting("queue", 9, 9.0, what=f"asyncio.Queue, {state}") for state in ("empty", "full")),
    ),
    Edge(
        "waiting-together",
        "pool",
        *(waiting("queue", 9, 9.0, what="asyncio.LifoQueue, empty", shared=one) for one in (False, True)),
    ),
    Edge("stale-sessions", "sessions", stale(start=3, rise=0.3), stale(start=5, rise=0.3)),
    Edge("stale-sessions", "seconds", stale(waited_s=2.8), stale(waited_s=3.5)),
    Edge("stale-sessions", "outside", stale(waited_s=59.0, kind="socket"), stale(waited_s=61.0, kind="socket")),
    Edge("stale-sessions", "growth", stale(sessions=0.5), stale(sessions=0.6)),
    Edge("stale-sessions", "gathers", stale(rise=0.0), stale(rise=0.3)),
    Edge("threads-grow", "rise", threads(1.5), threads(1.7)),
    Edge("threads-grow", "pools", *(threads(3.0, start=n, function="ThreadPoolExecutor uploads") for n in (49, 50))),
    Edge("callback-flood", "count", *(loop(callbacks=[reader(source="ready", count=n)]) for n in (199, 201))),
    Edge("callback-flood", "rate", *(loop(iterations_per_s=n, callbacks=[FED]) for n in (1990.0, 2010.0))),
    Edge("callback-flood", "thread", *(loop(iterations_per_s=3900.0, callbacks=[each]) for each in (OWN, FED))),
    Edge("callback-flood", "source", *(loop(callbacks=[reader(source=s, count=500)]) for s in ("reader", "ready"))),
    Edge("spinning-loop", "iterations", *(loop(iterations_per_s=n, steps_per_s=10.0) for n in (3990.0, 4010.0))),
    Edge("spinning-loop", "steps", *(loop(iterations_per_s=9000.0, steps_per_s=n) for n in (910.0, 890.0))),
    Edge("lost-wakeup", "seconds", lost(0.4), lost(0.6)),
    Edge("lost-wakeup", "answers", lost(0.9, answers=1), lost(0.9, answers=2)),
]


@pytest.mark.parametrize("edge", EDGES, ids=lambda edge: f"{edge.code}, {edge.threshold}")
def test_a_rule_speaks_over_its_threshold_and_not_under_it(edge: Edge) -> None:
    """And nothing else does."""
    assert codes(edge.under) == list(edge.otherwise)
    assert codes(edge.over) == [edge.code]


def test_every_code_has_an_edge_here() -> None:
    """Those that need no answers have theirs in test_diagnose.py."""
    assert {edge.code for edge in EDGES} == OF_WAITS


@pytest.mark.parametrize("edge", EDGES, ids=lambda edge: f"{edge.code}, {edge.threshold}")
def test_two_answers_say_nothing(edge: Edge) -> None:
    """One moment may look like anything, and so may two."""
    frames, blocks, answers = edge.over  # type: ignore[misc]
    assert codes((frames, blocks, answers[-2:])) == []


@pytest.mark.parametrize(
    "shown", [pool(), {"groups": [group("semaphore", 9, 9.0, 0.0)]}], ids=["executor-full", "waiting-together"]
)
def test_what_is_so_in_one_answer_only_is_no_finding(shown: dict[str, Any]) -> None:
    """The queue is empty again in the others."""
    assert codes(asked(lambda t: shown if t == SECONDS else {})) == []


def test_what_was_before_a_restart_is_left_out() -> None:
    """Answers of the worker before it are of other sessions."""
    frames, blocks, answers = convoy()
    started = [
        msgspec.structs.replace(frame, worker=msgspec.structs.replace(frame.worker, started_at=NOW)) for frame in frames
    ]
    assert codes((frames, blocks, answers)) == ["lock-convoy"]
    assert codes((started, blocks, answers)) == []


# --- what findings say --------------------------------------------------------------------------------


def test_a_full_executor_names_who_has_it() -> None:
    """With what waits behind, and where the calls are."""
    reported = found(asked(lambda t: pool()))
    assert reported.title == "the default executor is full: 6 of 6 threads busy, 34 calls queued"
    assert reported.seen == (
        "call-upload (desk) has 6 running and 34 queued at agents/restaurant.py:42 in lookup_menu, the longest in the "
        "queue for 9.0 s, calls of 1 other session behind them"
    )
    assert (reported.session_id, reported.location, reported.severity) == ("call-upload", PLACE, "critical")
    assert found(asked(lambda t: pool(kind="anyio", name="anyio"))).title.startswith("anyio's thread limiter is full")


def test_an_executor_that_is_full_of_one_function_names_it() -> None:
    """No session has most of its threads."""
    calls = [
        ThreadCallGroup(session_id=f"job-{n}", function="transcribe", location=PLACE, running=1, queued=2)
        for n in range(6)
    ]
    reported = found(asked(lambda t: pool(calls=calls, queued=12)))
    assert reported.seen.startswith(
        "6 sessions have 6 running and 12 queued at agents/restaurant.py:42 in lookup_menu (transcribe)"
    )
    assert reported.session_id is None


def test_not_all_that_wait_for_an_executor_may_be_named() -> None:
    """An answer has the calls with most threads."""
    reported = found(asked(lambda t: pool(queued=90)))
    assert "calls of 1 other session behind them" in reported.seen
    few = pool(queued=90)["executors"][0]
    few = msgspec.structs.replace(few, calls=[msgspec.structs.replace(each, queued=3) for each in few.calls])
    assert "calls of 1 other session or more behind them" in found(asked(lambda t: {"executors": [few]})).seen


def test_a_pool_that_does_not_know_its_queue_is_full_if_sessions_wait_for_it() -> None:
    """Trio's limiter does not know since when."""
    full = pool(queued_s=None, kind="trio", name="trio")  # type: ignore[arg-type]
    assert codes(asked(lambda t: full)) == []
    waits = lambda t, s: {**full, "groups": [group("executor", 9, s, t)]}  # noqa: E731
    reported = found(asked(lambda t: waits(t, 8.0)))
    assert (reported.code, reported.title[:17], reported.value) == (
        "executor-full",
        "Trio's thread lim",
        pytest.approx(8.0),
    )
    assert codes(asked(lambda t: waits(t, 0.5))) == []


@pytest.mark.parametrize("kind", ["executor", "thread"])
def test_sessions_that_wait_for_a_full_executor_are_no_second_finding(kind: str) -> None:
    """They are if no executor that is known is full."""
    waits = lambda t: {"groups": [group(kind, 9, 9.0, t)]}  # noqa: E731
    assert codes(asked(lambda t: {**waits(t), **pool()})) == ["executor-full"]
    assert codes(asked(waits)) == ["waiting-together"]


def test_a_lock_whose_holder_waits_for_a_full_executor_is_no_second_finding() -> None:
    """The executor is the cause."""
    held = lambda t: [group("lock", 9, 4.0, t, holders=[holder(t, 4.0, waits="executor")])]  # noqa: E731
    assert codes(asked(lambda t: {"groups": held(t), **pool()})) == ["executor-full"]
    assert codes(asked(lambda t: {"groups": held(t)})) == ["lock-convoy"]


def test_a_convoy_names_its_holder() -> None:
    """Where that is suspended, for how long, and where the others wait."""
    reported = found(convoy(waits="timer", taken_at=Location("agents/summary.py", 30, "summarises")))
    assert reported.title == "10 sessions wait for asyncio.Lock that call-sum holds"
    assert reported.seen == (
        "call-sum waits for a timer at agents/summary.py:31 in summarises, "
        "and took what they wait for at agents/summary.py:30 in summarises; no step of the holder for up to 4.0 s; "
        "they wait at agents/restaurant.py:42 in lookup_menu, the longest for 4.0 s"
    )
    assert (reported.session_id, reported.location, reported.severity) == ("call-sum", LOCK, "critical")
    assert "call-sum most likely holds" in found(convoy(certain=False)).title
    assert found(convoy(number=4)).severity == "warning"


def test_a_lock_that_is_let_go_for_a_moment_is_still_a_convoy() -> None:
    """One answer of five may find it free; two may not."""
    shown = convoy()[2]
    for free, expected in ((1, ["lock-convoy"]), (2, [])):
        answers = [Waits(id=0, taken_at=each.taken_at) if n < free else each for n, each in enumerate(shown)]
        assert codes((*series(), answers)) == expected


def test_a_deadlock_names_its_ring() -> None:
    """The tasks that wait behind it are no convoy of their own."""
    reported = found(ring(60.0))
    assert reported.title == "2 tasks wait for each other: job-a → job-b → …"
    assert reported.seen == (
        "job-a waits at agents/restaurant.py:42 in lookup_menu "
        "for what was taken at agents/summary.py:31 in summarises; "
        "job-b waits at agents/restaurant.py:42 in lookup_menu "
        "for what was taken at agents/summary.py:31 in summarises; "
        "for 60 s"
    )
    frames, blocks, answers = ring(60.0)
    behind = [
        msgspec.structs.replace(
            answer,
            groups=[*answer.groups[1:], msgspec.structs.replace(answer.groups[0], stuck=9, sessions=9)],
        )
        for answer in answers
    ]
    assert codes((frames, blocks, behind)) == ["deadlock"]
    assert found((frames, blocks, behind)).seen.endswith("for 60 s; 10 sessions in all wait for these locks")


def test_a_task_that_waits_for_its_own_lock_is_a_deadlock() -> None:
    """A ring of one."""
    waiter = Waiter(session_id="job-1", task_name="T", since=NOW - 60.0, location=PLACE)
    mine = Holder(session_id="job-1", task_name="T", since=NOW - 60.0)
    groups = [WaitGroup(kind="lock", stuck=1, sessions=1, since=NOW - 60.0, waiters=[waiter], holders=[mine])]
    assert found(asked(lambda t: {"groups": groups})).title == "job-1 waits for a lock that it holds itself"


def test_likely_holders_make_no_deadlock() -> None:
    """A ring is reported as certain, so each of its holders must be."""
    waiter = Waiter(session_id="job-1", task_name="T", since=NOW - 60.0, location=PLACE)
    mine = Holder(session_id="job-1", task_name="T", since=NOW - 60.0, certain=False)
    groups = [WaitGroup(kind="lock", stuck=1, sessions=1, since=NOW - 60.0, waiters=[waiter], holders=[mine])]
    assert "deadlock" not in codes(asked(lambda t: {"groups": groups}))


def test_sessions_that_are_stuck_together_name_their_place() -> None:
    """With the holders of what they wait for, if these are seen."""
    reported = found(stuck("lock", 12, 40.0, shared=True, holders=[holder(SECONDS, 0.1)] * 4))
    assert reported.title == (
        "12 sessions are stuck at agents/restaurant.py:42 in lookup_menu: they wait for one and the same asyncio.Lock"
    )
    assert reported.seen == (
        "none of them took a step since, the longest for 40 s, job-0 first; "
        + "held by "
        + ", ".join(["call-sum at agents/summary.py:31 in summarises"] * 3)
    )


def test_a_pool_is_named_as_what_is_one_and_the_same() -> None:
    """Not the connection, or the thread, that each waits for; and it is said that it may have been leaked."""
    reported = found(stuck("semaphore", 12, 40.0, shared=True, what="connection of an AsyncConnectionPool"))
    assert reported.title.endswith(": they wait for connection of one and the same AsyncConnectionPool")
    assert reported.seen.endswith("it may have been taken and never given back")
    assert reported.fix.startswith("give it back on every path")


def test_the_slots_of_a_semaphore_may_have_several_holders() -> None:
    """They make a convoy if none of them steps."""
    has = lambda t, last_s: [holder(t, 9.0), holder(t, last_s, session_id="call-two")]  # noqa: E731
    shown = lambda last_s: waiting("semaphore", 9, 4.0, holders=has(SECONDS, last_s))  # noqa: E731
    reported = found(shown(6.0))
    assert reported.title == "9 sessions wait for asyncio.Semaphore that call-sum and 1 more hold"
    assert "no step of the holders for up to" in reported.seen
    assert codes(shown(0.1)) == ["waiting-together"]


def test_a_task_that_stays_ready_is_a_lost_wakeup_on_a_loop_that_does_not_show_its_sleep() -> None:
    """uvloop's. A task that is ready at two moments, and has stepped in between, is none."""

    def ready(step: bool, **fields: Any) -> Watched:
        def at(t: float) -> dict[str, Any]:
            since = NOW - SECONDS + t - 0.5 if step else NOW - 60.0
            waiter = Waiter(session_id="call-sdk", task_name="T", since=since, location=PLACE)
            groups = [WaitGroup(kind="ready", sessions=1, tasks=1, stuck=1, since=since, waiters=[waiter])]
            return {"groups": groups, "loops": [LoopActivity(name="uvloop", **fields)]}

        return asked(at)

    reported = found(ready(step=False))
    assert reported.title == "the loop does not run a task that is ready, for 5.0 s at least"
    assert reported.seen == (
        "call-sdk at agents/restaurant.py:42 in lookup_menu, in the last 5 answers of 5; the loop was free"
    )
    assert (reported.code, reported.session_id) == ("lost-wakeup", "call-sdk")
    assert codes(ready(step=True)) == []
    assert codes(ready(step=False, iterations_per_s=200.0)) == []


def test_a_uvloop_spins_if_a_file_is_always_ready() -> None:
    """It does not count its iterations; its thread takes a core beside steps, and a callback is always ready."""

    def uvloop(cpu_pct: float, pct: float = 5.0, **fields: Any) -> Watched:
        host = Host(cpu_pct=60.0, cores=4, load_1m=1.0, process_cpu_pct=cpu_pct, other_threads_pct=1.0)
        time = LoopTime(sessions_pct=pct, untagged_pct=0.0, gc_pct=0.0)
        shown = series(worker=lambda t: {"host": host, "loop_time": time, "introspection_pct": 1.0})
        return asked(lambda t: {"loops": [LoopActivity(name="uvloop", **fields)]}, shown)

    always = {"sampled": 20, "callbacks": [reader(count=20)]}
    reported = found(uvloop(97.0, **always))
    assert reported.title == "the loop spins: it takes 90 % of a core beside steps"
    assert (reported.code, reported.session_id, reported.location) == ("spinning-loop", "call-side", PLACE)
    assert codes(uvloop(55.0, **always)) == []
    assert codes(uvloop(97.0, 30.0, **always)) == []
    assert codes(uvloop(97.0, sampled=20, callbacks=[reader(count=18)])) == []
    assert codes(uvloop(97.0, callbacks=[reader(source="running", count=20)])) == []
    again = found(uvloop(97.0, callbacks=[reader(source="ready", fd=None, count=1)]))
    assert "call_later" in again.fix


def test_tasks_that_wait_for_others_of_their_sessions_are_not_stale_once_more() -> None:
    """The others are what waits."""

    def at(t: float) -> dict[str, Any]:
        (leaf,) = stale_groups[t].groups
        return {"groups": [msgspec.structs.replace(leaf, kind="own-task", what="gather"), leaf]}

    frames, _, answers = stale()
    stale_groups = dict(zip(MOMENTS, answers, strict=True))
    reported = found(asked(at, (frames, [])))
    assert reported.seen.startswith("they wait for asyncio.Queue, ws-0")
    own = asked(lambda t: {"groups": at(t)["groups"][:1]}, (frames, []))
    assert found(own).seen.startswith("they wait for tasks of their own (gather), ws-0")


def test_sessions_that_pile_up_name_their_line() -> None:
    """And how many there were, and are."""
    reported = found(stale())
    assert reported.title == ("30 sessions took no step for up to 8.0 s, all at agents/restaurant.py:42 in lookup_menu")
    assert reported.seen == (
        "they wait for asyncio.Queue, ws-0 the longest; 20 to 30 sessions in 5.0 s, and none of those that "
        "wait there went on"
    )


def test_sessions_that_go_on_are_not_stale() -> None:
    """One that was there at first is gone, or waits anew."""
    frames, blocks, answers = stale()
    assert codes((frames, blocks, answers)) == ["stale-sessions"]
    anew = msgspec.structs.replace(answers[-1].groups[0].waiters[3], since=NOW - 0.5)
    waiters = list(answers[-1].groups[0].waiters)
    waiters[3] = anew
    last = msgspec.structs.replace(answers[-1].groups[0], waiters=waiters)
    assert codes((frames, blocks, [*answers[:-1], msgspec.structs.replace(answers[-1], groups=[last])])) == []


def test_tasks_that_grow_name_where_they_are_created() -> None:
    """Those of the session, if the worker counts them; else those of nobody."""
    rows = lambda t: [row("call-ws", tasks=100 + int(20 * t), steps=int(9 * t), cpu_s=0.01 * t)]  # noqa: E731
    frames, blocks, answers = threads(20.0, kind="task", function="follow")
    reported = found((*series(sessions=rows), answers))
    assert reported.seen.endswith("; 120 were created at agents/restaurant.py:42 in lookup_menu and run follow")
    assert reported.location == PLACE
    reported = found((frames, blocks, answers))
    assert (reported.code, reported.title) == ("tasks-grow", "the tasks that run follow only grow")
    assert codes(threads(3.0, kind="task")) == []
    more = series(sessions=lambda t: [row(f"job-{n}", cpu_s=0.01 * t, steps=int(50 * t)) for n in range(10 + int(t))])
    assert codes((*more, answers)) == []


def test_threads_that_grow_name_who_starts_them() -> None:
    """And what they run."""
    reported = found(threads(60.0))
    assert reported.title == "threads only grow: 320 run Event.wait"
    assert reported.seen.startswith("20 to 320 in 5.0 s, started at agents/restaurant.py:42 in lookup_menu by call-ws")


def test_threads_that_nobody_is_seen_to_start_are_counted() -> None:
    """Those that `threading` starts, and those of more sessions, are none of them."""

    def process(rise: float, known: float = 0.0, sessions: float = 0.0) -> Watched:
        host = lambda t: Host(cpu_pct=30.0, cores=4, load_1m=1.0, process_cpu_pct=15.0, threads=40 + int(rise * t))  # noqa: E731
        rows = lambda t: [row(f"job-{n}", cpu_s=0.01 * t, steps=int(50 * t)) for n in range(10 + int(sessions * t))]  # noqa: E731
        shown = series(worker=lambda t: {"host": host(t)}, sessions=rows)
        return asked(lambda t: {"creations": [Creation(kind="thread", alive=10 + int(known * t))]}, shown)

    reported = found(process(10.0))
    assert (reported.code, reported.title) == ("threads-grow", "threads only grow: 40 to 90 in all")
    assert reported.seen.startswith("50 more in 5.0 s that `threading` has not started")
    assert codes(process(1.5)) == []
    assert codes(process(10.0, sessions=1.0)) == []
    assert codes(process(2.0, known=1.5)) == []


def test_threads_that_come_and_go_are_no_leak() -> None:
    """Neither are those that come at once."""
    frames, blocks, answers = threads(0.0)

    def alive(*numbers: int) -> Watched:
        made = [
            msgspec.structs.replace(answer, creations=[msgspec.structs.replace(answer.creations[0], alive=n)])
            for answer, n in zip(answers, numbers, strict=True)
        ]
        return frames, blocks, made

    assert codes(alive(20, 25, 30, 35, 40)) == ["threads-grow"]
    assert codes(alive(20, 60, 30, 35, 40)) == []
    assert codes(alive(20, 40, 40, 40, 40)) == []


def test_a_spinning_loop_names_its_reader() -> None:
    """The callback that is ready in all answers; it is no busy loop and no lost tagging as well."""
    spins = {
        "iterations_per_s": 30000.0,
        "steps_per_s": 500.0,
        "callbacks": [reader(), reader(source="ready", fd=None)],
    }
    reported = found(loop(**spins))
    assert reported.title == "the loop spins: 30,000 iterations a second, and nearly no steps"
    assert reported.seen == (
        "reader dials_out.<locals>.on_readable at agents/restaurant.py:42 in lookup_menu of call-side, fd 9, "
        "500 steps a second"
    )
    assert reported.session_id == "call-side"
    assert "no callback was seen" in found(loop(iterations_per_s=30000.0, steps_per_s=500.0)).seen
    busy = series(worker=loop_time(sessions_pct=5.0, other_pct=95.0, idle_pct=0.0))
    assert codes((*busy, loop(**spins)[2])) == ["spinning-loop"]


def test_a_flood_names_who_adds_the_callbacks() -> None:
    """And from which thread; it is no spinning loop as well."""
    flood = reader(source="ready", fd=None, count=900, thread="feed", function="on_tick")
    reported = found(loop(callbacks=[flood], iterations_per_s=30000.0, steps_per_s=1.0))
    assert reported.title == "on_tick floods the loop with callbacks: 900 callbacks in its queue"
    assert reported.seen.endswith(
        ", from thread feed, 900 in the queue in half of the last 5 answers, 27,000,000 a second"
    )


def test_a_wake_up_that_is_lost_names_its_callback() -> None:
    """With how long the loop slept."""
    reported = found(lost(3.0))
    assert reported.title == "the loop sleeps though a callback is ready, for up to 3.0 s"
    assert "call_soon_threadsafe" in reported.fix


def test_a_task_that_is_ready_while_the_loop_sleeps_is_reported() -> None:
    """Its future was completed by another thread."""

    def at(t: float, **fields: Any) -> dict[str, Any]:
        asleep = LoopActivity(name="asyncio", asleep_since=NOW - 9.0, ready=1)
        return {"loops": [asleep], "groups": [group("ready", 1, 3.0, t)]}

    reported = found(asked(at))
    assert reported.title == "the loop sleeps though a task is ready, for up to 9.0 s"
    assert reported.seen == "job-0 at agents/restaurant.py:42 in lookup_menu, in 5 answers of the last 5"
    assert found(asked(lambda t: {"loops": at(t)["loops"]})).seen.startswith("1 callback, ")
    assert codes(asked(lambda t: {"groups": at(t)["groups"]})) == []


# --- healthy waiting -----------------------------------------------------------------------------


def fifty(t: float) -> list[SessionRow]:
    return [row(f"job-{n}", cpu_s=3.0 + 0.01 * t, steps=15000 + int(50 * t)) for n in range(50)]


HEALTHY: dict[str, At] = {
    "each its own socket, for minutes": lambda t: {"groups": [group("socket", 50, 300.0 + t, t)]},
    "a shared shutdown event": lambda t: {"groups": [group("event", 50, 900.0 + t, t, shared=True, stuck=0)]},
    "nothing but a shared shutdown event": lambda t: {"groups": [group("event", 50, 900.0 + t, t, shared=True)]},
    "workers of one shared queue": lambda t: {
        "groups": [group("queue", 50, 60.0 + t, t, shared=True, what="asyncio.Queue, empty")]
    },
    "a semaphore of 4 with short waits": lambda t: {
        "groups": [group("semaphore", 46, 0.6, t, shared=True, holders=[holder(t, 0.05)] * 4)]
    },
    "idle chats": lambda t: {"groups": [group("queue", 50, 400.0 + t, t, what="asyncio.Queue, empty")]},
    "keepalives": lambda t: {"groups": [group("timer", 50, 1800.0 + t, t, what="sleep")]},
    "a busy executor that keeps up": lambda t: {**pool(queued=3, queued_s=0.3), "groups": [group("thread", 9, 0.4, t)]},
    "a lock that is handed around": lambda t: {
        "groups": [group("lock", 30, 0.3, t, shared=True, holders=[holder(t, 0.005)])]
    },
    "children awaited for minutes": lambda t: {"groups": [group("own-task", 50, 300.0 + t, t, stuck=0)]},
    "a loop of many packets": lambda t: {
        "loops": [LoopActivity(name="asyncio", iterations_per_s=3000.0, steps_per_s=2500.0, callbacks=[reader()])]
    },
    "a pool that grows to its size": lambda t: {
        **pool(busy=3, queued=0, max_threads=64),
        "creations": [Creation(kind="thread", function="ThreadPoolExecutor uploads", alive=10 + int(5 * t))],
    },
}


@pytest.mark.parametrize("shape", HEALTHY)
def test_healthy_waiting_is_no_finding(shape: str) -> None:
    """Of fifty sessions, alone and on a host whose cores are all in use."""
    assert codes(asked(HEALTHY[shape], series(sessions=fifty))) == []
    full = loop_time(sessions_pct=30.0, idle_pct=50.0)
    assert codes(asked(HEALTHY[shape], series(sessions=fifty, worker=full))) == []


@pytest.mark.parametrize("shape", ["workers of one shared queue", "idle chats", "each its own socket, for minutes"])
def test_sessions_that_come_and_go_are_not_stale(shape: str) -> None:
    """The number of sessions grows, and so do those that wait; some of them go on, and wait anew."""

    def at(t: float) -> dict[str, Any]:
        (shown,) = HEALTHY[shape](t)["groups"]
        waiters = [
            msgspec.structs.replace(waiter, since=NOW - SECONDS + t - 0.7 * n) for n, waiter in enumerate(shown.waiters)
        ]
        return {"groups": [msgspec.structs.replace(shown, stuck=40 + int(2 * t), waiters=waiters)]}

    more = lambda t: [row(f"job-{n}", cpu_s=0.01 * t, steps=int(50 * t)) for n in range(50 + int(2 * t))]  # noqa: E731
    assert codes(asked(at, series(sessions=more))) == []


def test_waits_while_the_loop_is_held_are_no_finding() -> None:
    """Nobody could let go of anything; neither could they on a full loop, or one that the host does not run."""
    answers = convoy()[2]
    assert codes((*series(blocks=several("sync-call", 5, 700.0)), answers)) == ["slow-session"]
    full = loop_time(sessions_pct=95.0, idle_pct=2.0)
    assert codes((*series(worker=full), answers)) == ["saturated-loop"]
    since = NOW - 4.0
    going = block(None, 0.0, seq=0, in_progress=True, started_at=since, running_since=since)
    assert codes((*series(going_on=lambda t: [going] if t > 2 else []), answers)) == ["blocked-now"]
    host = several("descheduled", 9, 4300.0)
    assert codes((*series(blocks=host), answers)) == ["host-throttled"]
