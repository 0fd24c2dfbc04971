"""The rules of a diagnosis: each just under and just over its thresholds, alone, and on anything at all."""

from __future__ import annotations

import asyncio
import functools
import math
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from watched_series import (
    NOW,
    OF_WAITS,
    PLACE,
    SECONDS,
    Edge,
    Fields,
    Series,
    block,
    codes,
    loop_time,
    row,
    series,
    several,
)

from openrtc_introspect_core import Finding, Introspector, diagnose
from openrtc_introspect_core._diagnosis.advice import ADVICE
from openrtc_introspect_core._diagnosis.cause import CAUSES, causes_of
from openrtc_introspect_core._diagnosis.finding import SEVERITIES
from openrtc_introspect_core._diagnosis.rules import RULES
from openrtc_introspect_core._introspector import parts_of
from openrtc_introspect_core.wire import (
    MAX_DELAYED,
    Block,
    CallbackGroup,
    Cgroup,
    Creation,
    Delayed,
    ExecutorInfo,
    Holder,
    Host,
    LeftBehind,
    Location,
    LoopActivity,
    LoopInfo,
    LoopTime,
    Outlived,
    SessionRow,
    Snapshot,
    ThreadCallGroup,
    Waiter,
    WaitGroup,
    Waits,
    WorkerInfo,
)

LOCK = Location("agents/restaurant.py", 7, "holds")


def one_session(**fields: Any) -> Callable[[float], list[SessionRow]]:
    """Ten sessions; job-0 has the given fields, of which a number is the increase per second."""

    def at(t: float) -> list[SessionRow]:
        shown = {
            name: 100 + int(value * t) if name in ("steps", "tasks") else value * t for name, value in fields.items()
        }
        return [row("job-0", **shown), *(row(f"job-{n}", steps=15000 + int(50 * t)) for n in range(1, 10))]

    return at


def held(ms: float, frames: int = 2, cause: str | None = None) -> Series:
    """A block that goes on at the end, and was seen in so many snapshots."""
    since = NOW - ms / 1000.0
    going = block(cause, 0.0, seq=0, in_progress=True, started_at=since, running_since=since)
    return series(going_on=lambda t: [going] if t > SECONDS - frames else [])


def leaking(mb_a_second: float, **fields: Any) -> Series:
    return series(worker=lambda t: {"rss_mb": 200.0 + mb_a_second * t, **fields})


def grouped(used_mb: float, *, kills: float = 0.0, limit_mb: float = 512.0) -> Fields:
    """A worker in a cgroup with a limit, in which so many processes are killed a second."""
    group = lambda t: Cgroup(memory_limit_mb=limit_mb, memory_used_mb=used_mb, oom_kills=4 + int(kills * t))  # noqa: E731
    return lambda t: {"cgroup": group(t)}


def hosted(available_mb: float) -> Fields:
    """A worker on a machine with 8 GB."""
    return lambda t: {"host": Host(memory_mb=8192.0, memory_available_mb=available_mb)}


def left(*, ago: float = 60.0, **fields: Any) -> Series:
    """A session that ended so many seconds before the last snapshot, with 20 MB of its own by default."""
    shown = LeftBehind(
        **{"session_id": "job-7", "agent_name": "dental", "heap_mb": 20.0, "ended_at": NOW - ago, **fields}
    )
    return series(worker=lambda t: {"left_behind": [shown]})


def ages(oldest_h: float, others_h: float, number: int = 9) -> Series:
    rest = [row(f"job-{n}", duration_s=3600.0 * others_h, steps=n) for n in range(1, number + 1)]
    return series(sessions=lambda t: [row("job-0", duration_s=3600.0 * oldest_h), *rest])


def locked(ms: float, number: int = 1, **fields: Any) -> Series:
    """So many blocks, for a lock that job-2 holds while it is suspended."""
    shown = {"session_id": "job-2", "agent_name": "dental", "task_name": "Task-9", "since": 990.0, "taken_at": LOCK}
    holder = Holder(**{**shown, **fields})
    return series(blocks=several("sync-call", number, ms, waiting_on="threading.Lock", holder=holder))


def alike(share: float, *, bursts: int = 3, busy: float = 95.0, number: int = 3) -> Series:
    """Some sessions that all need the same share of the loop, which is full."""
    rows = lambda t: [row(f"job-{n}", cpu_s=share / 100 * t, steps=int(50 * t)) for n in range(number)]  # noqa: E731
    times = loop_time(sessions_pct=share * number, idle_pct=100.0 - busy)
    return series(sessions=rows, worker=times, blocks=several("burst", bursts, 700.0))


def outlived(pct: float, ago: float = 14.0) -> Series:
    """A session that ended so long ago, and whose task has a share of the loop."""
    one = Outlived(
        session_id="call-first", agent_name="desk", ended_at=NOW - ago, tasks=1, cpu_pct=pct, coroutine="shared_worker"
    )
    return series(worker=lambda t: {"outlived": [one]})


def collected(number: int, **fields: Any) -> Series:
    """Blocks by collections, each of which another session asked for."""
    asked = [block("explicit-gc", 90.0, n, session_id=f"short-{n}", location=PLACE, **fields) for n in range(number)]
    return series(blocks=asked)


def gil(number: int, ms: float, threads: float) -> Series:
    shown = {"host": Host(other_threads_pct=threads)}
    return series(blocks=several("gil-contention", number, ms), worker=lambda t: shown)


LIMITED = "run delay 90 ms; cgroup throttled 80 ms"

EDGES = [
    Edge(
        "host-throttled",
        "blocks",
        *(series(blocks=several("descheduled", n, 8000.0)) for n in (4, 5)),
        otherwise=("long-block",),
    ),
    Edge(
        "host-throttled",
        "time",
        *(series(blocks=several("descheduled", 10, ms)) for ms in (2990.0, 3010.0)),
        otherwise=("long-block",),
    ),
    Edge(
        "host-throttled", "limited", *(series(blocks=several("descheduled", n, 900.0, detail=LIMITED)) for n in (2, 3))
    ),
    Edge("blocked-now", "time", held(490.0), held(510.0)),
    Edge("blocked-now", "snapshots", held(800.0, frames=1), held(800.0, frames=2)),
    Edge("gil-contention", "blocks", gil(2, 700.0, 50.0), gil(3, 700.0, 50.0)),
    Edge("gil-contention", "time", gil(4, 290.0, 50.0), gil(4, 310.0, 50.0)),
    Edge("gil-contention", "other threads", gil(4, 500.0, 4.9), gil(4, 500.0, 5.1)),
    Edge("slow-session", "blocks", *(series(blocks=several("sync-call", n)) for n in (2, 3))),
    Edge("slow-session", "one", *(series(blocks=[block("cpu", ms)]) for ms in (990.0, 1010.0))),
    Edge("slow-session", "two", *(series(blocks=several("cpu", 2, ms)) for ms in (149.0, 151.0))),
    Edge("slow-session", "place", series(blocks=several(None, 9, location=None)), series(blocks=several(None, 9))),
    Edge("slow-session", "cause", *(series(blocks=several(cause, 2, 900.0)) for cause in (None, "callback"))),
    *(
        Edge("long-block", f"one, {cause}", *(series(blocks=[block(cause, ms)]) for ms in (990.0, 1010.0)))
        for cause in (None, *sorted(CAUSES.keys() - set(causes_of("slow-session"))))
    ),
    Edge("long-block", "place", *(series(blocks=[block(None, ms, location=None)]) for ms in (990.0, 1010.0))),
    Edge("bursts", "blocks", *(series(blocks=several("burst", n, 700.0)) for n in (2, 3))),
    Edge("bursts", "time", *(series(blocks=several("burst", 4, ms)) for ms in (290.0, 310.0))),
    Edge("lock-held-across-await", "length", locked(490.0), locked(510.0)),
    Edge("lock-held-across-await", "blocks", locked(90.0), locked(90.0, 2)),
    Edge("lock-held-across-await", "suspended", locked(900.0, since=None), locked(900.0)),
    Edge("loop-full", "busy", alike(28.0, busy=84.0), alike(28.0, busy=86.0), otherwise=("bursts",)),
    Edge("loop-full", "bursts", alike(31.0, bursts=2, busy=84.0), alike(31.0, bursts=3)),
    Edge("loop-full", "several", alike(45.0, number=1), alike(45.0, number=2), otherwise=("saturated-loop", "bursts")),
    Edge("explicit-gc", "blocks", collected(2), collected(3)),
    Edge("first-caller-pays", "share", outlived(4.9), outlived(5.1)),
    Edge("first-caller-pays", "seconds", outlived(77.0, ago=4.9), outlived(77.0, ago=5.1)),
    Edge("signal-handler", "blocks", *(series(blocks=several("signal", n)) for n in (2, 3))),
    Edge("gc-pauses", "blocks", *(series(blocks=several("gc", n)) for n in (2, 3))),
    Edge("gc-pauses", "time", *(series(worker=loop_time(gc_pct=pct)) for pct in (4.9, 5.1))),
    Edge("many-small-steps", "steps", *(series(sessions=one_session(steps=n, cpu_s=0.2)) for n in (1990, 2010))),
    Edge("many-small-steps", "size", *(series(sessions=one_session(steps=2000, cpu_s=s)) for s in (0.41, 0.39))),
    Edge("many-small-steps", "cost", *(series(sessions=one_session(steps=9000, cpu_s=s)) for s in (0.07, 0.09))),
    Edge("hot-session", "share", *(series(sessions=one_session(steps=100, cpu_s=s)) for s in (0.49, 0.51))),
    Edge("untagged-work", "share", *(series(worker=loop_time(untagged_pct=pct)) for pct in (24.0, 26.0))),
    Edge(
        "untagged-work",
        "sessions",
        *(series(worker=loop_time(untagged_pct=30.0, sessions_pct=pct)) for pct in (31.0, 29.0)),
    ),
    Edge("saturated-loop", "busy", *(series(worker=loop_time(sessions_pct=80.0, idle_pct=i)) for i in (15.5, 14.5))),
    Edge(
        "saturated-loop",
        "busy without idle time",
        *(series(worker=loop_time(sessions_pct=s, idle_pct=None, other_pct=None)) for s in (83.0, 84.0)),
    ),
    Edge("memory-limit", "share", *(series(worker=lambda t, mb=mb: {"memory_limit_mb": mb}) for mb in (251.0, 249.0))),
    Edge("memory-limit", "share of the cgroup's", *(series(worker=grouped(used)) for used in (409.0, 410.0))),
    Edge("memory-limit", "share of the machine's", *(series(worker=hosted(left)) for left in (410.0, 409.0))),
    Edge("memory-limit", "kills", *(series(worker=grouped(100.0, kills=n)) for n in (0.1, 0.3))),
    Edge("memory-trend", "rise", leaking(0.38, memory_limit_mb=280.0), leaking(0.42, memory_limit_mb=280.0)),
    Edge(
        "memory-trend",
        "minutes to the limit",
        leaking(1.0, memory_limit_mb=2010.0),
        leaking(1.0, memory_limit_mb=2000.0),
    ),
    Edge("memory-trend", "minutes to twice as much", leaking(1.0, rss_mb=1.0), leaking(1.0)),
    Edge("left-behind", "held for certain", left(at_least_mb=4.9), left(at_least_mb=5.1)),
    Edge("left-behind", "by what it made", left(heap_mb=4.9, referenced=True), left(heap_mb=5.1, referenced=True)),
    Edge("left-behind", "plain data, or given back", left(referenced=False), left(referenced=True)),
    Edge("left-behind", "seconds", left(at_least_mb=9.0, ago=29.0), left(at_least_mb=9.0, ago=31.0)),
    Edge("tasks-grow", "rise", *(series(sessions=one_session(steps=50, tasks=n)) for n in (1.9, 2.0))),
    Edge("old-session", "hours", ages(1.9, 0.1), ages(2.1, 0.1)),
    Edge("old-session", "against the others", ages(9.9, 1.0), ages(10.1, 1.0)),
    Edge("old-session", "others", ages(30.0, 0.1, number=2), ages(30.0, 0.1, number=3)),
]


@pytest.mark.parametrize("edge", EDGES, ids=lambda edge: f"{edge.code}, {edge.threshold}")
def test_a_rule_speaks_over_its_threshold_and_not_under_it(edge: Edge) -> None:
    """And nothing else does."""
    assert codes(edge.under) == list(edge.otherwise)
    assert codes(edge.over) == [edge.code]


def test_sessions_without_a_step_while_others_are_busy_are_not_seen() -> None:
    """Just under and over a fifth of the loop; one step is enough to be seen."""

    def still(other: float, steps: float = 0.0) -> Series:
        rows = lambda t: [row("job-0", steps=int(steps * t)), row("job-1", steps=7)]  # noqa: E731
        return series(sessions=rows, worker=loop_time(other_pct=other - 1.0))

    assert codes(still(19.0)) == []
    assert codes(still(21.0)) == ["tagging-lost"]
    assert codes(still(21.0, steps=0.2)) == []


def test_every_code_and_every_advice_has_a_test_here() -> None:
    """What is not tested on both sides of its threshold is not a rule."""
    tested = {edge.code for edge in EDGES} | {"tagging-lost"}
    tested |= OF_WAITS  # test_waits.py has them
    assert tested == {key.partition("/")[0] for key in ADVICE}
    assert len(RULES) == len(tested)


def test_a_healthy_worker_has_nothing() -> None:
    """Nor has one of which nothing is known."""
    assert codes(series()) == []
    assert diagnose([]) == []
    assert diagnose([], several("sync-call", 9)) == []
    assert diagnose([Snapshot(worker=WorkerInfo(name="w", pid=1))]) == []


@pytest.mark.parametrize("frames", [1, 2])
def test_one_or_two_snapshots_say_nothing_of_rates(frames: int) -> None:
    """However bad they look."""
    shown, _ = series(worker=loop_time(idle_pct=0.0, sessions_pct=99.0, gc_pct=50.0), sessions=one_session(cpu_s=0.99))
    assert diagnose(shown[-frames:]) == []


def test_the_worst_comes_first() -> None:
    """By severity; within one, in the order of the rules."""
    shown = series(
        blocks=several("sync-call", 3) + several("gc", 3),
        worker=lambda t: {"memory_limit_mb": 201.0},
        sessions=lambda t: ages(30.0, 0.1)[0][0].sessions,
    )
    found = diagnose(*shown)
    assert [each.code for each in found] == ["memory-limit", "slow-session", "gc-pauses", "old-session"]
    ranks = [SEVERITIES.index(each.severity) for each in found]
    assert ranks == sorted(ranks)


@pytest.mark.parametrize(
    ("fields", "title", "seen", "severity"),
    [
        (
            {"at_least_mb": 18.0, "referenced": False},
            "job-7 still holds 18 MB, 60 s after its end",
            "20 MB at its end, 18 MB of it not freed since, in plain data",
            "warning",
        ),
        (
            {"tasks": 2, "referenced": True},
            "job-7 may still hold 20 MB, 60 s after its end",
            "20 MB at its end, 0 MB of it not freed since, 2 unfinished tasks",
            "note",
        ),
        (
            {"at_least_mb": 18.0, "referenced": True},
            "job-7 still holds 18 MB, 60 s after its end",
            "20 MB at its end, 18 MB of it not freed since, a task, callback or timer that it made is still referenced",
            "warning",
        ),
    ],
)
def test_what_an_ended_session_holds_is_told_as_far_as_it_is_known(
    fields: dict[str, Any], title: str, seen: str, severity: str
) -> None:
    """For certain, or perhaps, and by what."""
    (found,) = diagnose(*left(**fields))
    assert (found.title, found.seen, found.severity, found.session_id) == (title, seen, severity, "job-7")


def test_a_slow_session_is_told_by_line_and_cause() -> None:
    """With whom it kept waiting, how often and for how long."""
    waiting = [Delayed(f"job-{n}", 90.0) for n in range(7)]
    blocks = [*several("sync-call", 3, delayed=waiting), block("sync-call", 320.0, 3, session_id="job-2")]
    (found,) = diagnose(*series(blocks=blocks))
    assert found.title == "lookup_menu blocks the loop: 4 times in 60 s, 620 ms in all"
    assert found.seen == (
        "sync-call at agents/restaurant.py:42 in lookup_menu, job-2 (restaurant) and 1 more, the longest 320 ms, "
        "up to 7 sessions waited"
    )
    assert found.threshold == "3 blocks of the same code, 2 of 300 ms together, or 1 of 1.0 s"
    assert "to_thread" in found.fix
    assert (found.session_id, found.location) == ("job-2", PLACE)
    assert (found.runbook, found.section) == ("loop-blocked", "A synchronous call")
    assert (found.value, found.limit, found.unit) == (4.0, 3.0, "blocks")


def test_a_block_that_names_as_many_as_it_can_may_have_delayed_more() -> None:
    """The count is then no upper bound."""
    waiting = [Delayed(f"job-{n}", 90.0) for n in range(MAX_DELAYED)]
    (found,) = diagnose(*series(blocks=several("sync-call", 3, delayed=waiting)))
    assert found.seen.endswith(", 100 sessions or more waited")


@pytest.mark.parametrize("cause", [*causes_of("slow-session"), None, "a later version's"])
def test_the_fix_is_the_cause_s(cause: str | None) -> None:
    """An unknown cause has a fix of its own."""
    (found,) = diagnose(*series(blocks=several(cause, 3, detail="pandas")))
    key = f"slow-session/{cause}"
    assert found.fix == ADVICE[key if key in ADVICE else "slow-session/unknown"].fix


def test_imports_are_one_finding() -> None:
    """Wherever they stand: they all belong to the start."""
    places = [Location(f"agents/{n}.py", n, "entrypoint") for n in range(1, 5)]
    blocks = [block("import", 80.0, n, location=place, detail=f"m{n}") for n, place in enumerate(places)]
    (found,) = diagnose(*series(blocks=blocks))
    assert found.title == "importing m0, m1, m2 and 1 more blocks the loop: 4 times in 60 s, 320 ms in all"


def test_lines_of_one_function_are_one_finding_and_two_functions_two() -> None:
    """A loop that computes is found at any of its lines."""
    lines = [block("cpu", 100.0, n, location=Location("a.py", n, "score")) for n in range(4)]
    assert len(diagnose(*series(blocks=lines))) == 1
    assert len(diagnose(*series(blocks=lines + several("sync-call", 3)))) == 2


def test_the_line_is_one_of_the_cause_that_decides_the_fix_and_other_calls_of_the_function_are_named() -> None:
    """Who mends the line by the fix has mended that cause, and knows of the others."""
    blocks = [
        block(cause, ms, n, location=Location("a.py", line, "serve"))
        for n, (cause, line, ms) in enumerate(
            [("sync-call", 6, 200.0)] * 4 + [("native", 8, 300.0)] * 2 + [("cpu", 9, 400.0)]
        )
    ]
    (found,) = diagnose(*series(blocks=blocks))
    assert found.fix == ADVICE["slow-session/sync-call"].fix
    assert found.location == Location("a.py", 6, "serve")
    assert found.seen.startswith("sync-call at a.py:6 in serve, ")
    assert found.seen.endswith(", the longest 400 ms, also native at a.py:8")


def test_a_block_now_has_the_cause_that_it_has_by_now() -> None:
    """And the fix of that cause."""
    (found,) = diagnose(*held(900.0, cause="native"))
    assert "lookup_menu (native), 9 sessions waiting" in found.seen
    assert found.fix == ADVICE["slow-session/native"].fix


def test_a_long_block_of_no_session_is_a_finding_with_its_line() -> None:
    """And with what its detail says."""
    long = block("gil-contention", 14000.0, location=PLACE, detail="one that waited kept the GIL")
    (found,) = diagnose(series()[0], [long])
    assert (found.code, found.session_id, found.location) == ("long-block", None, PLACE)
    assert found.title == "the loop was held for 14.0 s"
    assert "gil-contention at agents/restaurant.py:42 in lookup_menu" in found.seen
    assert found.seen.endswith("one that waited kept the GIL")


def test_a_long_block_that_a_finding_reports_is_no_second_one() -> None:
    """Neither of the same cause, nor at the same place."""
    assert codes(series(blocks=several("burst", 3, 2000.0))) == ["bursts"]
    assert codes(series(blocks=[block("cpu", 2000.0), block(None, 1500.0, 1)])) == ["slow-session"]


def test_who_holds_a_lock_across_an_await_is_told() -> None:
    """The holder is at fault, and the session that waits is not."""
    (found,) = diagnose(*locked(900.0))
    assert found.title == "job-2 (dental) is suspended while it holds threading.Lock, and the loop waits for that"
    assert found.seen == (
        "job-1 (restaurant) waited at agents/restaurant.py:42 in lookup_menu, once, the longest 900 ms; the holder is "
        "suspended, in the `with` at agents/restaurant.py:7 in holds"
    )
    assert (found.session_id, found.location, found.severity) == ("job-2", LOCK, "warning")


def test_a_worker_that_the_host_does_not_run_now_is_told_as_such() -> None:
    """No session has the blame; and it is one finding, if the host does so all the time."""
    going = msgspec.structs.replace(
        held(900.0)[0][-1].blocks_in_progress[0], session_id=None, agent_name=None, cause="descheduled"
    )
    frames = [msgspec.structs.replace(frame, blocks_in_progress=[going]) for frame in held(900.0)[0]]
    (found,) = diagnose(frames)
    assert (found.code, found.title) == ("blocked-now", "the host has not run the loop for 900 ms")
    assert (found.runbook, found.section) == ("host-throttled", "The host does not run the worker")
    assert codes((frames, several("descheduled", 7, 4300.0))) == ["host-throttled"]


def test_a_lock_held_across_an_await_is_told_while_the_loop_waits() -> None:
    """And it is no block of the session that waits."""
    frames, _ = held(900.0)
    going = frames[-1].blocks_in_progress[0]
    holder = Holder(session_id="job-2", task_name="Task-9", since=990.0)
    going = msgspec.structs.replace(going, waiting_on="threading.Lock", holder=holder)
    frames = [msgspec.structs.replace(frame, blocks_in_progress=[going]) for frame in frames]
    (found,) = diagnose(frames)
    assert (found.code, found.severity, found.session_id) == ("lock-held-across-await", "critical", "job-2")


def test_what_a_block_waits_for_is_told() -> None:
    """And who has it, if that is a thread."""
    frames, _ = held(900.0)
    going = frames[-1].blocks_in_progress[0]
    holder = Holder(thread="sync-runner", location=LOCK, certain=False)
    going = msgspec.structs.replace(going, waiting_on="a future of another loop", holder=holder)
    frames = [msgspec.structs.replace(frame, blocks_in_progress=[going]) for frame in frames]
    (found,) = diagnose(frames)
    assert found.code == "blocked-now"
    assert found.seen.endswith(
        "it waits for a future of another loop, "
        "most likely held by thread sync-runner at agents/restaurant.py:7 in holds"
    )


def test_a_loop_that_is_too_small_is_told_by_what_it_carries() -> None:
    """The bursts are the effect."""
    (found,) = diagnose(*alike(33.0, busy=99.0))
    assert found.title == "the loop is full: busy 99 % of the time, 3 sessions need 33 % of it each"
    assert found.seen.startswith("one loop carries 2 of them; 3 bursts in the last 60 s")


def test_who_asks_for_collections_is_told() -> None:
    """They are no pauses of the collector's own; those are told as well if they are many."""
    (found,) = diagnose(*collected(4))
    assert found.title == (
        "gc.collect() is called at agents/restaurant.py:42 in lookup_menu by 4 sessions: 4 times in 60 s, 360 ms in all"
    )
    frames, blocks = collected(4)
    own = [block("gc", 90.0, n + 10) for n in range(3)]
    assert [each.code for each in diagnose(frames, [*blocks, *own])] == ["explicit-gc", "gc-pauses"]
    busy, _ = series(worker=loop_time(gc_pct=20.0))
    assert [each.code for each in diagnose(busy, blocks)] == ["explicit-gc"]


def test_a_task_that_outlived_its_session_is_told() -> None:
    """It is no untagged work as well."""
    frames, _ = outlived(77.0)
    frames = [
        msgspec.structs.replace(
            frame, worker=msgspec.structs.replace(frame.worker, loop_time=LoopTime(untagged_pct=77.0, sessions_pct=1.0))
        )
        for frame in frames
    ]
    (found,) = diagnose(frames)
    assert found.title == "call-first ended 14 s ago, and shared_worker of it has 77 % of the loop"
    assert "no_session()" in found.fix


def test_old_blocks_do_not_count() -> None:
    """Nor those before the last minute, unless it was watched for longer."""
    old = [block("sync-call", 900.0, n + 90) for n in range(9)]
    assert codes(series(blocks=old)) == []
    assert codes(series(blocks=old, seconds=120)) == ["slow-session"]


def test_a_block_now_that_was_there_before_is_one_finding() -> None:
    """With the cause that it had, and its fix."""
    (found,) = diagnose(held(900.0)[0], several("sync-call", 5))
    assert found.code == "blocked-now"
    assert found.seen.endswith("9 sessions waiting; 5 blocks there before, sync-call")
    assert found.fix == ADVICE["slow-session/sync-call"].fix


def test_a_session_that_blocks_is_not_hot_as_well() -> None:
    """Its blocks are reported; the rest of its time is little."""
    blocks = [block("sync-call", 700.0, n, session_id="job-0") for n in range(5)]
    assert codes(series(sessions=one_session(steps=100, cpu_s=0.72), blocks=blocks)) == ["slow-session"]


def test_a_loop_that_is_full_of_blocks_is_no_full_loop() -> None:
    """And neither is one that is full of one session, of small steps, or of untagged work."""
    full = loop_time(sessions_pct=95.0, idle_pct=2.0)
    assert codes(series(worker=full, blocks=several("sync-call", 5, 600.0))) == ["slow-session"]
    assert codes(series(worker=full, sessions=one_session(cpu_s=0.8, steps=100))) == ["hot-session"]
    assert codes(series(worker=full, sessions=one_session(cpu_s=0.7, steps=30000))) == ["many-small-steps"]
    untagged = loop_time(sessions_pct=5.0, untagged_pct=90.0, idle_pct=2.0)
    assert codes(series(worker=untagged)) == ["untagged-work"]


def test_on_a_host_that_does_not_let_it_run_short_steps_look_long() -> None:
    """Blocks that take less time than the throttling are not reported; those that take more are."""
    host = several("descheduled", 7, 4300.0)
    full = loop_time(sessions_pct=95.0, idle_pct=2.0)
    unlucky = series(blocks=host + several("cpu", 3), worker=full, sessions=one_session(cpu_s=0.8, steps=100))
    assert codes(unlucky) == ["host-throttled"]
    assert codes(series(blocks=host + several("cpu", 7, 4400.0))) == ["host-throttled", "slow-session"]


def test_on_a_host_that_is_full_wall_time_is_no_evidence() -> None:
    """The worker's own processor time counts: what exceeds its threshold by that as well is reported."""

    def on_host(own: float, times: Fields, **fields: Any) -> list[str]:
        host = Host(cpu_pct=97.0, process_cpu_pct=own)
        return codes(series(worker=lambda t: {**times(t), "host": host}, **fields))

    full = loop_time(sessions_pct=95.0, idle_pct=2.0)
    for own, shown in ((84.0, []), (86.0, ["saturated-loop"])):
        assert on_host(own, full) == shown
    for own, shown in ((19.0, []), (21.0, ["hot-session"])):  # five times as much as the others
        assert on_host(own, loop_time(), sessions=one_session(cpu_s=0.9, steps=100)) == shown
    two = lambda t: [row("job-0", cpu_s=0.6 * t, steps=int(50 * t)), row("job-1", cpu_s=0.15 * t, steps=int(50 * t))]  # noqa: E731
    for own, shown in ((49.0, []), (51.0, ["hot-session"])):
        assert on_host(own, loop_time(), sessions=two) == shown
    for own, shown in ((24.0, []), (26.0, ["untagged-work"])):
        assert on_host(own, loop_time(untagged_pct=60.0)) == shown


def test_of_several_loops_the_full_one_is_told() -> None:
    """The worker's own figures are their mean."""
    full, idle = LoopTime(sessions_pct=90.0, idle_pct=5.0), LoopTime(sessions_pct=5.0, idle_pct=94.0)
    loops = [LoopInfo(name="asyncio-1", loop_time=idle), LoopInfo(name="asyncio-2", loop_time=full)]
    rows = lambda t: [row(f"job-{n}", steps=int(50 * t), loop=f"asyncio-{1 + n % 2}") for n in range(4)]  # noqa: E731
    (found,) = diagnose(*series(worker=lambda t: {"loops": loops}, sessions=rows))
    assert found.title == "loop asyncio-2 is full: 2 sessions, busy 95 % of the time"
    on_it = [block("cpu", 600.0, n, loop="asyncio-2") for n in range(5)]
    assert codes(series(worker=lambda t: {"loops": loops}, sessions=rows, blocks=on_it)) == ["slow-session"]


def test_sessions_that_have_failed_do_not_count() -> None:
    """They are shown for a while, and run no more."""
    failed = row("job-9", status="errored", duration_s=99 * 3600.0, cpu_s=0.0, tasks=0)
    rows = lambda t: [failed, *(row(f"job-{n}", steps=int(50 * t)) for n in range(4))]  # noqa: E731
    assert codes(series(sessions=rows)) == []
    assert codes(series(sessions=lambda t: [failed], worker=loop_time(other_pct=30.0))) == []


def test_processes_have_no_loop_to_judge() -> None:
    """A session that is a process may use a whole core, and its tasks are not reported."""
    rows = one_session(cpu_s=0.99, steps=100)
    process = {"isolation": "process", "loop_time": LoopTime()}
    assert codes(series(sessions=rows, worker=lambda t: process)) == []
    unknown = [row("job-0", cpu_s=None, steps=None, tasks=None)]
    assert codes(series(sessions=lambda t: unknown, worker=lambda t: process)) == []


def test_whose_memory_grows_is_told_where_it_is_measured() -> None:
    """The session that has half of the growth; otherwise none."""

    def grows(own: float | None) -> Finding:
        rows = lambda t: [row("job-0", steps=int(9 * t), heap_growth_mb_per_min=own), row("job-1", steps=int(9 * t))]  # noqa: E731
        (found,) = diagnose(*series(sessions=rows, worker=lambda t: {"rss_mb": 200.0 + t}))
        return found

    assert grows(31.0).session_id == "job-0"
    assert grows(31.0).seen.endswith("; job-0's own grows by 31 MB a minute")
    assert grows(29.0).session_id is grows(None).session_id is None


def test_whose_call_in_a_thread_keeps_the_gil_is_told() -> None:
    """Where a block says so."""
    shown, blocks = gil(3, 700.0, 50.0)
    assert diagnose(shown, blocks)[0].session_id is None
    whose = [*blocks, block("gil-contention", 90.0, 9, session_id="job-1", agent_name="dental")]
    (found,) = diagnose(shown, whose)
    assert found.session_id == "job-1"
    assert found.seen.endswith("1 block by calls in threads, the longest of job-1 (dental)")


def test_memory_that_jumps_or_comes_with_sessions_is_no_trend() -> None:
    """Nor what goes up and down within a minute."""
    assert codes(series(worker=lambda t: {"rss_mb": 200.0 + (50.0 if t > 3 else 0.0)})) == []
    more = lambda t: [row(f"job-{n}", cpu_s=0.1, steps=int(50 * t)) for n in range(5 + int(t))]  # noqa: E731
    assert codes(series(worker=lambda t: {"rss_mb": 200.0 + 9 * t}, sessions=more)) == []
    assert codes(leaking(9.0, rss_trend_mb_per_min=30.0)) == []
    assert codes(leaking(9.0, rss_trend_mb_per_min=300.0)) == ["memory-trend"]


def test_tasks_that_come_at_once_or_go_again_are_no_leak() -> None:
    """Nor those of a session that is just starting."""

    def tasks(*numbers: int, age: float = 300.0) -> Series:
        return series(sessions=lambda t: [row("job-0", steps=int(9 * t), tasks=numbers[int(t)], duration_s=age + t)])

    assert codes(tasks(0, 5, 10, 15, 20, 25)) == ["tasks-grow"]
    assert codes(tasks(0, 25, 25, 25, 25, 25)) == []
    assert codes(tasks(0, 10, 20, 19, 21, 25)) == []
    assert codes(tasks(0, 5, 10, 15, 20, 25, age=1.0)) == []


def test_what_was_before_a_restart_is_left_out() -> None:
    """Another epoch is another worker."""
    before, _ = series(sessions=one_session(cpu_s=0.9), seconds=5)
    after, _ = series(worker=lambda t: {"epoch": "second"}, seconds=1)
    assert diagnose(before) != []
    assert diagnose([*before, *after]) == []


def test_a_full_history_is_of_a_shorter_time() -> None:
    """256 blocks of three seconds are a lot; the rate is over what is kept."""
    blocks = [Block(seq=1000 + n, started_at=NOW - 3.0 + 0.01 * n, duration_ms=5.0, cause="burst") for n in range(256)]
    (found,) = diagnose(*series(blocks=blocks))
    assert (found.code, found.severity) == ("bursts", "critical")
    assert found.value == pytest.approx(100 * 1.28 / 3.0, rel=0.01)


@pytest.mark.parametrize(("calls_ours", "codes"), [(True, []), (False, ["tagging-lost"])])
def test_a_replaced_create_task_is_found_where_it_loses_tasks(
    run_virtually: Callable[..., Any], calls_ours: bool, codes: list[str]
) -> None:
    """By what a real introspector notes. One that calls ours does no harm."""

    async def frames() -> None:
        while True:
            await asyncio.sleep(0.01)

    async def call(introspector: Introspector) -> None:
        with introspector.session("job-1", agent_name="dental"):
            await asyncio.create_task(frames())

    async def main() -> list[Finding]:
        loop: Any = asyncio.get_running_loop()
        async with Introspector(socket_path=False, clock=loop.clock) as introspector:
            ours: Any = loop.create_task
            theirs = ours if calls_ours else functools.partial(asyncio.Task, loop=loop)
            loop.create_task = lambda coro, **options: theirs(coro, **options)
            parts_of(introspector).tick(parts_of(introspector).shared.clock())
            task = asyncio.create_task(call(introspector))
            shown = []
            for n in range(3):
                await asyncio.sleep(0.05)
                shown.append(msgspec.structs.replace(introspector.snapshot(), taken_at=float(n)))
            task.cancel()
            del loop.create_task
            return diagnose(shown)

    assert [found.code for found in run_virtually(main())] == codes


def test_where_create_task_was_replaced_less_is_evidence() -> None:
    """A fifth of the loop that is not charged to sessions, or one session without a step; but not during a block."""
    note = "the loop's create_task was replaced while introspection runs"

    def noted(other: float, steps: float = 20.0, going_on: Any = lambda t: []) -> Series:
        times = loop_time(other_pct=other - 1.0)
        return series(
            worker=lambda t: {"notes": [note], **times(t)},
            sessions=lambda t: [row("job-0", steps=int(steps * t)), row("job-1", steps=int(50 * t))],
            going_on=going_on,
        )

    assert codes(noted(19.0)) == []
    assert codes(noted(21.0)) == ["tagging-lost"]
    assert codes(noted(5.0, steps=0.0)) == ["tagging-lost"]
    going = block(None, 0.0, seq=0, in_progress=True, running_since=NOW - 0.1)
    assert codes(noted(5.0, steps=0.0, going_on=lambda t: [going])) == []


# --- anything at all -----------------------------------------------------------------------------

_amount = st.floats(min_value=0.0, max_value=1e18)
_maybe = st.none() | _amount
_text = st.text(max_size=8)
_number = st.integers(min_value=0, max_value=2**62)
_place = st.builds(Location, file=_text, line=_number, function=_text)
_id = st.none() | st.sampled_from(["job-0", "job-1"])
_name = st.sampled_from(["Task-1", "Task-2"])
_holder = st.builds(
    Holder,
    session_id=_id,
    task_name=st.none() | _name,
    thread=st.none() | _text,
    since=_maybe,
    location=st.none() | _place,
    taken_at=st.none() | _place,
    waits=st.none() | _text,
    certain=st.booleans(),
)
_block = st.builds(
    Block,
    seq=_number,
    session_id=st.none() | st.sampled_from(["job-0", "job-1"]),
    agent_name=st.none() | _text,
    task_name=st.none() | _text,
    started_at=_amount,
    duration_ms=_amount,
    in_progress=st.booleans(),
    running_since=_maybe,
    cause=st.none() | st.sampled_from([*CAUSES, "new"]),
    detail=st.none() | _text | st.just(LIMITED),
    location=st.none() | _place,
    waiting_on=st.none() | _text,
    holder=st.none() | _holder,
    delayed=st.none() | st.lists(st.builds(Delayed, session_id=_text, delayed_ms=_amount), max_size=2),
)
_row = st.builds(
    SessionRow,
    session_id=st.sampled_from(["job-0", "job-1", "job-2"]),
    agent_name=_text,
    started_at=st.sampled_from([0.0, 1.0]),
    duration_s=_amount,
    cpu_s=_maybe,
    steps=st.none() | _number,
    tasks=st.none() | _number,
    status=st.sampled_from(["active", "errored"]),
    loop=st.none() | st.just("a"),
    heap_growth_mb_per_min=st.none() | st.floats(min_value=-1e18, max_value=1e18),
)
_shares = st.builds(
    LoopTime, **dict.fromkeys(("sessions_pct", "untagged_pct", "gc_pct", "other_pct", "idle_pct"), _maybe)
)
_worker = st.builds(
    WorkerInfo,
    name=_text,
    pid=_number,
    epoch=st.sampled_from(["", "a"]),
    uptime_s=_amount,
    rss_mb=_amount,
    rss_trend_mb_per_min=st.none() | st.floats(min_value=-1e18, max_value=1e18),
    memory_limit_mb=_amount,
    loop_time=_shares,
    loops=st.lists(st.builds(LoopInfo, name=st.sampled_from("ab"), loop_time=_shares), max_size=2),
    isolation=st.sampled_from(["coroutine", "process"]),
    lag_p99_ms=_maybe,
    host=st.builds(
        Host,
        cpu_pct=_maybe,
        load_1m=_maybe,
        other_threads_pct=_maybe,
        memory_mb=_maybe,
        memory_available_mb=_maybe,
    ),
    cgroup=st.none()
    | st.builds(
        Cgroup,
        **dict.fromkeys(("cpu_limit", "cpu_throttled_pct", "memory_limit_mb", "memory_used_mb", "anon_mb"), _maybe),
        memory_limit_file=st.none() | _text,
        oom_kills=st.none() | _number,
    ),
    started_at=st.sampled_from([0.0, 1.0]),
    outlived=st.lists(
        st.builds(
            Outlived, session_id=st.sampled_from(["job-0", "job-1"]), agent_name=_text, ended_at=_amount, cpu_pct=_maybe
        ),
        max_size=2,
    ),
    notes=st.lists(_text | st.just("the loop's create_task was replaced"), max_size=2),
)
_snapshot = st.builds(
    Snapshot,
    taken_at=_amount,
    worker=_worker,
    sessions=st.lists(_row, max_size=4),
    blocks_in_progress=st.lists(_block, max_size=2),
)


_count = st.integers(min_value=0, max_value=10**6)
_line = st.none() | st.just(PLACE)
_kind = st.sampled_from(["lock", "semaphore", "queue", "executor", "event", "socket", "new"])
_waiter = st.builds(Waiter, session_id=_id, task_name=_name, since=_maybe, location=_line)
_group = st.builds(
    WaitGroup,
    kind=_kind,
    what=st.sampled_from(["", "asyncio.Queue, full", "LifoQueue"]),
    shared=st.booleans(),
    location=_line,
    sessions=_count,
    stuck=_count,
    since=_maybe,
    waiters=st.lists(_waiter, max_size=3),
    holders=st.lists(_holder, max_size=2),
)
_calls = st.builds(ThreadCallGroup, session_id=_id, function=_text, running=_count, queued=_count, location=_line)
_executor = st.builds(
    ExecutorInfo,
    name=st.sampled_from(["default", "x"]),
    max_threads=st.none() | st.just(4),
    busy=st.integers(3, 4),
    queued=_count,
    longest_queued_s=_maybe,
    calls=st.lists(_calls, max_size=2),
)
_callbacks = st.builds(
    CallbackGroup,
    source=st.sampled_from(["reader", "ready", "lost", "new"]),
    function=st.sampled_from(["", "f"]),
    count=_count,
    location=_line,
    fd=st.none() | st.just(7),
)
_activity = st.builds(
    LoopActivity,
    name=st.sampled_from(["", "a"]),
    iterations_per_s=_maybe,
    steps_per_s=_maybe,
    asleep_since=_maybe,
    callbacks=st.lists(_callbacks, max_size=3),
)
_creation = st.builds(
    Creation,
    kind=st.sampled_from(["task", "thread"]),
    function=st.sampled_from(["", "f", "_worker"]),
    alive=_count,
    location=_line,
    session_id=_id,
)
_answer = st.builds(
    Waits,
    id=st.just(0),
    taken_at=_amount,
    groups=st.lists(_group, max_size=3),
    executors=st.lists(_executor, max_size=2),
    loops=st.lists(_activity, max_size=2),
    creations=st.lists(_creation, max_size=3),
)


@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(_snapshot, max_size=5), st.lists(_block, max_size=6), st.lists(_answer, max_size=6))
def test_anything_a_worker_can_send_is_diagnosed(
    snapshots: list[Snapshot], blocks: list[Block], waits: list[Waits]
) -> None:
    """Without an error, and each finding is whole: its texts are there, its figure is over its limit."""
    for found in diagnose(snapshots, blocks, waits):
        texts = (found.title, found.seen, found.threshold, found.fix, found.runbook, found.section)
        assert all(texts)
        assert not math.isnan(found.value)
        assert found.severity in SEVERITIES


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_a_healthy_series_never_has_a_finding(data: st.DataObject) -> None:
    """Loads that vary, hiccups of any cause, sessions that come and go, memory that breathes."""
    draw = data.draw
    share = st.floats(min_value=0.0, max_value=8.0)
    number = draw(st.integers(1, 50))
    came, left = draw(st.integers(0, 9)), draw(st.integers(1, 9))
    used = [draw(share) / number * 5 for _ in range(number)]
    causes = [*CAUSES, None]
    hiccups = [
        block(draw(st.sampled_from(causes)), draw(st.floats(50.0, 145.0)), n) for n in range(draw(st.integers(0, 2)))
    ]

    def sessions(t: float) -> list[SessionRow]:
        live = range(1 if t >= left else 0, number)
        rows = [
            row(f"job-{n}", cpu_s=3.0 + used[n] / 100 * t, steps=15000 + int(60 * t), tasks=draw(st.integers(1, 6)))
            for n in live
        ]
        age = t - came
        return [*rows, row("job-new", duration_s=age, cpu_s=0.02 * age, steps=int(60 * age))] if age >= 0 else rows

    def worker(t: float) -> dict[str, Any]:
        busy = draw(st.floats(0.0, 40.0))
        time = LoopTime(sessions_pct=busy, untagged_pct=draw(share), gc_pct=draw(st.floats(0, 3)), other_pct=5.0,
                        idle_pct=draw(st.none() | st.just(92.0 - busy)))  # fmt: skip
        return {"rss_mb": 200.0 + draw(st.floats(0.0, 1.5)), "loop_time": time, "memory_limit_mb": 400.0}

    assert codes(series(sessions=sessions, worker=worker, blocks=hiccups)) == []
