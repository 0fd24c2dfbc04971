"""Our server and our commands keep the rules of docs/wire-protocol.md, and the page lists every rule."""

from __future__ import annotations

import asyncio
import random
import re
import sys
import tempfile
import time
from pathlib import Path

import pytest

from openrtc_introspect_core import Introspector
from openrtc_introspect_testing import blockers, conformance

pytestmark = pytest.mark.program

PAGE = (Path(__file__).parent.parent / "docs" / "wire-protocol.md").read_text(encoding="utf-8")


def test_the_page_lists_the_rules_that_are_checked() -> None:
    """They are in the same order, and each has an anchor of its name."""
    listed = re.findall(r'^\| <a id="rule-([a-z-]+)"></a>`([a-z-]+)` \| ', PAGE, re.MULTILINE)
    assert [name for name, _ in listed] == [name for _, name in listed]
    assert [name for name, _ in listed] == [*conformance.SERVER_RULES, *conformance.CLIENT_RULES]


def test_each_rule_links_to_its_source() -> None:
    """The source is a section of the page."""
    headings = {heading.lower().replace(" ", "-") for heading in re.findall(r"^##+ (.+)$", PAGE, re.MULTILINE)}
    links = re.findall(r'^\| <a id="rule-[a-z-]+"></a>.*\(#([a-z-]+)\) \|$', PAGE, re.MULTILINE)
    assert len(links) == len(conformance.SERVER_RULES) + len(conformance.CLIENT_RULES)
    assert set(links) <= headings


@pytest.mark.slow
def test_our_server_keeps_every_rule() -> None:
    """It does so with blocks in its history, and while a session works."""
    chooser = random.Random(1)

    async def main() -> list[str]:
        with tempfile.TemporaryDirectory(prefix="openrtc-c-", dir="/tmp") as folder:
            async with Introspector(
                socket_path=Path(folder) / "w-1.sock", slow_session_threshold_ms=20
            ) as introspector:
                path = introspector.socket_path
                assert path is not None
                with introspector.session("job", agent_name="a"):
                    for _ in range(3):
                        time.sleep(0.03)
                        await asyncio.sleep(0.001)
                    checking = asyncio.create_task(asyncio.to_thread(conformance.check_server, path))
                    while not checking.done():  # changes the figures, so that a reading that consumes them shows
                        blockers.spin(chooser.uniform(0.0005, 0.005)).block()
                        await asyncio.sleep(chooser.uniform(0.001, 0.02))
                    found = await checking
                return [str(finding) for finding in found]

    assert asyncio.run(main()) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [
        ["top", "--once", "--socket", "{socket}"],
        ["ps"],
        ["tasks", "job-c1d550", "--socket", "{socket}"],
        ["waits", "--socket", "{socket}"],
    ],
    ids=["top --once", "ps", "tasks", "waits"],
)
def test_our_commands_keep_every_rule(words: list[str]) -> None:
    """They do so with workers that behave, and with workers that do not."""
    found = conformance.check_client([sys.executable, "-m", "openrtc_top", *words], within_s=60.0)
    assert [str(finding) for finding in found] == []
