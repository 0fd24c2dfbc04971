"""A short run of the soak; `nox -s soak` is the long one."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="serves no socket")


@pytest.mark.slow
@pytest.mark.parametrize("loop", ["asyncio"])
def test_twenty_thousand_sessions_leave_nothing_behind(loop: str) -> None:
    """No memory, no thread, no file; the totals are the truth, and each watcher got its frames."""
    script = Path(__file__).with_name("soak.py")
    command = [sys.executable, str(script), "--sessions", "20000", "--watchers", "2", "--looks", "5", "--loop", loop]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode in (0, 1), done.stderr
    told = json.loads(done.stdout)
    assert told["problems"] == [], told
    assert told["sessions"] == 20_000
