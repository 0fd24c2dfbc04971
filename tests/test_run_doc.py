"""The program in docs/run.md is found as the page says, by the commands of the page."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

PAGE = (Path(__file__).parent.parent / "docs/run.md").read_text(encoding="utf-8")
WITHIN_S = 120.0


def block_of(kind: str) -> str:
    """Return the page's only block of this kind."""
    (block,) = re.findall(rf"^```{kind}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    assert isinstance(block, str)
    return block


def words_of(line: str) -> list[str]:
    """Return a line's columns."""
    return re.split(r"\s{2,}", line.strip())


@pytest.mark.slow
def test_the_program_of_the_page_is_found_at_the_line_that_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """By `openrtc run` and `openrtc blocks`, in the columns of the page."""
    monkeypatch.setenv("COLUMNS", "150")
    titles, row = map(words_of, block_of("text").splitlines())
    openrtc = [sys.executable, "-m", "openrtc_top"]
    with tempfile.TemporaryDirectory(prefix="rt") as folder:
        monkeypatch.setenv("OPENRTC_RUNTIME_DIR", os.path.join(folder, "run"))
        (Path(folder) / "my_worker.py").write_text(block_of("python"))
        with subprocess.Popen([*openrtc, "run", "--", sys.executable, "my_worker.py"], cwd=folder) as program:
            try:
                found: list[list[str]] = []
                deadline = time.monotonic() + WITHIN_S
                while not any(row[-2] in line for line in found):
                    assert program.poll() is None, found
                    assert time.monotonic() < deadline, found
                    asked = subprocess.run([*openrtc, "blocks"], capture_output=True, text=True, check=False)
                    found = [words_of(line) for line in asked.stdout.splitlines()]
            finally:
                program.kill()
    assert found[0] == titles
    shown = next(line for line in found if row[-2] in line)
    assert shown[2:6] == row[2:6]
