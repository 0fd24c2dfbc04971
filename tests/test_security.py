"""SECURITY.md against the tests that it names."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
PROMISES = [line for line in PAGE.partition("## Promises")[2].splitlines() if line.startswith("| ")][1:]
NAMED = re.findall(r"`((?:[\w/]+/)?test_\w+\.py)::(test_\w+)`", PAGE)


def test_each_promise_names_a_test() -> None:
    """At least one."""
    assert len(PROMISES) > 10
    for line in PROMISES:
        assert re.search(r"`[\w/]+\.py::test_\w+`", line), line


def test_each_test_that_is_named_exists() -> None:
    """In a file of that name, among the tests of a package or of the repository."""
    missing = []
    for file, name in NAMED:
        found = [*ROOT.glob(f"packages/*/tests/{file}"), *ROOT.glob(f"tests/{file}")]
        if not any(f"def {name}(" in path.read_text(encoding="utf-8") for path in found):
            missing.append(f"{file}::{name}")
    assert NAMED
    assert missing == []
