"""The list of mutations is kept: what each changes is still there, and so are the tests that notice it.

Whether they do notice is a session of its own, `python3 noxfile.py mutations`, since it takes minutes.
"""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent


def loaded() -> Any:
    spec = importlib.util.spec_from_file_location("mutations", ROOT / "tests" / "mutations.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


mutations = loaded()


@pytest.mark.parametrize("mutation", mutations.MUTATIONS, ids=lambda mutation: mutation.name)
def test_a_mutation_can_be_made(mutation: Any) -> None:
    """Its text occurs once, and what it becomes is Python."""
    source = (ROOT / mutation.file).read_text(encoding="utf-8")
    compile(mutations.mutated(source, mutation), mutation.file, "exec")


@pytest.mark.parametrize("mutation", mutations.MUTATIONS, ids=lambda mutation: mutation.name)
def test_the_tests_that_notice_it_exist(mutation: Any) -> None:
    """In the files that are named."""
    assert mutation.tests
    for test in mutation.tests:
        file, function = test.partition("[")[0].split("::")
        assert f"def {function}(" in (ROOT / file).read_text(encoding="utf-8")


def test_the_decision_lists_them_all() -> None:
    """In their order."""
    (page,) = (ROOT / "docs" / "decisions").glob("*-which-faults-tests-must-notice.md")
    listed = re.findall(r"^\| ([^|]+?) \| `", page.read_text(encoding="utf-8"), re.MULTILINE)
    assert listed == [mutation.name for mutation in mutations.MUTATIONS]


def test_a_mutation_that_cannot_be_made_is_an_error() -> None:
    """It is not taken for one that was noticed."""
    with pytest.raises(ValueError, match="occurs 0 times, not once"):
        mutations.mutated("pass\n", mutations.MUTATIONS[0])
