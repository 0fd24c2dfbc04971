"""Compare CPython's own asyncio tests on metered and plain loops: each test must have the same outcome.

    python tests/cpython/asyncio_suite.py [MODULE ...]     runs each module twice, and prints the differences
    python tests/cpython/asyncio_suite.py --one MODULE with|without     runs it once, and prints the outcomes as JSON

With metering, the hook of an Introspector is attached to every event loop that a test makes. The Introspector itself is
not started: some tests count threads, and would count its threads.
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
"""The modules of test.test_asyncio that are run, if the Python has them."""

_EAGER = "test.test_asyncio.test_eager_task_factory"
KNOWN = {
    # They require that the loop returns the very eager factory that was set. It returns another of the same code.
    f"{_EAGER}.PyEagerTaskFactoryLoopTests.test_eager_task_factory_set",
    f"{_EAGER}.CEagerTaskFactoryLoopTests.test_eager_task_factory_set",
}
"""The tests that are known to differ."""

_GROUPS = "test.test_asyncio.test_taskgroups"
KNOWN_IN_PYTHON = {
    # They ask the garbage collector what refers to an exception that is being thrown into a task. From 3.14 on, that
    # includes a caller of `throw` that is written in Python, such as our generator. Afterwards nothing refers to it.
    f"{_GROUPS}.TestTaskGroup.test_exception_refcycles_propagate_cancellation_error",
    f"{_GROUPS}.TestEagerTaskTaskGroup.test_exception_refcycles_propagate_cancellation_error",
}
"""Those that differ with the meter in Python, from Python 3.14 on."""

LIMIT_S = 300.0


def available() -> list[str]:
    """Return the modules that this Python has. Debian's Pythons come without tests, and have none."""
    with contextlib.suppress(ImportError):
        return [name for name in MODULES if importlib.util.find_spec(f"test.test_asyncio.{name}") is not None]
    return []


class Outcomes(unittest.TestResult):
    """The outcome of each test, by its id."""

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
    """Meter every selector event loop made from now on. Return the list that collects their hooks."""
    from openrtc_introspect_core._accounting.ledger import Ledger
    from openrtc_introspect_core._loops.asyncio_hook import AsyncioHook

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
    """Run one module's tests in this process. Return their outcomes and the number of metered loops."""
    loops = meter_every_loop() if metered else []
    suite = unittest.defaultTestLoader.loadTestsFromName(f"test.test_asyncio.{module}")
    outcomes = Outcomes()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        suite.run(outcomes)
    return {"loops": len(loops), "tests": outcomes.by_test}


def known() -> set[str]:
    """Return the tests that are known to differ here."""
    from openrtc_introspect_core._accounting.fields import COMPILED

    return KNOWN | KNOWN_IN_PYTHON if COMPILED is None and sys.version_info >= (3, 14) else KNOWN


def run_in_a_process(module: str, metered: bool) -> dict[str, Any]:
    """Run one module's tests in a process of its own. Return what `run_one` returns there."""
    command = [sys.executable, __file__, "--one", module, "with" if metered else "without"]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=LIMIT_S, check=False, stdin=subprocess.DEVNULL
    )
    if done.returncode:
        raise RuntimeError(f"{module} {'with' if metered else 'without'} metering: {done.stderr[-2000:]}")
    outcomes: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return outcomes


def differences(module: str) -> tuple[int, int, list[str]]:
    """Return the numbers of tests and of metered loops, and the differences.

    A module that differs is run again, up to three times in all: the outcome of some tests depends on timing.
    """
    for _ in range(3):
        with ThreadPoolExecutor(2) as pool:
            without, metered = pool.map(run_in_a_process, (module, module), (False, True))
        names = sorted(without["tests"].keys() | metered["tests"].keys())
        found = [
            f"{name}: without {without['tests'].get(name)}, with {metered['tests'].get(name)}"
            for name in names
            if without["tests"].get(name) != metered["tests"].get(name) and name not in known()
        ]
        if not found:
            break
    return len(names), metered["loops"], found


def main() -> int:
    """Return the exit code: 1 if an outcome differs, or nothing was tested."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("modules", nargs="*")
    parser.add_argument("--one", nargs=2, metavar=("MODULE", "WITH"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(run_one(options.one[0], options.one[1] == "with")))
        return 0
    modules = options.modules or available()
    if not modules:
        print("this Python has no tests of asyncio: nothing tested")
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
    for name in sorted(known()):
        print(f"  known to differ, and passed over: {name}")
    version = ".".join(map(str, sys.version_info[:3]))
    print(f"Python {version}: {tests} tests, {loops} metered loops, {len(differing)} differ")
    return int(bool(differing) or not loops)


if __name__ == "__main__":
    sys.exit(main())
