"""The table of causes against everything that is about causes: the classification, the docs, the blockers."""

from __future__ import annotations

import ast
import inspect
import re
from pathlib import Path

import pytest

from openrtc_introspect_core._blocks import classification
from openrtc_introspect_core._diagnosis.advice import ADVICE
from openrtc_introspect_core._diagnosis.cause import CAUSES, NOT_LOOP_CODE, UNATTRIBUTED, UNLOCATED, Cause, causes_of
from openrtc_introspect_testing import blockers

DOCS = Path(__file__).parents[4] / "docs"
CULPRITS = {"session": "the session", "thread-call": "the session whose calls in threads", "none": "unattributed"}
"""How the page's column of culprits begins."""


def text(page: str) -> str:
    return (DOCS / page).read_text(encoding="utf-8")


def documented() -> dict[str, tuple[str, str]]:
    """(how it is recognised, culprit) of each cause in the page's table."""
    _, _, table = text("measuring.md").partition("| cause | how it is recognised | culprit |\n")
    table, _, _ = table.partition("\n\n")
    rows = re.findall(r"^\| `(.+?)` \| (.+) \| (.+) \|$", table, re.MULTILINE)
    return {name: (how, culprit) for name, how, culprit in rows}


def test_the_classification_names_each_cause_and_no_other() -> None:
    """Every text in a first argument of Classification."""
    named = set()
    for node in ast.walk(ast.parse(inspect.getsource(classification))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Classification":
            parts = ast.walk(node.args[0])
            named |= {part.value for part in parts if isinstance(part, ast.Constant) and isinstance(part.value, str)}
    assert named == set(CAUSES)


def test_the_page_lists_them_in_the_tables_order() -> None:
    """Each with a row."""
    assert list(documented()) == list(CAUSES)


@pytest.mark.parametrize("cause", CAUSES.values(), ids=CAUSES)
def test_the_page_says_of_a_cause_what_the_table_does(cause: Cause) -> None:
    """What it means, and whom a block of it names."""
    how, culprit = documented()[cause.name]
    assert re.match(rf"{cause.meaning}(?:[:;,.]|$)", how)
    assert culprit.startswith(CULPRITS[cause.culprit])
    assert culprit.startswith(CULPRITS["thread-call"]) == (cause.culprit == "thread-call")


@pytest.mark.parametrize("page", ["wire-protocol.md", "glossary.md"])
def test_other_pages_refer_to_the_page(page: str) -> None:
    """They list no causes that could be missing there."""
    (line,) = (line for line in text(page).splitlines() if re.match(r"(\| `cause` \||- \*\*cause\*\*)", line))
    assert "](measuring.md#blocks)" in line
    assert re.findall(r"\b(?:sync-call|burst|gil-contention|descheduled)\b", line) == []


@pytest.mark.parametrize("cause", CAUSES.values(), ids=CAUSES)
def test_a_cause_has_advice_of_its_own(cause: Cause) -> None:
    """In one line, under a key that no other cause has; and its finding knows of it."""
    assert ADVICE[cause.advice_key] == (cause.fix, cause.runbook, cause.section)
    assert [each.name for each in CAUSES.values() if each.advice_key == cause.advice_key] == [cause.name]
    assert cause.name in causes_of(cause.finding)
    assert "\n" not in cause.fix


def test_what_a_session_is_blamed_for_is_a_slow_session() -> None:
    """Or asks for collections. Other findings are about causes that blame no session's step."""
    assert {*causes_of("slow-session"), *causes_of("explicit-gc")} == CAUSES.keys() - UNATTRIBUTED
    assert NOT_LOOP_CODE <= UNATTRIBUTED
    assert UNLOCATED <= UNATTRIBUTED


def test_each_cause_can_be_made_by_a_blocker() -> None:
    """All but the one that only a crowded machine brings about."""
    made = {cause for make in blockers.all_kinds().values() for cause in make(0.1).expected_causes}
    assert made == CAUSES.keys() - {"descheduled"}
