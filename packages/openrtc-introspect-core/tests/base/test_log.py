"""Our log records leave from a thread of ours: no handler holds a loop, and no record is lost on the way."""

from __future__ import annotations

import _thread
import asyncio
import contextvars
import logging
import os
import subprocess
import sys
import textwrap
import threading
import time
import weakref
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import anyio
import pytest

from openrtc_introspect_core import Introspector
from openrtc_introspect_core._base import log
from openrtc_introspect_core._base.log import MAX_QUEUED, QueuedLogger, flush
from openrtc_introspect_core._introspector import parts_of
from openrtc_introspect_core._service import own_socket
from openrtc_introspect_testing._loops.backends import Backend
from openrtc_introspect_testing._loops.fake_loop import FakeLoop

Run = Callable[[Coroutine[Any, Any, Any]], Any]
WITHIN_S = 60.0
NAME = "openrtc-introspect-log"


class Heard(logging.Handler):
    """Keeps what it is given, and the thread that gave it; stuck for as long as `go` is not set."""

    stuck_s = WITHIN_S

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []
        self.threads: list[threading.Thread] = []
        self.called = threading.Event()
        self.go = threading.Event()
        self.go.set()

    def emit(self, record: logging.LogRecord) -> None:
        self.called.set()
        assert threading.current_thread() is not threading.main_thread()
        assert self.go.wait(self.stuck_s)
        self.threads.append(threading.current_thread())
        self.records.append(record)

    @property
    def messages(self) -> list[str]:
        assert flush(WITHIN_S)
        return [record.getMessage() for record in self.records]


@pytest.fixture
def heard() -> Iterator[Heard]:
    handler = Heard()
    user = logging.getLogger("openrtc")
    user.addHandler(handler)
    yield handler
    handler.go.set()
    assert flush(WITHIN_S)
    user.removeHandler(handler)


@pytest.fixture
def logger() -> QueuedLogger:
    return QueuedLogger("openrtc.introspect")


def until(true: Callable[[], object]) -> None:
    deadline = time.monotonic() + WITHIN_S
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def threads_of_ours() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == NAME]


# --- records -------------------------------------------------------------------------------------


def test_records_are_handled_in_order_on_one_thread_of_ours(heard: Heard, logger: QueuedLogger) -> None:
    """Those of two loggers, too."""
    pool = QueuedLogger("openrtc.pool")
    for n in range(100):
        (pool if n % 3 else logger).warning("%d", n)
    assert heard.messages == [str(n) for n in range(100)]
    assert {thread.name for thread in heard.threads} == {NAME}
    assert {record.name for record in heard.records} == {"openrtc.introspect", "openrtc.pool"}


def test_a_record_is_of_whoever_logged_it(heard: Heard, logger: QueuedLogger, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its thread, its time, and its place in the code, though it is handled elsewhere and later."""
    heard.go.clear()
    logger.warning("first")
    assert heard.called.wait(WITHIN_S)
    before = time.time()
    somebody = threading.Thread(target=logger.error, args=("second",), name="somebody")
    somebody.start()
    somebody.join()
    logger.warning("third")
    after = time.time()
    heard.go.set()
    assert heard.messages == ["first", "second", "third"]
    _, second, third = heard.records
    assert (second.threadName, second.thread, second.levelname) == ("somebody", somebody.ident, "ERROR")
    assert (third.threadName, third.thread) == (threading.current_thread().name, threading.get_ident())
    assert before <= second.created <= third.created <= after
    assert (third.pathname, third.funcName) == (__file__, "test_a_record_is_of_whoever_logged_it")


def test_what_a_handler_starts_is_no_session_s(heard: Heard, logger: QueuedLogger) -> None:
    """It is called in a context of its own, without the variables of whoever logged."""
    variable = contextvars.ContextVar("session", default="none")
    seen = []
    heard.addFilter(lambda record: seen.append(variable.get()) or True)
    contextvars.copy_context().run(lambda: (variable.set("job-1"), logger.warning("mine")))
    assert (heard.messages, seen) == (["mine"], ["none"])


def test_an_error_has_its_traceback(heard: Heard, logger: QueuedLogger) -> None:
    """The one it had when it was logged, and of a given traceback that one."""

    def fail() -> None:
        raise ValueError("mine")

    heard.go.clear()
    error = None
    try:
        fail()
    except ValueError as raised:
        error = raised
        logger.warning("whole", exc_info=error)
        assert error.__traceback__ is not None
        logger.error("part", exc_info=(ValueError, error, error.__traceback__.tb_next))
    error.__traceback__ = None
    heard.go.set()
    assert heard.messages == ["whole", "part"]
    whole, part = (logging.Formatter().format(record) for record in heard.records)
    assert "in test_an_error_has_its_traceback\n" in whole
    assert "in test_an_error_has_its_traceback\n" not in part
    for text in (whole, part):
        assert text.endswith('in fail\n    raise ValueError("mine")\nValueError: mine')


def test_nothing_of_a_record_is_kept_once_it_was_handled(logger: QueuedLogger, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a collector either: an error keeps the frames that it came through."""

    class Mine(Exception):
        pass

    monkeypatch.setattr(log, "IDLE_S", WITHIN_S)
    monkeypatch.setattr(logging, "lastResort", None)
    monkeypatch.setattr(logging.getLogger("openrtc"), "propagate", False)  # pytest keeps what reaches the root
    error: Mine | None = Mine()
    gone = weakref.ref(error)  # type: ignore[arg-type]
    logger.warning("failed", exc_info=error)
    error = None
    until(lambda: gone() is None)
    assert len(threads_of_ours()) == 1  # it waits for the next


def test_where_the_level_is_off_nothing_is_made(
    heard: Heard, logger: QueuedLogger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No record, no thread."""
    monkeypatch.setattr(logging.getLogger("openrtc"), "level", logging.ERROR)
    logging.getLogger("openrtc").manager._clear_cache()  # type: ignore[attr-defined]
    monkeypatch.setattr(log._writer, "add", None)
    assert flush(WITHIN_S)
    assert threads_of_ours() == []
    logger.warning("unheard")
    logging.getLogger("openrtc").manager._clear_cache()  # type: ignore[attr-defined]
    assert (heard.records, threads_of_ours()) == ([], [])


# --- what goes wrong -----------------------------------------------------------------------------


def test_what_finds_no_room_is_dropped_and_the_next_line_tells_how_many(heard: Heard, logger: QueuedLogger) -> None:
    """The newest goes; those that wait keep their order."""
    heard.go.clear()
    logger.warning("held")
    assert heard.called.wait(WITHIN_S)
    until(lambda: log._writer._queue.qsize() == 0)
    for n in range(MAX_QUEUED + 7):
        logger.warning("%d", n)
    heard.go.set()
    assert heard.messages == ["held", *(str(n) for n in range(MAX_QUEUED))]
    logger.warning("%d %%", 100)
    logger.warning("on")
    line = "100 % (log records dropped before this one: 7; handlers are too slow)"
    assert heard.messages[-2:] == [line, "on"]


def test_a_filter_or_handler_that_raises_ends_nothing(
    heard: Heard, logger: QueuedLogger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not by SystemExit either. What it raised is reported as logging's own errors are."""

    def fails(record: logging.LogRecord) -> bool:
        if record.msg == "no":
            raise SystemExit(3)
        return True

    reported: list[tuple[Any, str]] = []
    monkeypatch.setattr(
        log._fallback, "handleError", lambda record: reported.append((sys.exc_info()[0], record.getMessage()))
    )
    heard.addFilter(fails)
    for message in ("a", "no", "b"):
        logger.warning(message)
    assert heard.messages == ["a", "b"]
    assert reported == [(SystemExit, "no")]
    assert len({thread.ident for thread in heard.threads}) == 1


def test_a_record_that_cannot_be_made_is_nobody_s_error(heard: Heard, logger: QueuedLogger) -> None:
    """A record factory of the user's, for one, may fail."""

    def broken(*_: Any, **__: Any) -> Any:
        raise OSError("no record")

    before = logging.getLogRecordFactory()
    logging.setLogRecordFactory(broken)
    try:
        logger.warning("lost")
    finally:
        logging.setLogRecordFactory(before)
    logger.warning("found")
    assert heard.messages == ["found"]


def no_more(*_: Any) -> Any:
    raise RuntimeError("can't start new thread")


def test_where_no_thread_can_be_started_records_wait(
    heard: Heard, logger: QueuedLogger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until one can be: none of them is handled by whoever logs. A flush does not wait for what cannot be."""
    assert flush(WITHIN_S)
    with monkeypatch.context() as patch:
        patch.setattr(_thread, "start_new_thread", no_more)
        logger.warning("first")
        assert flush(WITHIN_S)
        assert heard.records == []
    logger.warning("second")
    assert heard.messages == ["first", "second"]


def test_a_thread_that_python_does_not_know_will_do(
    heard: Heard, logger: QueuedLogger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once the interpreter exits it makes no others."""
    assert flush(WITHIN_S)
    monkeypatch.setattr(threading.Thread, "start", no_more)
    logger.warning("first")
    assert heard.messages == ["first"]
    assert heard.threads[0].name != NAME


def test_a_handler_may_flush(heard: Heard, logger: QueuedLogger) -> None:
    """It does not wait for itself."""
    done = []
    heard.addFilter(lambda record: done.append(flush(WITHIN_S)) or True)
    logger.warning("a")
    assert (heard.messages, done) == (["a"], [True])


# --- the thread ----------------------------------------------------------------------------------


def test_the_thread_ends_when_there_is_nothing_to_do(heard: Heard, logger: QueuedLogger) -> None:
    """By itself, and the next record starts another one."""
    logger.warning("a")
    until(lambda: heard.records and not threads_of_ours())
    logger.warning("b")
    assert heard.messages == ["a", "b"]
    assert heard.threads[0] is not heard.threads[1]


def test_after_a_flush_no_thread_is_left(heard: Heard, logger: QueuedLogger) -> None:
    """It has ended when the flush is over."""
    for _ in range(50):
        logger.warning("a")
        assert flush(WITHIN_S)
        assert threads_of_ours() == []
    assert len(heard.records) == 50


def test_a_record_that_comes_while_the_thread_ends_is_handled(
    heard: Heard, logger: QueuedLogger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By another thread: it came after the last check of the queue, and before the thread had released its claim."""

    class Claim:
        def __init__(self) -> None:
            lock = threading.Lock()
            self.acquire, self.locked, self._release = lock.acquire, lock.locked, lock.release
            self.late = ["late"]

        def release(self) -> None:
            if self.late:
                logger.warning(self.late.pop())
            self._release()

    assert flush(WITHIN_S)
    monkeypatch.setattr(log._writer, "_claim", Claim())
    logger.warning("early")
    until(lambda: len(heard.records) == 2)
    assert heard.messages == ["early", "late"]
    assert heard.threads[0] is not heard.threads[1]


def test_no_record_is_lost_while_threads_end_and_start(
    heard: Heard, logger: QueuedLogger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From many threads, with a thread of ours that ends after nearly each: all arrive, each one's in order."""
    monkeypatch.setattr(log, "IDLE_S", 0.0)
    monkeypatch.setattr(log, "MAX_QUEUED", 10**6)

    def talk(who: int) -> None:
        for n in range(300):
            logger.warning("%d %d", who, n)
            if n % 7 == who:
                flush(WITHIN_S)

    talkers = [threading.Thread(target=talk, args=(who,)) for who in range(8)]
    for each in talkers:
        each.start()
    for each in talkers:
        each.join(WITHIN_S)
    said = [tuple(map(int, message.split())) for message in heard.messages]
    for who in range(8):
        assert [n for speaker, n in said if speaker == who] == list(range(300))
    assert len(set(heard.threads)) > 1


# --- under a handler that is stuck ----------------------------------------------------------------


def test_a_stuck_handler_holds_no_loop_and_blames_nobody(heard: Heard) -> None:
    """While it has not returned the sessions go on, and the one block is the one that there was."""
    loop = FakeLoop()

    async def blocks() -> None:
        loop.block(0.06)
        while not heard.called.is_set():
            await asyncio.sleep(0.001)

    async def innocent() -> None:
        for _ in range(100):
            await asyncio.sleep(0.01)

    async def main() -> Any:
        introspector = Introspector(socket_path=False, stacks=False, clock=loop.time)
        introspector.attach()
        with introspector.session("culprit", agent_name="a"):
            culprit = asyncio.create_task(blocks())
        with introspector.session("innocent", agent_name="a"):
            other = asyncio.create_task(innocent())
        await culprit
        await other
        stuck = heard.records == []
        heard.go.set()
        await introspector.aclose()
        return stuck, [(block.session_id, round(block.duration_ms)) for block in introspector.blocks()]

    heard.go.clear()
    assert loop.run_until_complete(main()) == (True, [("culprit", 60)])
    loop.close()
    assert heard.messages == ["[slow-session] session_id=culprit blocked event loop for 60ms"]


@pytest.mark.parametrize("how", ["close", "aclose"])
def test_a_stuck_handler_does_not_keep_whoever_closes(
    how: str, heard: Heard, on_timed_loops: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is waited for as long as for a thread, and no longer."""
    monkeypatch.setattr(own_socket, "CLOSE_WITHIN_S", 0.1)

    async def main() -> Any:
        introspector = Introspector(socket_path=False, slow_session_threshold_ms=60_000)
        introspector.attach()
        parts_of(introspector).shared.notes.add("probe", "something is off")
        if how == "close":
            introspector.close()
        else:
            await introspector.aclose()
        return list(heard.records)

    heard.stuck_s = WITHIN_S / 3
    heard.go.clear()
    assert on_timed_loops(main()) == []
    heard.go.set()
    assert heard.messages == ["introspection of worker: something is off"]


@pytest.mark.parametrize("how", ["close", "aclose"])
def test_who_closes_waits_for_what_was_logged(how: str, heard: Heard, on_timed_loops: Backend) -> None:
    """Then it has been handled, and no thread is left."""

    async def main() -> Any:
        introspector = Introspector(socket_path=False, slow_session_threshold_ms=60_000)
        introspector.attach()
        parts_of(introspector).shared.notes.add("probe", "something is off")
        if how == "close":
            introspector.close()
        else:
            await introspector.aclose()
        return len(heard.records), threads_of_ours()

    assert on_timed_loops(main()) == (1, [])


def test_a_loop_runs_while_it_closes(heard: Heard, on_timed_loops: Backend) -> None:
    """`aclose` waits for a handler without holding the loop: a task of the same loop can let the handler go."""

    async def let_go() -> None:
        while not heard.called.is_set():
            await anyio.sleep(0.001)
        heard.go.set()

    async def main() -> Any:
        introspector = Introspector(socket_path=False, slow_session_threshold_ms=60_000)
        introspector.attach()
        parts_of(introspector).shared.notes.add("probe", "something is off")
        async with anyio.create_task_group() as group:
            group.start_soon(let_go)
            await introspector.aclose()
        return len(heard.records)

    heard.go.clear()
    assert on_timed_loops(main()) == 1


# --- processes -----------------------------------------------------------------------------------


def run_script(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", textwrap.dedent(code), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=WITHIN_S, check=False)


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_logs_its_own_records_only() -> None:
    """Though its parent's thread was stuck, records waited, and every lock of ours was held."""
    code = """
        import logging, os, signal, sys, threading, warnings
        from openrtc_introspect_core import Introspector
        from openrtc_introspect_core._base import log

        warnings.simplefilter("ignore")
        parent, called, go = os.getpid(), threading.Event(), threading.Event()

        class Handler(logging.Handler):
            def emit(self, record):
                called.set()
                if os.getpid() == parent:
                    go.wait()
                os.write(1, f"{'parent' if os.getpid() == parent else 'child'} {record.getMessage()}\\n".encode())

        logging.getLogger("openrtc").addHandler(Handler())
        logger = log.QueuedLogger("openrtc.introspect")
        logger.warning("1")
        logger.warning("2")
        called.wait()
        holder = threading.Thread(target=lambda: log._writer._counting.acquire() and go.wait())
        holder.start()
        while log._writer._counting.acquire(blocking=False):
            log._writer._counting.release()
        child = os.fork()
        if child == 0:
            signal.alarm(30)
            log._writer._dropped = 1  # the next record takes the lock
            logger.warning("3")
            print("flushed", log.flush(30), flush=True)
            sys.exit()
        code = os.waitpid(child, 0)[1]
        go.set()
        logger.warning("4")
        print("flushed", log.flush(30), "child", code, flush=True)
    """
    done = run_script(code)
    dropped = "(log records dropped before this one: 1; handlers are too slow)"
    assert (done.stdout.splitlines(), done.stderr) == (
        [f"child 3 {dropped}", "flushed True", "parent 1", "parent 2", "parent 4", "flushed True child 0"],
        "",
    )


@pytest.mark.slow
@pytest.mark.parametrize("hook", ["before", "after"])
def test_a_program_that_ends_without_closing_loses_no_record(hook: str) -> None:
    """Those that an exit hook logs are handled as well, before ours and after it, when no thread can be started."""
    code = """
        import _thread, atexit, logging, sys, time

        def no_more(*arguments):
            raise RuntimeError("can't create new thread at interpreter shutdown")

        def at_exit():
            log.flush(30)
            _thread.start_new_thread = no_more  # as Python 3.12 does by itself
            logger.warning("by a hook")

        if sys.argv[1] == "after":
            atexit.register(at_exit)
        from openrtc_introspect_core._base import log
        if sys.argv[1] == "before":
            atexit.register(at_exit)
        logger = log.QueuedLogger("openrtc.introspect")

        class Slow(logging.StreamHandler):
            def emit(self, record):
                time.sleep(0.01)
                super().emit(record)

        logging.getLogger("openrtc").addHandler(Slow())
        for n in range(10):
            logger.warning("%d", n)
    """
    done = run_script(code, hook)
    assert done.stderr.splitlines() == [*map(str, range(10)), "by a hook"]
    assert done.returncode == 0


@pytest.mark.slow
def test_the_exit_waits_for_a_handler_for_a_second_only() -> None:
    """A handler that never returns is abandoned."""
    code = """
        import logging, threading
        from openrtc_introspect_core._base import log

        class Stuck(logging.Handler):
            def handle(self, record):  # without the handler's lock, which `logging.shutdown` waits for
                threading.Event().wait()

        logging.getLogger("openrtc").addHandler(Stuck())
        log.QueuedLogger("openrtc.introspect").warning("never line")
    """
    done = run_script(code)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.slow
@pytest.mark.parametrize("stuck", ["a handler", "standard error"])
def test_a_stuck_handler_does_not_keep_the_interpreter_from_its_end(stuck: str) -> None:
    """Its lock is held for ever then, and so is that of the stream that it writes to."""
    program = """
import logging, os, sys, threading
from openrtc_introspect_core._base.log import QueuedLogger

class Stuck(logging.Handler):
    def emit(self, record):
        threading.Event().wait()

if sys.argv[1] == "a handler":
    logging.getLogger().addHandler(Stuck())
else:
    _, full = os.pipe()
    os.set_blocking(full, False)
    for size in (65536, 1):
        try:
            while True:
                os.write(full, b"x" * size)
        except BlockingIOError:
            pass
    os.set_blocking(full, True)
    os.dup2(full, 2)
QueuedLogger("openrtc.introspect").warning("a block")
print("done", flush=True)
"""
    command = [sys.executable, "-c", program, stuck]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (0, "done\n")


@pytest.mark.slow
@pytest.mark.gil
def test_a_session_that_waits_for_a_handler_at_work_on_our_record_is_not_blamed() -> None:
    """Our thread holds the handler's lock. The block is not logged, as that record would be the next to wait for.

    A block that is mostly run delay, on a busy machine, proves nothing, and it is done again.
    """

    class Slow(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.levelno >= logging.WARNING:
                at_work.set()
                time.sleep(0.5)

    at_work = threading.Event()
    host = logging.getLogger("a host of its own")
    ours = logging.getLogger("openrtc.introspect")
    slow = Slow()

    async def main() -> Any:
        async with Introspector(socket_path=False) as introspector:
            with introspector.session("culprit", agent_name="test"):
                await asyncio.create_task(asyncio.sleep(0.01))
                time.sleep(0.1)
                await asyncio.sleep(0)
            await asyncio.to_thread(at_work.wait, 30)

            async def innocent() -> None:
                host.info("nothing")

            with introspector.session("innocent", agent_name="test"):
                await asyncio.create_task(innocent())
            return [(block.session_id, block.detail) for block in introspector.blocks()]

    for logger in (host, ours):
        logger.addHandler(slow)
    host.setLevel(logging.INFO)
    deadline = time.monotonic() + 60.0
    try:
        blocks = asyncio.run(main())
        while any("run delay" in (detail or "") for _, detail in blocks) and time.monotonic() < deadline:
            at_work.clear()
            blocks = asyncio.run(main())
    finally:
        for logger in (host, ours):
            logger.removeHandler(slow)
        host.setLevel(logging.NOTSET)
    assert (None, "waits for a log handler that is at work on a record of introspection") in blocks
    assert "innocent" not in {session_id for session_id, _ in blocks}
