"""`openrtc diagnose`: what it prints of scripted workers to the letter, its exit codes, and a real worker's fault."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from typer.testing import CliRunner

from openrtc_introspect_core import Finding
from openrtc_introspect_core.wire import Block, Holder, Location, Snapshot, Waiter, WaitGroup, Waits, WorkerSocket
from openrtc_introspect_testing import FakeWorker
from openrtc_top._cli.app import app
from openrtc_top._client import observe
from openrtc_top._client.observe import interval_s, observe_workers, waits_interval_s
from openrtc_top._model.observation import Observation
from openrtc_top._view.findings import findings_line, report
from openrtc_top._view.screen import Screen
from openrtc_top._view.text import to_text

MakeSnapshot = Callable[..., Snapshot]
MakeBlock = Callable[..., Block]
OpenRTC = Callable[..., subprocess.CompletedProcess[str]]

SCREENS = Path(__file__).parents[1] / "screens"


def finding(**fields: Any) -> Finding:
    defaults: dict[str, Any] = {
        "code": "slow-session",
        "severity": "critical",
        "title": "lookup_menu blocks the loop: 9 times in 58 s, 2.9 s in all",
        "seen": "sync-call at agents/restaurant.py:42 in lookup_menu, job-c1d550 (restaurant), the longest 320 ms, "
        "up to 37 sessions waited",
        "threshold": "3 blocks of the same code, 2 of 300 ms together, or 1 of 1.0 s",
        "fix": "use an async client, or move the call to a thread: `await asyncio.to_thread(...)`",
        "runbook": "loop-blocked",
        "section": "A synchronous call",
        "value": 9.0,
        "limit": 3.0,
        "unit": "blocks",
        "session_id": "job-c1d550",
        "location": Location("agents/restaurant.py", 42, "lookup_menu"),
        **fields,
    }
    return Finding(**defaults)


GROWS = finding(
    code="memory-trend",
    severity="warning",
    title="memory grows by 24 MB a minute",
    seen="rss 1900 to 1902 MB in 5.0 s, with no more sessions; at the limit of 4096 MB in 90 min",
    threshold="2 MB while watched",
    fix="find what is kept",
    runbook="memory-pressure",
    section="Memory grows",
)


@pytest.fixture
def observed(make_snapshot: MakeSnapshot) -> Observation:
    frames = [make_snapshot(taken_at=1000.0 + t, sessions=52) for t in range(6)]
    return Observation(WorkerSocket(Path("x.sock"), "voice-a", 1), frames)


def same(name: str, text: str) -> None:
    path = SCREENS / f"{name}.txt"
    if os.environ.get("OPENRTC_WRITE_SCREENS"):
        path.write_text(text + "\n", encoding="utf-8")
    assert text + "\n" == path.read_text(encoding="utf-8")


def text_of(lines: list[Any], width: int) -> str:
    return to_text(Screen(lines, width), width, len(lines))


@pytest.mark.parametrize("width", [60, 120])
@pytest.mark.parametrize("found", [[], [finding(), GROWS]], ids=["clean", "found"])
def test_the_report(observed: Observation, width: int, found: list[Finding]) -> None:
    """Each finding with its evidence, wrapped to the terminal's width."""
    lines = report(observed, found, width)
    assert all(line.width <= width for line in lines)
    same(f"diagnose-{'found' if found else 'clean'}-{width}", text_of(lines, width))


@pytest.mark.parametrize("width", [60, 80, 120])
def test_the_line_of_the_live_view(width: int) -> None:
    """The worst one; the runbook, and how many more, as far as there is room. None: no line."""
    (line,) = findings_line([finding(), GROWS], width)
    assert line.width <= width
    same(f"findings-line-{width}", text_of([line], width))
    assert findings_line([], width) == []


def test_time_that_the_host_took_is_shown(observed: Observation, make_past: MakeBlock) -> None:
    """Of the observation: two blocks of 0.5 s, of which one lies half before it, are 0.75 s of 5."""
    fields = {"cause": "descheduled", "duration_ms": 500.0, "session_id": None}
    observed.blocks += [make_past(1, started_at=999.75, **fields), make_past(2, started_at=1002.0, **fields)]
    assert observed.run_delay_pct == pytest.approx(15.0)
    first, *_, last = text_of(report(observed, [], None), 200).splitlines()
    assert first.endswith("the host kept it from running for 15 % of that · nothing found")
    assert last.endswith("The host is crowded, which alone is no finding: openrtc runbook host-throttled")


def test_how_often_it_asks() -> None:
    """Ten times or more, once a second at least; sixty times if it is long."""
    assert [interval_s(seconds) for seconds in (2.0, 5.0, 30.0, 600.0)] == [0.2, 0.5, 1.0, 10.0]


def test_how_often_it_asks_what_sessions_wait_for() -> None:
    """Five times, each two seconds if it is longer, and sixty times if it is long."""
    assert [waits_interval_s(seconds) for seconds in (2.0, 5.0, 30.0, 600.0)] == [0.5, 1.25, 2.0, 10.0]


def stuck(kind: str, what: str, number: int, waited_s: float, line: int, at: float = 1005.0) -> WaitGroup:
    """So many sessions at one line that take no step."""
    place = Location("agents/restaurant.py", line, "entrypoint")
    waiter = Waiter(session_id="job-c1d550", task_name="Task-7", since=at - waited_s, location=place)
    return WaitGroup(
        kind=kind,
        what=what,
        location=place,
        sessions=number,
        tasks=number,
        stuck=number,
        since=at - waited_s,
        waiters=[waiter],
    )


PLACES = [stuck("queue", "asyncio.Queue, empty", 20, 190.0, 18), stuck("event", "asyncio.Event", 1, 8.0, 40)]


@pytest.mark.parametrize("width", [60, 120])
def test_where_sessions_wait_is_told_if_nothing_is_found(observed: Observation, width: int) -> None:
    """Nobody is sent away while sessions wait at one place all the time."""
    observed.waits += [Waits(id=0, taken_at=1001.0 + 2 * n, groups=PLACES) for n in range(3)]
    lines = report(observed, [], width)
    assert all(line.width <= width for line in lines)
    same(f"diagnose-waiting-{width}", text_of(lines, width))
    assert "waiting" not in text_of(report(observed, [finding()], width), width)


def test_a_place_counts_if_sessions_wait_there_all_the_time(observed: Observation) -> None:
    """Those with the most sessions first; a moment's wait, and tasks of sessions that go on, do not count."""
    short = stuck("timer", "sleep", 50, 0.1, 7)
    steps = stuck("event", "shutdown", 0, 900.0, 9)
    observed.waits += [Waits(id=0, taken_at=1001.0 + 2 * n, groups=[short, steps, *PLACES]) for n in range(3)]
    assert observed.waiting == PLACES
    observed.waits[1] = Waits(id=0, taken_at=1003.0, groups=PLACES[1:])
    assert observed.waiting == PLACES[1:]
    del observed.waits[1:]
    assert observed.waiting == []


def test_who_holds_what_one_waits_for_comes_first(observed: Observation) -> None:
    """One stuck call says more than twenty that are idle."""
    held = replace(PLACES[1], kind="lock", what="asyncio.Lock", shared=True, holders=[Holder(session_id="job-1")])
    observed.waits += [Waits(id=0, taken_at=1001.0 + 2 * n, groups=[PLACES[0], held]) for n in range(3)]
    assert observed.waiting == [held, PLACES[0]]
    text = " ".join(text_of(report(observed, [], 120), 120).split())
    assert "1 session for one and the same asyncio.Lock at agents/restaurant.py:40 in entrypoint, the longest" in text
    assert "job-c1d550, held by job-1" in text


def test_tasks_that_wait_for_others_of_their_session_are_no_place(observed: Observation) -> None:
    """Unless nothing is known of the others."""
    own = replace(PLACES[1], kind="own-task", what="gather")
    observed.waits += [Waits(id=0, taken_at=1001.0 + 2 * n, groups=[*PLACES, own]) for n in range(3)]
    assert observed.waiting == PLACES
    inside = replace(PLACES[1], location=Location("asyncio/locks.py", 213, "Event.wait"))
    observed.waits[:] = [replace(each, groups=[own, inside]) for each in observed.waits]
    assert observed.waiting == [own]
    observed.waits[:] = [replace(each, groups=[own]) for each in observed.waits]
    assert observed.waiting == [own]
    assert "1 session for tasks of their own (gather)" in text_of(report(observed, [], 120), 120)


def test_an_interrupt_ends_it_early(make_snapshot: MakeSnapshot) -> None:
    """It does not wait until the seconds are over."""
    with FakeWorker([make_snapshot()]) as worker:
        assert worker.path is not None
        began = time.monotonic()
        interrupt = threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT))
        interrupt.start()
        with pytest.raises(KeyboardInterrupt):
            observe_workers([WorkerSocket(worker.path, "fake", None)], 30.0)
        assert time.monotonic() - began < 10.0
        interrupt.join()


# --- the command ---------------------------------------------------------------------------------


def diagnosed(*arguments: str) -> Any:
    return CliRunner().invoke(app, ["diagnose", "--seconds", "2", *arguments])


@pytest.fixture
def watched_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker is watched when it is asked for first; then the command is given what was seen of it."""
    seen: dict[Path, Observation] = {}

    def watch(workers: Sequence[WorkerSocket], seconds: float) -> list[Observation]:
        new = [worker for worker in workers if worker.path not in seen]
        seen.update((found.worker.path, found) for found in observe_workers(new, seconds))
        return [seen[worker.path] for worker in workers]

    monkeypatch.setattr(observe, "observe_workers", watch)


def blocks(make_past: MakeBlock) -> list[Block]:
    return [make_past(n, started_at=1003.0 - n, duration_ms=120.0) for n in range(1, 4)]


@pytest.mark.slow
def test_found_and_clean(make_snapshot: MakeSnapshot, make_past: MakeBlock, tmp_path: Path, watched_once: None) -> None:
    """Several workers at once: each has its report, exit code 3 if anything was found, else 0.

    One that does not answer is reported on stderr; it is exit code 1 only if nothing was found.
    """
    frames = [make_snapshot(taken_at=1000.0 + t / 5, blocks=(), rss_trend_mb_per_min=0.0) for t in range(11)]
    slow = [make_snapshot(taken_at=1000.0 + t / 5, name="voice-b") for t in range(11)]
    history = blocks(make_past)
    slow = [_with_blocks(snapshot, 3) for snapshot in slow]
    with FakeWorker(frames) as good, FakeWorker(slow, blocks=history) as bad:
        both = diagnosed("--socket", str(good.path), "--socket", str(bad.path), "--socket", str(tmp_path / "x.sock"))
        as_json = diagnosed("--json", "--socket", str(bad.path))
        clean = diagnosed("--socket", str(good.path))
        partly = diagnosed("--socket", str(good.path), "--socket", str(tmp_path / "x.sock"))
    assert (both.exit_code, as_json.exit_code, clean.exit_code, partly.exit_code) == (3, 3, 0, 1)
    assert both.stderr.startswith("error: no worker answers at ")
    lines = both.stdout.splitlines()
    assert lines[0].startswith("voice-a · pid 41213 · 0 sessions · watched for ")
    assert lines[0].endswith("nothing found")
    assert lines[3:5] == ["", lines[4]]
    assert lines[5].startswith(" WARNING slow-session: lookup_menu blocks the loop: 3 times in 60 s, 360 ms in all")
    assert lines[9] == '    runbook    openrtc runbook loop-blocked, "A synchronous call"'
    document = json.loads(as_json.stdout)
    assert {key: document[key] for key in ("worker", "pid", "snapshots")} == {
        "worker": "voice-b",
        "pid": 41213,
        "snapshots": 11,
    }
    (found,) = document["findings"]
    assert (found["code"], found["session_id"], found["location"]["line"]) == ("slow-session", "job-c1d550", 42)
    assert "the pipeline" in clean.stdout


def _with_blocks(snapshot: Snapshot, number: int) -> Snapshot:
    return replace(snapshot, worker=replace(snapshot.worker, blocks=number))


@pytest.mark.slow
def test_what_sessions_wait_for_is_asked(make_snapshot: MakeSnapshot, watched_once: None) -> None:
    """It makes findings; and without one, it is in the text and the JSON."""
    frames = [make_snapshot(taken_at=1000.0 + t / 5, blocks=(), rss_trend_mb_per_min=0.0) for t in range(11)]
    holder = Holder(session_id="job-9f00e1", task_name="Task-2", since=1001.0, location=PLACES[0].location)
    lock = stuck("lock", "asyncio.Lock", 9, 8.0, 18)
    lock = replace(lock, holders=[holder])
    with (
        FakeWorker(frames, waits=Waits(id=0, taken_at=1005.0, groups=[lock])) as convoy,
        FakeWorker(frames, waits=Waits(id=0, taken_at=1005.0, groups=PLACES)) as idle,
    ):
        found = diagnosed("--socket", str(convoy.path))
        clean = diagnosed("--json", "--socket", str(idle.path))
    assert found.exit_code == 3
    assert "lock-convoy: 9 sessions wait for asyncio.Lock that job-9f00e1 holds" in found.stdout
    assert 'openrtc runbook nothing-moves, "Many wait for one lock"' in found.stdout
    assert clean.exit_code == 0
    first, second = json.loads(clean.stdout)["waiting"]
    assert (first["kind"], first["sessions"], first["longest_s"]) == ("queue", 20, 190.0)
    assert (second["what"], second["first"], second["location"]["line"]) == ("asyncio.Event", "job-c1d550", 40)


@pytest.mark.slow
def test_hostile_texts(make_snapshot: MakeSnapshot, make_past: MakeBlock, watched_once: None) -> None:
    """Nothing that a terminal would obey comes through."""
    evil = "\x1b[2J\x9b\u202e\n"
    fields = dict.fromkeys(("session_id", "agent_name", "tenant", "task_name", "cause", "detail"), evil)
    history = [make_past(n, started_at=1003.0 - n, location=Location(evil, 1, evil), **fields) for n in range(1, 5)]
    frames = [_with_blocks(make_snapshot(name=evil, taken_at=1000.0 + t / 5), 4) for t in range(11)]
    with FakeWorker(frames, blocks=history) as worker:
        for option in ([], ["--json"]):
            result = diagnosed("--socket", str(worker.path), *option)
            assert result.exit_code == 3
            assert all(line.isprintable() for line in result.stdout.split("\n"))


@pytest.mark.parametrize("given", ["1.9", "3601", "x", "nan"])
def test_how_long_is_checked(given: str) -> None:
    """One line, and exit code 2."""
    result = CliRunner().invoke(app, ["diagnose", "--seconds", given])
    assert result.exit_code == 2
    assert f"{given!r}; accepted are 2 to 3600 seconds" in result.stderr


def test_no_worker(runtime_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exit code 1, and how to get one."""
    monkeypatch.setattr("openrtc_top._client.targets.find", lambda *_, **__: [])
    result = diagnosed()
    assert (result.exit_code, result.stdout) == (1, "")
    assert "openrtc demo" in result.stderr


def test_the_help_names_the_exit_codes() -> None:
    """A script needs them."""
    text = " ".join(CliRunner().invoke(app, ["diagnose", "--help"], env={"COLUMNS": "200"}).stdout.split())
    assert "Exit codes: 0 nothing found, 1 no worker (or one does not answer, and nothing was found), 2" in text
    assert "3 something was found" in text


@pytest.mark.slow
def test_a_long_watch_forgets_no_block(make_snapshot: MakeSnapshot, make_past: MakeBlock) -> None:
    """They are asked for before a worker's history is full; once each."""
    history = [make_past(n, started_at=1000.0) for n in range(1, 301)]
    numbers = [0, 50, 120, 250, 300]
    frames = [_with_blocks(make_snapshot(taken_at=1000.0 + t), number) for t, number in enumerate(numbers)]
    with FakeWorker(frames, blocks=history) as worker:
        assert worker.path is not None
        (observed,) = observe_workers([WorkerSocket(worker.path, "fake", None)], 1.0)
    assert [block.seq for block in observed.blocks] == list(range(1, 301))
    assert observed.lost is None


@pytest.mark.slow
def test_a_real_worker_that_blocks(openrtc: OpenRTC, runtime_dir: Path, start_blocking: Callable[..., Any]) -> None:
    """From the process to the line of its code."""
    block = start_blocking("diagnosed")
    for _ in range(3):
        block(0.12)
    result = openrtc("diagnose", "--seconds", "2", "--worker", "diagnosed")
    assert result.returncode == 3, result.stdout + result.stderr
    assert "slow-session: lookup_menu blocks the loop: 3 times in " in result.stdout
    assert result.stderr == ""
