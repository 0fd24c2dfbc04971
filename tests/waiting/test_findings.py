"""`openrtc diagnose` says why nothing moves: each fault in a worker of its own, asked as a user does."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

WORKER = Path(__file__).parent / "worker.py"
DEADLINE_S = 30.0
"""A fault takes longer to show on a busy machine, but does not disappear."""

CODES: dict[str, tuple[str, str, str]] = {
    "default-executor": ("executor-full", "slow-0", "download"),
    "thread-limiter": ("executor-full", "endpoint-", "download"),
    "lock-of-all": ("lock-convoy", "chat-0", "lock_of_all.<locals>.body"),
    "two-locks": ("deadlock", "transfer-", "two_locks.<locals>.body"),
    "leaked-slots": ("waiting-together", "", "leaked_slots.<locals>.body"),
    "connection-pool": ("waiting-together", "", "connection_pool.<locals>.body"),
    "anyio-lock": ("lock-convoy", "chat-0", "anyio_lock.<locals>.body"),
    "full-queue": ("waiting-together", "", "full_queue.<locals>.body"),
    "threading-lock": ("lock-held-across-await", "cache-0", "threading_lock.<locals>.body"),
    "nobody-ends-them": ("stale-sessions", "ws-0", "nobody_ends_them.<locals>.one"),
    "pool-a-turn": ("threads-grow", "turns-0", "pool_a_turn.<locals>.body"),
    "thread-a-message": ("threads-grow", "messages-0", "thread_a_message.<locals>.body"),
    "forgotten-tasks": ("tasks-grow", "frames-0", "forgotten_tasks.<locals>.body"),
    "writer-left-on": ("spinning-loop", "sender-0", "flush"),
    "callback-of-its-own": ("spinning-loop", "poller-0", "callback_of_its_own.<locals>.poll"),
    "ticks-from-a-thread": ("callback-flood", "", "on_tick"),
    "wakeup-lost": ("lost-wakeup", "asks-0", ""),
    "collections-asked-for": ("explicit-gc", "turn-", "collections_asked_for.<locals>.turn"),
    "shared-task": ("first-caller-pays", "first-0", ""),
    "too-many": ("loop-full", "", ""),
}
"""For each worker the code of its finding, how the session's id begins, and the function of the line."""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.program,
    pytest.mark.skipif(sys.platform != "linux", reason="the worker needs Linux"),
]


BUSY = {
    "writer-left-on", "callback-of-its-own", "ticks-from-a-thread", "collections-asked-for", "shared-task", "too-many",
}  # fmt: skip
"""The workers that compute. The others do next to nothing, so all of them run side by side."""


@contextlib.contextmanager
def workers(*names: str) -> Iterator[dict[str, str]]:
    """Run the workers while the context is open. Return the environment of a shell beside them."""
    with tempfile.TemporaryDirectory(prefix="wt", dir="/tmp") as folder:  # a socket's path has to be short
        os.chmod(folder, 0o700)
        environment = {**os.environ, "OPENRTC_RUNTIME_DIR": folder, "PYTHONIOENCODING": "utf-8"}
        processes = [
            subprocess.Popen(
                [sys.executable, WORKER, name],
                env=environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            )
            for name in names
        ]
        try:
            for process in processes:
                assert process.stdout is not None
                assert process.stdout.readline() == b"ready\n"
            yield environment
        finally:
            for process in processes:
                process.kill()
            for process in processes:
                process.communicate()


def diagnosed(environment: dict[str, str], seconds: float = 2.0) -> dict[str, dict[str, Any]]:
    """Return what `openrtc diagnose` says of the workers there, by their names."""
    done = subprocess.run(
        [sys.executable, "-m", "openrtc_top", "diagnose", "--json", "--seconds", str(seconds)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60.0,
        check=False,
    )
    return {document["worker"]: document for document in map(json.loads, done.stdout.splitlines())}


def found_in(names: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Return what is said of the workers with these faults, asked until each fault is found."""
    documents: dict[str, dict[str, Any]] = {}
    missing = set(names)
    with workers(*missing) as environment:
        deadline = time.monotonic() + DEADLINE_S
        while missing and time.monotonic() < deadline:
            now = diagnosed(environment, 4.0)
            documents |= {name: now[name] for name in missing & now.keys()}
            missing -= {name for name in missing & now.keys() if _finding(name, now[name])}
    return documents


def _finding(name: str, document: dict[str, Any]) -> dict[str, Any] | None:
    found: list[dict[str, Any]] = document["findings"]
    return next((each for each in found if each["code"] == CODES[name][0]), None)


@pytest.fixture(scope="module")
def documents(request: pytest.FixtureRequest) -> Iterator[dict[str, Future[dict[str, dict[str, Any]]]]]:
    """Begin to ask the workers of the chosen tests: all that are not busy at once, and beside them each busy one."""
    tests = [item for item in request.session.items if isinstance(item, pytest.Function)]
    parameters = [test.callspec.params for test in tests if test.module is request.module and hasattr(test, "callspec")]
    chosen = {str(each["name"]) for each in parameters}
    groups = [chosen - BUSY, *({name} for name in sorted(chosen & BUSY))]
    with ThreadPoolExecutor(max_workers=2) as pool:
        futures = [(group, pool.submit(found_in, group)) for group in groups if group]
        yield {name: future for group, future in futures for name in group}


@pytest.mark.parametrize("name", CODES)
def test_each_fault_is_found_with_its_session_and_line(
    name: str, documents: dict[str, Future[dict[str, dict[str, Any]]]]
) -> None:
    """Within some seconds of asking, by the same code each time."""
    _, session_id, function = CODES[name]
    document = documents[name].result()[name]
    finding = _finding(name, document)
    load = os.getloadavg()[0]
    if finding is None and load > 2.0 * (os.cpu_count() or 1):  # such a worker has run delay, which explains all else
        pytest.skip(f"this machine is too busy: load {load:.1f}, and found {document['findings']}")
    assert finding is not None, document
    assert (finding["session_id"] or "").startswith(session_id)
    assert (finding["location"] or {"function": ""})["function"].endswith(function)


def test_healthy_waiting_is_no_finding() -> None:
    """Fifty sessions that wait in every healthy way, for seconds."""
    with workers("healthy") as environment:
        codes = {found["code"] for found in diagnosed(environment, 6.0)["healthy"]["findings"]}
    assert codes <= {"host-throttled"}


def test_where_sessions_wait_is_said_if_nothing_is_found() -> None:
    """They may be idle; nobody is sent away."""
    with workers("nobody-steps") as environment:
        time.sleep(2.0)
        document = diagnosed(environment)["nobody-steps"]
    assert {found["code"] for found in document["findings"]} <= {"host-throttled"}
    place = document["waiting"][0]
    assert (place["kind"], place["sessions"]) == ("queue", 12)
    assert place["location"]["function"] == "nobody_steps.<locals>.body"
