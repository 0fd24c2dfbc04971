"""Compare CPython's own tests of task groups metered and plain; `nox -s cpython` compares all of asyncio's."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.program


def _ships_tests() -> bool:
    try:
        return importlib.util.find_spec("test.test_asyncio") is not None
    except ImportError:
        return False


@pytest.mark.slow
@pytest.mark.skipif(not _ships_tests(), reason="this Python ships no tests of asyncio")
def test_cpythons_own_tests_end_the_same_with_metering() -> None:
    """Each test has the same outcome. Both runs are processes of their own."""
    script = Path(__file__).with_name("cpython") / "asyncio_suite.py"
    command = [sys.executable, str(script), "test_taskgroups"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=110, check=False)
    counts = re.search(r"(\d+) tests, (\d+) metered loops, 0 differ$", done.stdout.strip())
    assert counts, done.stdout + done.stderr
    assert int(counts[1]) > 30
    assert int(counts[2]) > 30
