"""CPython's own asyncio tests, on loops with and without metering: the outcomes must be the same, test by test.

    python tests/cpython/asyncio_suite.py [MODULE ...]     each of test.test_asyncio's, twice, and what differs
    python tests/cpython/asyncio_suite.py --one MODULE with|without     one run; the outcomes as JSON

With metering, the hook of an Introspector is attached to every event loop that a test makes. What an Introspector has
beside it, threads above all, these tests would count.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import io
import json
import subprocess
import sys
import time
import unittest
from asyncio.selector_events import BaseSelectorEventLoop
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from typing import Any

MODULES = (
    "test_tasks", "test_taskgroups", "test_timeouts", "test_futures", "test_futures2", "test_locks", "test_queues",
    "test_runners", "test_waitfor", "test_eager_task_factory", "test_events", "test_base_events", "test_streams",
    "test_unix_events", "test_selector_events", "test_sock_lowlevel", "test_buffered_proto", "test_server",
    "test_sendfile", "test_subprocess", "test_context", "test_staggered", "test_threads",
)  # fmt: skip
"""Those that a Python lacks are left out."""

_EAGER = "test.test_asyncio.test_eager_task_factory"
KNOWN = {
    # They ask whether the eager factory of the loop is the very object that was set. It is one of the same code.
    f"{_EAGER}.PyEagerTaskFactoryLoopTests.test_eager_task_factory_set",
    f"{_EAGER}.CEagerTaskFactoryLoopTests.test_eager_task_factory_set",
}
if sys.version_info >= (3, 14):
    # It asks the collector who refers to an exception while that is being thrown into a task. From 3.14 on that shows
    # who called `throw`, where that is written in Python, as our generator is. Afterwards nobody refers to it.
    KNOWN.add("test.test_asyncio.test_taskgroups.TestTaskGroup.test_exception_refcycles_propagate_cancellation_error")
"""What is known to differ."""

LIMIT_S = 300.0


def available() -> list[str]:
    """The modules that this interpreter ships; empty where it ships no tests of itself, as Debian's does not."""
    with contextlib.suppress(ImportError):
        return [name for name in MODULES if importlib.util.find_spec(f"test.test_asyncio.{name}") is not None]
    return []


class Outcomes(unittest.TestResult):
    """What became of each test."""

    def __init__(self) -> None:
        super().__init__()
        self.by_test: dict[str, str] = {}

    def stopTest(self, test: unittest.TestCase) -> None:
        self.by_test.setdefault(test.id(), "passed")
        super().stopTest(test)

    def _became(self, test: Any, outcome: str) -> None:
        self.by_test[getattr(test, "test_case", test).id()] = outcome

    def addError(self, test: Any, err: Any) -> None:
        self._became(test, f"error: {err[0].__name__}")

    def addFailure(self, test: Any, err: Any) -> None:
        self._became(test, f"failed: {str(err[1]).strip().splitlines()[-1][:200] if str(err[1]).strip() else ''}")

    def addSubTest(self, test: Any, subtest: Any, err: Any) -> None:
        if err is not None:
            self._became(test, f"failed: {err[0].__name__}")

    def addSkip(self, test: Any, reason: str) -> None:
        self._became(test, "skipped")


def meter_every_loop() -> list[Any]:
    """From now on each event loop with a selector is metered from its first moment on. Returns their hooks."""
    from openrtc_introspect_core._asyncio import AsyncioHook
    from openrtc_introspect_core._ledger import Ledger

    hooks: list[Any] = []
    made = BaseSelectorEventLoop.__init__

    def init(self: Any, *args: Any, **options: Any) -> None:
        made(self, *args, **options)
        ledger = Ledger(ContextVar("session"), time.perf_counter, 0.05)
        hook = AsyncioHook(
            self,
            ledger,
            meter=True,
            on_stall=lambda since, until: None,
            on_fault=lambda problem, _error: faults.append(problem),
        )
        hook.attach()
        hooks.append(hook)

    faults: list[str] = []
    BaseSelectorEventLoop.__init__ = init  # type: ignore[method-assign]
    return hooks


def run_one(module: str, metered: bool) -> dict[str, Any]:
    """The outcomes of one module's tests in this process."""
    loops = meter_every_loop() if metered else []
    suite = unittest.defaultTestLoader.loadTestsFromName(f"test.test_asyncio.{module}")
    outcomes = Outcomes()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        suite.run(outcomes)
    return {"loops": len(loops), "tests": outcomes.by_test}


def run_in_a_process(module: str, metered: bool) -> dict[str, Any]:
    """The same in a process of its own."""
    command = [sys.executable, __file__, "--one", module, "with" if metered else "without"]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=LIMIT_S, check=False, stdin=subprocess.DEVNULL
    )
    if done.returncode:
        raise RuntimeError(f"{module} {'with' if metered else 'without'} metering: {done.stderr[-2000:]}")
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return told


def differences(module: str) -> tuple[int, int, list[str]]:
    """(tests, metered loops, what differs), tried again where something does: some of these tests watch the clock."""
    for _ in range(3):
        with ThreadPoolExecutor(2) as pool:
            without, metered = pool.map(run_in_a_process, (module, module), (False, True))
        names = sorted(without["tests"].keys() | metered["tests"].keys())
        found = [
            f"{name}: without {without['tests'].get(name)}, with {metered['tests'].get(name)}"
            for name in names
            if without["tests"].get(name) != metered["tests"].get(name) and name not in KNOWN
        ]
        if not found:
            break
    return len(names), metered["loops"], found


def main() -> int:
    """1 where an outcome differs, or nothing was tested at all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("modules", nargs="*")
    parser.add_argument("--one", nargs=2, metavar=("MODULE", "WITH"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        told = run_one(options.one[0], options.one[1] == "with")
        print(json.dumps(told))
        return 0
    modules = options.modules or available()
    if not modules:
        print("this Python ships no tests of asyncio: nothing tested")
        return 1
    tests = loops = 0
    differing: list[str] = []
    for module in modules:
        count, metered, found = differences(module)
        tests, loops = tests + count, loops + metered
        differing += found
        print(f"{module}: {count} tests, {metered} metered loops, {len(found)} differ", flush=True)
    for line in differing:
        print(f"  {line}")
    for name in sorted(KNOWN):
        print(f"  known to differ, and passed over: {name}")
    version = ".".join(map(str, sys.version_info[:3]))
    print(f"Python {version}: {tests} tests, {loops} metered loops, {len(differing)} differ")
    return int(bool(differing) or not loops)


if __name__ == "__main__":
    sys.exit(main())
