"""The stall sampler sees what keeps the GIL while the watchdog waits for it."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import json
import operator
import os
import struct
import subprocess
import sys
import tempfile
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from openrtc_introspect_core._accounting.account import Account
from openrtc_introspect_core._accounting.ledger import Ledger
from openrtc_introspect_core._blocks.stall_thread import watch
from openrtc_introspect_core._blocks.watchdog import WATCHDOG_THREAD
from openrtc_introspect_core._loops.iterations import Iterations
from openrtc_introspect_core._native import native
from openrtc_introspect_core._os.stacks import Places
from openrtc_introspect_core._os.thread_usage import ThreadUsage
from openrtc_introspect_core._sessions.session import Session

pytestmark = pytest.mark.skipif(native is None, reason="the meter in C is not installed")

LIMIT_S = 0.05
SLOT = 16384
OFFSET = 4096
KEEPING = ctypes.PyDLL(None)
"""Calls of its functions keep the GIL."""


def keep_gil(seconds: float) -> None:
    KEEPING.usleep(int(1e6 * seconds))


class Bench:
    """A sampler of this thread, without a loop, and a thread that ticks as the watchdog does."""

    def __init__(self) -> None:
        self.ledger = Ledger(ContextVar("binding"), time.perf_counter, LIMIT_S)
        self.iterations = Iterations(self.ledger, lambda: True, lambda since, until: None, lambda problem, error: None)
        self.usage = ThreadUsage(time.perf_counter, threading.get_ident(), threading.get_native_id())
        self.sampler = native.SamplerFields(self.ledger, self.iterations, self.ledger.parked, self.usage, 0.001)
        self.sampler.thread_id = threading.get_ident()
        self.sampler.native_id = threading.get_native_id()
        self.sampler.awake = True
        self.log = tempfile.TemporaryFile()  # noqa: SIM115
        self.box = tempfile.TemporaryFile()  # noqa: SIM115
        self._ended = False
        self._ticks = 0
        self.alone: set[int] = set()
        """The threads that alone had the GIL during one of the watchdog's waits for it."""
        self._watchdog = threading.Thread(target=self._tick)

    def watch(self, log: int | None = None) -> None:
        watch(
            self.sampler,
            LIMIT_S,
            Places(),
            (pytest.Function.runtest.__code__,),
            stall_log=self.log.fileno() if log is None else log,
            box=(self.box.fileno(), OFFSET, SLOT),
        )

    def start(self) -> None:
        self.watch()
        self._watchdog.start()
        until(lambda: self._ticks > 1)

    def _tick(self) -> None:
        while not self._ended:
            native.pause_watchdog(0.005, None)
            idents = threading.main_thread().ident or 0, threading.get_ident()
            self.alone.update(ident for ident in idents if native.had_gil_alone(ident, False))
            self._ticks += 1
        native.watchdog_resting()

    def end(self) -> None:
        self._ended = True
        if self._watchdog.ident is not None:
            self._watchdog.join(60.0)
        if self.sampler is not None:
            self.sampler.stop_watching()
        self.usage.close()
        self.log.close()
        self.box.close()

    def keep_gil_until(self, condition: Callable[[], bool]) -> None:
        """Keep the GIL, for so long that a busy machine lets the stall sampler look; again, if it does not."""
        deadline = time.monotonic() + 60.0
        keep_gil(0.3)
        while not condition():
            assert time.monotonic() < deadline
            keep_gil(0.3)

    def record_when(
        self, right: Callable[[dict[str, Any]], bool], wait: Callable[[Callable[[], bool]], None] | None = None
    ) -> dict[str, Any]:
        """Return the first record that is right. By default the GIL is kept until there is one.

        Not read again: a moment later another one may be there.
        """
        records: list[dict[str, Any]] = []

        def written() -> bool:
            records.append(self.record())
            return right(records[-1])

        (wait or self.keep_gil_until)(written)
        return records[-1]

    @contextlib.contextmanager
    def step(self, session: Session | None = None) -> Iterator[float]:
        """Hold the loop as a step of the session does. Yield when it began."""
        since = time.perf_counter()
        self.ledger.holder_since = since
        self.ledger.holder = Account(session)
        yield since
        self.ledger.holder = None

    def stacks(self, since: float) -> list[tuple[float, float, int, tuple[tuple[str, int, str], ...]]]:
        return native.samples_without_gil(self.sampler, since, time.perf_counter())

    def logged(self) -> str:
        return os.pread(self.log.fileno(), 1 << 20, 0).decode()

    def record(self) -> dict[str, Any]:
        """Return the latest record in the box, as a reader finds it."""
        found = []
        for slot in (0, 1):
            raw = os.pread(self.box.fileno(), SLOT, OFFSET + slot * SLOT)
            number, size, checksum = struct.unpack_from("<QII", raw.ljust(16, b"\0"))
            payload = raw[16 : 16 + size]
            if number and zlib.crc32(payload) == checksum:
                found.append((number, json.loads(payload)))
        return max(found, key=lambda each: each[0], default=(0, {}))[1]


@pytest.fixture
def bench() -> Iterator[Bench]:
    WATCHDOG_THREAD.end_if_idle(60.0)
    until(lambda: threads() == 0)  # that of the test before may not have ended
    bench = Bench()
    yield bench
    bench.end()


def threads() -> int:
    """Return how many stall samplers run; 0 where threads cannot be listed."""
    names = []
    for task in Path("/proc/self/task").glob("*/comm"):
        with contextlib.suppress(OSError):
            names.append(task.read_text())
    return names.count("openrtc-stalls\n")


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60.0
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


SESSION = Session("job-1", "restaurant", {"tenant": "acme"}, 0.0)


# --- what is seen ------------------------------------------------------------------------------------------------


def test_a_call_that_keeps_the_gil_is_seen(bench: Bench) -> None:
    """Its stack, and that the loop's own thread kept the GIL."""
    bench.start()
    with bench.step() as since:
        bench.keep_gil_until(lambda: len(bench.stacks(since)) > 0)
        stacks = bench.stacks(since)
    assert {keeper for _, _, keeper, _ in stacks} == {1}
    assert [function for _, _, function in stacks[0][3]][:3] == [
        "keep_gil",
        "Bench.keep_gil_until",
        "test_a_call_that_keeps_the_gil_is_seen",
    ]
    first, last = stacks[0][:2]
    assert since <= first < last


def test_calls_of_the_loop_itself_are_left_out(bench: Bench) -> None:
    """The stack ends at the code that runs tasks."""
    bench.start()
    with bench.step() as since:
        bench.keep_gil_until(lambda: len(bench.stacks(since)) > 0)
        _, _, _, places = bench.stacks(since)[0]
    assert not any(function == "Function.runtest" for _, _, function in places)


def test_two_calls_are_two_stacks(bench: Bench) -> None:
    """Each with its time."""
    bench.start()
    stacks: list[Any] = []
    deadline = time.monotonic() + 60.0
    while len(stacks) != 2:  # the sampler may not get a processor in time
        assert time.monotonic() < deadline, stacks
        with bench.step() as since:
            keep_gil(0.3)
            time.sleep(0.03)
            keep_gil(0.3)
            stacks = bench.stacks(since)
    assert stacks[0][3][1][1] + 2 == stacks[1][3][1][1]
    assert stacks[0][1] <= stacks[1][0]


def test_code_that_leaves_the_gil_is_not_sampled(bench: Bench) -> None:
    """The watchdog samples it.

    A thread that has the GIL and is not run by the system for some milliseconds has kept the GIL, and is sampled.
    """
    bench.start()
    for _ in range(20):
        with bench.step() as since:
            time.sleep(0.2)
            longest, last = 0.0, time.perf_counter()
            deadline = last + 0.1
            while last < deadline:
                now = time.perf_counter()
                longest, last = max(longest, now - last), now
            stacks = bench.stacks(since)
        if stacks == []:
            return
        assert longest > 0.003, stacks
    pytest.skip("the system does not run this thread for a tenth of a second")


def test_the_switch_interval_of_the_host_counts(bench: Bench) -> None:
    """Python code may keep the GIL for so long, and is not sampled then."""
    before = sys.getswitchinterval()
    bench.start()
    try:
        sys.setswitchinterval(0.15)
        with bench.step() as since:
            deadline = time.perf_counter() + 0.3
            while time.perf_counter() < deadline:
                pass
            assert bench.stacks(since) == []
            keep_gil(0.6)
            assert len(bench.stacks(since)) == 1
    finally:
        sys.setswitchinterval(before)


def test_another_thread_that_keeps_the_gil(bench: Bench) -> None:
    """The loop's stack is seen, and that it was not the loop's thread."""
    bench.start()
    other = threading.Thread(target=keep_gil, args=[0.5])
    with bench.step() as since:
        other.start()
        time.sleep(0.01)
        other.join()
        stacks = bench.stacks(since)
    assert {keeper for _, _, keeper, _ in stacks} == {2}


def test_another_thread_s_victim_is_not_named(bench: Bench) -> None:
    """The box and the log say no session, as the detector does."""
    bench.start()
    records: list[dict[str, Any]] = []

    def keep() -> None:
        records.append(bench.record_when(lambda record: record.get("keeper") == 2 and bool(bench.logged())))

    other = threading.Thread(target=keep)
    with bench.step(SESSION):
        other.start()
        other.join()
    assert "session_id" not in records[0]
    assert bench.logged().startswith("[blocked-now] no session has been holding the loop for ")


def test_the_gil_is_kept_while_the_loop_waits(bench: Bench) -> None:
    """The worker is mute all the same: the record has the stack of the thread that keeps the GIL."""
    bench.start()

    def keep() -> None:
        deadline = time.monotonic() + 60.0
        while not bench.logged():
            assert time.monotonic() < deadline
            keep_gil(1.5)

    other = threading.Thread(target=keep)
    other.start()
    other.join()
    assert bench.logged().startswith("[blocked-now] no session has been holding the loop for ")
    assert "in keep_gil (gil-contention: another thread keeps the GIL)" in bench.logged()


def run_delay_s() -> float:
    """Return the seconds for which threads of this process were ready and the system did not run them."""
    return sum(int(path.read_text().split()[1]) for path in Path("/proc/self/task").glob("*/schedstat")) / 1e9


def test_threads_of_python_code_are_not_told_as_c_code(bench: Bench) -> None:
    """The watchdog gets the GIL, if later: it has the word.

    A thread that has the GIL and is not run by the system for some milliseconds has kept the GIL.
    """
    bench.start()
    before_log = ""
    for _ in range(5):
        over = threading.Event()

        def spin(over: threading.Event = over) -> None:
            while not over.is_set():
                sum(range(100))

        others = [threading.Thread(target=spin) for _ in range(3)]
        with bench.step(SESSION):
            for each in others:
                each.start()
            before = run_delay_s()
            deadline = time.perf_counter() + 1.3
            while time.perf_counter() < deadline:
                pass
            delayed_s = run_delay_s() - before
        over.set()
        for each in others:
            each.join()
        logged = bench.logged()
        if logged == before_log:
            return
        assert delayed_s > 0.005, logged
        before_log = logged
    pytest.skip("the system does not run these threads for more than a second")


def test_a_short_stall_of_a_step_that_is_over_is_forgotten(bench: Bench) -> None:
    """The next one's stacks are its own."""
    bench.start()
    with bench.step():
        keep_gil(0.2)
    with bench.step() as since:
        keep_gil(0.2)
        stacks = bench.stacks(since)
    assert all(first >= since for first, _, _, _ in stacks)
    assert len(stacks) == 1


def test_a_sleeping_sampler_is_not_looked_at(bench: Bench) -> None:
    """Nothing is due."""
    bench.start()
    bench.sampler.awake = False
    with bench.step() as since:
        keep_gil(0.2)
        assert bench.stacks(since) == []


def test_who_alone_had_the_gil_is_known_whether_it_was_looked_at_or_not(bench: Bench) -> None:
    """By the count of its changes of hands: for the wait that is over, and for the one under way."""
    bench.start()
    bench.keep_gil_until(lambda: bool(bench.alone))
    # One after the other in C: in between, Python code would give the GIL to the watchdog.
    calls = [partial(KEEPING.usleep, 100_000), partial(native.had_gil_alone, threading.get_ident(), True)]
    until(lambda: list(map(operator.call, calls))[1] is True)
    assert bench.alone == {threading.get_ident()}


# --- the black box -----------------------------------------------------------------------------------------------


def test_the_box_tells_while_it_lasts(bench: Bench) -> None:
    """Another process would read session, line and duration."""
    bench.start()
    with bench.step(SESSION) as since:
        earliest = time.time() - (time.perf_counter() - since)
        latest = -(time.perf_counter() - since) + time.time()
        record = bench.record_when(lambda record: (record.get("keeper"), record.get("state")) == (1, "held"))
    assert (record["session_id"], record["agent_name"], record["tenant"]) == ("job-1", "restaurant", "acme")
    assert earliest - 0.05 <= record["since"] <= latest + 0.05
    assert record["stack"][-1]["function"] == "keep_gil"
    assert record["stack"][-1]["file"] == __file__
    assert "run_delay" not in record


NEIGHBOUR = "import time\nuntil = time.monotonic() + 90\nwhile time.monotonic() < until: sum(range(100_000))"


@pytest.mark.skipif(sys.platform != "linux", reason="the priority of a thread, and what is known of it, are Linux's")
def test_a_loop_that_the_host_does_not_run_is_nobody_s_fault() -> None:
    """The box says for how long it was ready, though the kernel has not counted that yet, and the log no session.

    The loop's thread shares a core with a process of higher priority, and has the GIL while it waits.
    """
    if os.getpriority(os.PRIO_PROCESS, 0) > 0:
        pytest.skip("no process can go first that has the low priority of this one")
    core = {max(os.sched_getaffinity(0))}
    records: list[dict[str, Any]] = []
    logged: list[str] = []

    def hold(bench: Bench, until: float) -> None:
        with bench.step(SESSION):
            while time.monotonic() < until and not logged:
                sum(range(10_000))
                record = bench.record()
                records.extend([record] if "run_delay" in record and not records else [])
                logged.extend(line for line in bench.logged().splitlines() if "descheduled" in line)

    def run() -> None:
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 19)
        os.sched_setaffinity(0, core)
        bench = Bench()
        try:
            bench.start()
            deadline = time.monotonic() + 60.0
            while not logged and time.monotonic() < deadline:
                hold(bench, time.monotonic() + 1.5)
        finally:
            bench.end()

    neighbour = subprocess.Popen([sys.executable, "-c", NEIGHBOUR])
    try:
        os.sched_setaffinity(neighbour.pid, core)
        thread = threading.Thread(target=run)
        thread.start()
        thread.join()
    finally:
        neighbour.kill()
        neighbour.wait()
    record = records[0]
    assert (record["state"], record["session_id"]) == ("held", "job-1")
    assert 0.5 * (record["at"] - record["since"]) <= record["run_delay"] <= record["at"] - record["since"]
    assert logged[0].startswith("[blocked-now] no session has been holding the loop for ")


def test_the_box_tells_of_what_leaves_the_gil_too(bench: Bench) -> None:
    """Who keeps the GIL is not known then: nobody does."""
    bench.start()
    with bench.step(SESSION):
        time.sleep(0.2)
        record = bench.record_when(lambda record: record.get("state") == "held", until)
    assert record["keeper"] == 0
    assert record["session_id"] == "job-1"


def test_the_box_tells_when_it_is_over(bench: Bench) -> None:
    """The loop is free again."""
    bench.start()
    with bench.step():
        keep_gil(0.2)
    assert "since" not in bench.record_when(lambda record: record.get("state") == "free", until)


def test_the_box_tells_that_the_loop_waits(bench: Bench) -> None:
    """Once the watchdog rests."""
    bench.start()
    bench._ended = True
    bench._watchdog.join(60.0)
    bench.watch()
    until(lambda: bench.record().get("state") == "quiet")


def test_an_untagged_step_names_no_session(bench: Bench) -> None:
    """A member that is not known is left out."""
    bench.start()
    with bench.step():
        record = bench.record_when(lambda record: record.get("state") == "held")
    assert "session_id" not in record


@pytest.mark.parametrize("name", ['quo"te', "back\\slash", "esc\x1b[31m", "é€𝐱", "x" * 256, "zero\0byte"])
def test_names_are_written_as_json(bench: Bench, name: str) -> None:
    """Whatever letters they have."""
    bench.start()
    with bench.step(Session(name, "agent", {"tenant": name}, 0.0)):
        record = bench.record_when(lambda record: record.get("state") == "held")
    assert record["session_id"] == record["tenant"] == name


def test_a_box_that_cannot_be_written_is_let_alone(bench: Bench) -> None:
    """Its stacks are kept all the same."""
    descriptor = os.open(os.devnull, os.O_RDONLY)
    bench.start()
    watch(bench.sampler, LIMIT_S, Places(), (), box=(descriptor, 0, SLOT))
    os.close(descriptor)
    with bench.step() as since:
        bench.keep_gil_until(lambda: len(bench.stacks(since)) == 1)


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs Linux")
def test_descriptors_that_the_host_has_closed_are_not_used(bench: Bench, tmp_path: Path) -> None:
    """They may be those of its own files by now, which get no byte, and stay open."""
    bench.start()
    ours = {os.fstat(each.fileno()).st_ino: each.fileno() for each in (bench.box, bench.log)}
    copies = set()
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            if (own := ours.get(os.fstat(int(name)).st_ino)) is not None and own != int(name):
                copies.add(int(name))
    assert len(copies) == 2
    file = os.open(tmp_path / "of the host", os.O_RDWR | os.O_CREAT)
    for each in copies:
        os.dup2(file, each)
    with bench.step(SESSION):
        keep_gil(1.3)
    bench.sampler.stop_watching()
    assert os.fstat(file).st_size == 0
    for each in (*copies, file):
        os.close(each)


# --- the stall log -----------------------------------------------------------------------------------------------


def test_a_long_stall_is_logged_while_it_lasts(bench: Bench) -> None:
    """With its line, its cause, and the stack."""
    bench.start()
    with bench.step(SESSION):
        keep_gil(1.0)
        bench.keep_gil_until(lambda: bool(bench.logged()))
        logged = bench.logged()
    line, *stack = logged.splitlines()
    assert line.startswith("[blocked-now] session_id=job-1 has been holding the loop for 1 s at ")
    assert line.endswith("in keep_gil (native)")
    assert stack[-1].strip().endswith("in keep_gil")
    assert any(each.endswith("in test_a_long_stall_is_logged_while_it_lasts") for each in stack)


def test_a_reader_that_does_not_read_holds_nothing_up(bench: Bench) -> None:
    """The line is dropped, and the box written."""
    read, write = os.pipe()
    os.set_blocking(write, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(write, b"x" * 4096)
    os.set_blocking(write, True)
    bench.start()
    bench.watch(log=write)
    with bench.step():
        keep_gil(1.0)
        bench.keep_gil_until(lambda: bench.record().get("at", 0.0) - bench.record().get("since", 0.0) > 1.1)
    os.close(read)
    os.close(write)


@pytest.mark.parametrize(
    ("held_s", "marks"),
    [(0.9, 0), (1.0, 1), (4.9, 1), (5.0, 2), (30.0, 3), (59.0, 3), (60.0, 4), (119.0, 4), (120.0, 5), (3600.0, 63)],
)
def test_marks(bench: Bench, held_s: float, marks: int) -> None:
    """At 1, 5 and 30 seconds, and then each minute."""
    counts = [bench.sampler.take_mark(0.0, 0.1 * tenth) for tenth in range(round(10 * held_s) + 1)]
    assert sum(counts) == marks


def test_one_report_for_marks_that_nobody_took(bench: Bench) -> None:
    """The next one is due at the next mark."""
    assert bench.sampler.take_mark(0.0, 40.0)
    assert not bench.sampler.take_mark(0.0, 59.0)
    assert bench.sampler.take_mark(0.0, 60.0)


def test_a_hold_that_began_before_a_report_was_reported(bench: Bench) -> None:
    """The watchdog may count from the beginning of an iteration, where C counts from that of a step."""
    assert bench.sampler.take_mark(2.0, 3.0)
    assert not bench.sampler.take_mark(1.0, 3.1)
    assert bench.sampler.take_mark(2.0, 7.0)


@pytest.mark.parametrize(
    ("name", "logged"),
    [
        ("\x9b31mred", "\\x9b31mred"),
        ("a\u202eb", "a\\u202eb"),
        ("a\u2028b", "a\\u2028b"),
        ("a\u2066b", "a\\u2066b"),
        ("a\x1bb", "a\\x1bb"),
        ("é€𝐱‐", "é€𝐱‐"),
    ],
)
def test_names_do_nothing_to_a_terminal(bench: Bench, name: str, logged: str) -> None:
    """What it would act upon is escaped."""
    bench.start()
    with bench.step(Session(name, "a", {}, 0.0)):
        keep_gil(0.9)
        bench.keep_gil_until(lambda: bool(bench.logged()))
    assert f"session_id={logged} has been" in bench.logged()


def test_each_stall_has_its_own_marks(bench: Bench) -> None:
    """They are those of the span that began then."""
    assert bench.sampler.take_mark(0.0, 1.0)
    assert not bench.sampler.take_mark(10.0, 10.5)
    assert bench.sampler.take_mark(10.0, 11.0)


# --- ending ------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs Linux")
def test_the_thread_ends_with_the_last_sampler(bench: Bench) -> None:
    """No thread is left."""
    bench.watch()
    until(lambda: threads() == 1)
    bench.sampler.stop_watching()
    until(lambda: threads() == 0)


def test_a_sampler_may_go_while_it_is_watched(bench: Bench) -> None:
    """Its part in the thread goes with it."""
    bench.start()
    for _ in range(50):
        sampler = native.SamplerFields(bench.ledger, bench.iterations, bench.ledger.parked, bench.usage, 0.001)
        sampler.awake = True
        watch(sampler, LIMIT_S, Places(), ())
        del sampler
    gc.collect()
    with bench.step() as since:
        bench.keep_gil_until(lambda: len(bench.stacks(since)) == 1)


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs Linux")
def test_descriptors_are_closed(bench: Bench) -> None:
    """Those that were duplicated."""
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        bench.watch()
    bench.sampler.stop_watching()
    until(lambda: len(os.listdir("/proc/self/fd")) == before)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_has_nothing_of_it(bench: Bench) -> None:
    """It closes what was duplicated, writes nothing, and may watch loops of its own."""
    bench.start()
    read, write = os.pipe()
    bench.watch(log=write)
    with bench.step():
        child = os.fork()
        if child == 0:
            code = 1
            with contextlib.suppress(BaseException):
                os.close(write)
                bench.sampler.stop_watching()
                ended = threads() == 0
                bench.watch()
                until(lambda: threads() == 1)
                code = 0 if ended else 2
            os._exit(code)
        _, status = os.waitpid(child, 0)
    os.close(write)
    bench.sampler.stop_watching()
    assert os.waitstatus_to_exitcode(status) == 0
    assert os.read(read, 1) == b""  # nobody has it open any more
    os.close(read)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_the_thread_of_a_forked_child_sleeps() -> None:
    """Between two ticks, as in the parent."""
    child = os.fork()
    if child == 0:
        code = 1
        with contextlib.suppress(BaseException):
            Bench().start()
            before = native.stall_thread_cpu_s()
            time.sleep(1.0)
            code = 0 if native.stall_thread_cpu_s() - before < 0.5 else 2
        os._exit(code)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0


IMPORTED_LATE = """
import asyncio, uvloop

async def main():
    from openrtc_introspect_core import Introspector

    async with Introspector(socket_path=False) as introspector:
        with introspector.session("s", agent_name="a"):
            process = await asyncio.create_subprocess_exec("true")
            await process.wait()

uvloop.run(main())
"""


def test_a_loop_of_uvloops_that_is_older_than_the_import_starts_processes() -> None:
    """It runs Python's handlers of forks before those of this module."""
    pytest.importorskip("uvloop")
    subprocess.run([sys.executable, "-c", IMPORTED_LATE], check=True, timeout=60.0)
