"""Each promise in SECURITY.md names a test that exists and notices a fault."""

from __future__ import annotations

import re
from pathlib import Path

from mutations import MUTATIONS

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
PROMISES = [line for line in PAGE.partition("## Promises")[2].splitlines() if line.startswith("| ")][1:]
NAMED = re.findall(r"`((?:[\w/]+/)?test_\w+\.py)::(test_\w+)`", PAGE)


def test_each_promise_names_a_test() -> None:
    """Each row of the table names at least one."""
    assert len(PROMISES) > 10
    for line in PROMISES:
        assert re.search(r"`[\w/]+\.py::test_\w+`", line), line


def test_each_test_that_is_named_exists() -> None:
    """It is in a file of that name, among the tests of a package or of the repository."""
    missing = []
    for file, name in NAMED:
        found = [*ROOT.glob(f"packages/*/tests/**/{file}"), *ROOT.glob(f"tests/{file}")]
        if not any(f"def {name}(" in path.read_text(encoding="utf-8") for path in found):
            missing.append(f"{file}::{name}")
    assert NAMED
    assert missing == []


def test_each_test_that_is_named_is_seen_to_fail() -> None:
    """A mutation names it as one that must notice."""
    noticed = {test.partition("[")[0] for each in MUTATIONS for test in each.tests}
    missing = [f"{file}::{name}" for file, name in NAMED if not any(t.endswith(f"/{file}::{name}") for t in noticed)]
    assert missing == []
