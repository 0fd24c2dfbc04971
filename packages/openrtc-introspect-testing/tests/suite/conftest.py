"""The suites that pytester writes, and runs with the plugin."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import entry_points
from typing import Any

import pytest

PLUGIN = "openrtc_introspect_testing.plugin"
INSTALLED = any(entry.value == PLUGIN for entry in entry_points(group="pytest11"))

LEAVE_OUT = ["-p", "no:hypothesispytest"]
"""A plugin that loads all of hypothesis anew for each run."""

Run = Callable[..., pytest.RunResult]


def run_suite(
    run: Callable[..., pytest.RunResult], *arguments: str, asyncio_mode: str | None = None, pytest_trio: bool = False
) -> Any:
    """Run pytest with warnings as errors, on the suite in pytester's folder."""
    asyncio = (
        ["-p", "no:asyncio"]
        if asyncio_mode is None
        else [f"--asyncio-mode={asyncio_mode}", "-o", "asyncio_default_fixture_loop_scope=function"]
    )
    trio = [] if pytest_trio else ["-p", "no:trio"]
    plugin = [] if INSTALLED else ["-p", PLUGIN]
    return run(*plugin, *asyncio, *trio, "-W", "error", "-p", "no:cacheprovider", *LEAVE_OUT, *arguments)


@pytest.fixture
def suite(pytester: pytest.Pytester) -> Run:
    """Run pytest in this process, on the suite that the test has written."""
    return lambda *arguments, **options: run_suite(pytester.runpytest_inprocess, *arguments, **options)


@pytest.fixture
def suite_in_subprocess(pytester: pytest.Pytester) -> Run:
    """Run pytest in a process of its own, on the suite that the test has written."""
    return lambda *arguments, **options: run_suite(pytester.runpytest_subprocess, *arguments, **options)


BLOCKS = """
    import asyncio, threading, time
    import pytest

    def look_up():
        time.sleep(0.5)

    async def main():
        look_up()
"""


@pytest.fixture
def blocking() -> str:
    """Return the beginning of a suite: `main()` calls `look_up()`, which blocks the loop at line 5."""
    return BLOCKS
