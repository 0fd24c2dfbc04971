"""The table of kinds of waits against the docs and the rules."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from openrtc_introspect_core._diagnosis.wait_kind import WAIT_KINDS, WaitKind
from openrtc_introspect_core._waits.anyio_rules import ANYIO
from openrtc_introspect_core._waits.asyncio_rules import ASYNCIO
from openrtc_introspect_core._waits.client_rules import CLIENTS
from openrtc_introspect_core._waits.trio_rules import TRIO

PAGE = Path(__file__).parents[4] / "docs" / "waits.md"


def documented() -> dict[str, tuple[str, str]]:
    """(what the task waits for, whether it may take any time) of each kind in the page's table."""
    _, _, table = PAGE.read_text(encoding="utf-8").partition("| kind | what the task waits for | from outside |\n")
    table, _, _ = table.partition("\n\n")
    rows = re.findall(r"^\| `(.+?)` \| (.+) \| (.*) \|$", table, re.MULTILINE)
    return {name: (meaning, idle) for name, meaning, idle in rows}


def test_the_page_lists_them_in_the_table_s_order() -> None:
    """Each with a row."""
    assert list(documented()) == list(WAIT_KINDS)


@pytest.mark.parametrize("kind", WAIT_KINDS.values(), ids=WAIT_KINDS)
def test_the_page_says_of_a_kind_what_the_table_does(kind: WaitKind) -> None:
    """What it means, and whether what is waited for comes from outside."""
    assert documented()[kind.name] == (kind.meaning, "yes" if kind.idle else "")


@pytest.mark.parametrize("table", [ASYNCIO, ANYIO, TRIO, CLIENTS], ids=["asyncio", "anyio", "trio", "clients"])
def test_rules_name_kinds_of_the_table(table: dict[str, dict[str, object]]) -> None:
    """What they find, and what they describe better."""
    for rules in table.values():
        for rule in rules.values():
            kinds = {getattr(rule, "kind"), *getattr(rule, "refines")} - {""}  # noqa: B009
            assert kinds <= set(WAIT_KINDS)
