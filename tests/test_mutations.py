"""The table of mutations is up to date: the text that each replaces exists, and so do the tests that notice it.

`python3 noxfile.py mutations` checks that these tests do notice, which takes minutes.
"""

from __future__ import annotations

from pathlib import Path

import mutations
import pytest
from mutations import MUTATIONS, Mutation

pytestmark = pytest.mark.program

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name)
def test_a_mutation_can_be_made(mutation: Mutation) -> None:
    """Its text occurs once in the file, and the result of the replacement is valid Python."""
    source = (ROOT / mutation.file).read_text(encoding="utf-8")
    compile(mutations.mutated(source, mutation), mutation.file, "exec")


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name)
def test_the_tests_that_notice_it_exist(mutation: Mutation) -> None:
    """The named file defines the named function."""
    assert mutation.tests
    for test in mutation.tests:
        file, function = test.partition("[")[0].split("::")
        assert f"def {function}(" in (ROOT / file).read_text(encoding="utf-8")


def test_every_mutation_is_listed(capsys: pytest.CaptureFixture[str]) -> None:
    """`--list` prints a row for each, in the order of the table."""
    assert mutations.main(["--list"]) == 0
    _titles, _line, *rows = capsys.readouterr().out.splitlines()
    assert [row.split(" | ")[0].removeprefix("| ") for row in rows] == [mutation.name for mutation in MUTATIONS]


def test_a_mutation_that_cannot_be_made_is_an_error() -> None:
    """It does not count as noticed."""
    with pytest.raises(ValueError, match="occurs 0 times, not once"):
        mutations.mutated("pass\n", MUTATIONS[0])
