"""What a thread waits for in the call that it is in."""

from __future__ import annotations

import concurrent.futures
import logging
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from weakref import ref

import pytest

from openrtc_introspect_core._os.stacks import frames_now
from openrtc_introspect_core._waits.thread_waits import FUTURE, LOCK, OTHER, PROCESS, THREAD, ThreadWait, thread_wait

pytestmark = pytest.mark.gil

DEADLINE_S = 30.0

GUARD = threading.Lock()


@contextmanager
def waiting(call: Callable[[], Any]) -> Iterator[ThreadWait]:
    """Yield what a thread in this call waits for; end the call on leaving, by what the test does."""
    thread = threading.Thread(target=call, name="waits", daemon=True)
    thread.start()
    deadline = time.monotonic() + DEADLINE_S
    while (found := thread_wait(frames_now().get(thread.ident or 0))) is None or found.target is None:
        assert time.monotonic() < deadline
        time.sleep(0.001)
    yield found
    thread.join(DEADLINE_S)


class Account:
    """Something with locks in it."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.again = threading.RLock()
        self.changed = threading.Condition()
        self.slots = threading.Semaphore(0)
        self.locks = {"a": self.lock}

    def by_acquire(self) -> None:
        self.lock.acquire()
        self.lock.release()

    def by_with(self) -> None:
        with self.lock:
            pass

    def by_key(self) -> None:
        with self.locks["a"]:
            pass

    def by_acquire_of_key(self) -> None:
        self.locks["a"].acquire()
        self.lock.release()

    def on_a_line_of_its_own(self) -> None:
        (
            self.lock
            .acquire(
                timeout=DEADLINE_S
            )
        )  # fmt: skip
        self.lock.release()


@pytest.mark.parametrize(
    ("method", "text"),
    [
        ("by_acquire", "threading.Lock (self.lock)"),
        ("by_with", "threading.Lock (self.lock)"),
        ("by_key", "threading.Lock"),
        ("by_acquire_of_key", "threading.Lock"),
        ("on_a_line_of_its_own", "threading.Lock (self.lock)"),
    ],
)
def test_a_lock_is_named_as_the_source_names_it(method: str, text: str) -> None:
    account = Account()
    account.lock.acquire()
    with waiting(getattr(account, method)) as found:
        account.lock.release()
    assert (found.kind, found.what, found.target) == (LOCK, text, account.lock)


def test_a_lock_of_the_module_is_found() -> None:
    def take() -> None:
        with GUARD:
            pass

    GUARD.acquire()
    with waiting(take) as found:
        GUARD.release()
    assert (found.what, found.target) == ("threading.Lock (GUARD)", GUARD)


def test_a_lock_of_an_enclosing_function_is_found() -> None:
    lock = threading.Lock()

    def take() -> None:
        with lock:
            pass

    lock.acquire()
    with waiting(take) as found:
        lock.release()
    assert (found.what, found.target) == ("threading.Lock (lock)", lock)


def test_a_reentrant_lock_is_found() -> None:
    account = Account()

    def take() -> None:
        with account.again:
            pass

    account.again.acquire()
    with waiting(take) as found:
        account.again.release()
    assert (found.what, found.target) == ("threading.RLock (account.again)", account.again)


def test_the_lock_of_a_condition_is_found() -> None:
    account = Account()

    def take() -> None:
        with account.changed:
            pass

    account.changed.acquire()
    with waiting(take) as found:
        account.changed.release()
    assert (found.what, found.target) == ("threading.RLock (account.changed)", account.changed._lock)  # type: ignore[attr-defined]


def test_a_semaphore_is_found() -> None:
    account = Account()

    def take() -> None:
        with account.slots:
            pass

    with waiting(take) as found:
        account.slots.release()
    assert (found.kind, found.what, found.target) == (LOCK, "threading.Semaphore (account.slots)", account.slots)


def test_a_lock_that_a_library_takes_is_found() -> None:
    handler = logging.StreamHandler()

    def take() -> None:
        handler.acquire()
        handler.release()

    handler.acquire()
    with waiting(take) as found:
        handler.release()
    assert (found.kind, found.what, found.target) == (LOCK, "threading.RLock", handler.lock)


def test_a_condition_to_be_notified_is_no_lock() -> None:
    account = Account()

    def wait() -> None:
        with account.changed:
            account.changed.wait(DEADLINE_S)

    with waiting(wait) as found, account.changed:
        account.changed.notify_all()
    assert (found.kind, found.what) == (OTHER, "a threading.Condition")


def test_an_event_is_found() -> None:
    event = threading.Event()
    with waiting(lambda: event.wait(DEADLINE_S)) as found:
        event.set()
    assert (found.kind, found.what, found.target) == (OTHER, "a threading.Event", event)


def test_an_entry_of_a_queue_is_found() -> None:
    entries: queue.Queue[int] = queue.Queue()
    with waiting(lambda: entries.get(timeout=DEADLINE_S)) as found:
        entries.put(1)
    assert (found.what, found.target) == ("an entry of a queue.Queue", entries)


def test_a_simple_queue_is_found() -> None:
    entries: queue.SimpleQueue[int] = queue.SimpleQueue()
    with waiting(lambda: entries.get(timeout=DEADLINE_S)) as found:
        entries.put(1)
    assert (found.what, found.target) == ("an entry of a queue.SimpleQueue", entries)


def test_a_future_is_found() -> None:
    future: concurrent.futures.Future[int] = concurrent.futures.Future()
    with waiting(lambda: future.result(DEADLINE_S)) as found:
        future.set_result(1)
    assert (found.kind, found.target) == (FUTURE, future)


def test_the_end_of_a_thread_is_found() -> None:
    end = threading.Event()
    reader = threading.Thread(target=end.wait, args=(DEADLINE_S,), name="reader")
    reader.start()
    with waiting(lambda: reader.join(DEADLINE_S)) as found:
        end.set()
    assert (found.kind, found.what, found.target) == (THREAD, "the end of thread reader", reader)


def test_the_end_of_a_process_is_found() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        assert process.stdin is not None
        with waiting(lambda: process.wait()) as found:
            process.stdin.close()
    assert (found.kind, found.what) == (PROCESS, f"the end of process {process.pid}")


def test_a_thread_that_sleeps_while_it_has_a_lock_waits_for_none() -> None:
    account = Account()
    asleep, end = threading.Event(), threading.Event()

    def sleep() -> None:
        with account.lock:
            asleep.set()
            while not end.is_set():
                time.sleep(0.001)

    thread = threading.Thread(target=sleep)
    thread.start()
    assert asleep.wait(DEADLINE_S)
    seen = {found.kind for _ in range(100) if (found := thread_wait(frames_now().get(thread.ident or 0))) is not None}
    end.set()
    thread.join(DEADLINE_S)
    assert LOCK not in seen


def test_no_thread_waits_for_nothing() -> None:
    assert thread_wait(None) is None


def test_the_frame_that_was_looked_at_keeps_nothing_alive() -> None:
    class Thing:
        pass

    account, gone = Account(), []

    def take() -> None:
        thing = Thing()
        gone.append(ref(thing))
        with account.lock:
            pass
        del thing
        dropped.set()
        end.wait(DEADLINE_S)

    dropped, end = threading.Event(), threading.Event()
    account.lock.acquire()
    with waiting(take):
        account.lock.release()
        assert dropped.wait(DEADLINE_S)
        alive = gone[0]()
        end.set()
    assert alive is None
