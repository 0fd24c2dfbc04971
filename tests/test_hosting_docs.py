"""The programs in docs/hosting.md print the output that is shown below them."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = Path(__file__).parent.parent / "docs/hosting.md"
PROGRAMS = re.findall(
    r"^```python\n(.*?)^```\n\n```text\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
)


@pytest.mark.slow
@pytest.mark.parametrize(("program", "printed"), PROGRAMS, ids=range(len(PROGRAMS)))
def test_a_program_prints_what_the_page_says(program: str, printed: str, tmp_path: Path) -> None:
    """Each runs as a script of its own."""
    script = tmp_path / "script.py"
    script.write_text(program)
    command = [sys.executable, str(script)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (result.returncode, result.stdout) == (0, printed), result.stderr


def test_each_program_of_the_page_is_run() -> None:
    """Each Python block of the page is followed by its output."""
    assert len(PROGRAMS) == PAGE.read_text(encoding="utf-8").count("```python") == 2
