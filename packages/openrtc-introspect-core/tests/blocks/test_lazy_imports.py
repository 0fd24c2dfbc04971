"""Lazy imports (Python 3.15) that hold the loop in real time, in processes of their own, with both meters."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest

pytestmark = [
    pytest.mark.slow,
    pytest.mark.gil,
    pytest.mark.skipif(sys.version_info < (3, 15), reason="lazy imports are new in Python 3.15"),
]

# Text, as older Pythons cannot parse it. The library takes its time in code of its own, below the line of use.
AGENT = """
lazy import library_of_modules
lazy from library_of_names import name

async def uses_a_module():
    return library_of_modules.name

async def uses_a_name():
    return name
"""
LIBRARY = """
import time
time.sleep(0.4)
name = "found"
"""
RUN = """
import asyncio, json, sys
from openrtc_introspect_core import Introspector
import agent

async def main():
    options = dict(socket_path=False, black_box=False, stall_log=None, project_roots=[sys.argv[1]])
    async with Introspector(**options) as introspector:
        for work in (agent.uses_a_module, agent.uses_a_name):
            with introspector.session(work.__name__, agent_name="a"):
                assert await asyncio.create_task(work()) == "found"
        blocks = [
            [block.session_id, block.cause, block.detail, block.location.line, block.location.function]
            for block in introspector.blocks() if block.duration_ms > 300
        ]
    print(json.dumps(blocks))

asyncio.run(main())
"""


@pytest.fixture(scope="module", params=["c", "python"])
def blocks(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[list[Any]]:
    """Return what is known of the blocks: session, cause, detail, line and function."""
    own, libraries = tmp_path_factory.mktemp("own"), tmp_path_factory.mktemp("libraries")
    (own / "agent.py").write_text(AGENT, encoding="utf-8")
    for kind in ("modules", "names"):
        (libraries / f"library_of_{kind}.py").write_text(LIBRARY, encoding="utf-8")
    environment = {
        **os.environ,
        "OPENRTC_INTROSPECT_METER": request.param,
        "PYTHONPATH": os.pathsep.join([str(own), str(libraries), *filter(None, sys.path)]),
    }
    command = [sys.executable, "-c", RUN, str(own)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    found: list[list[Any]] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize(
    ("function", "module", "text"),
    [
        ("uses_a_module", "library_of_modules", "return library_of_modules.name"),
        ("uses_a_name", "library_of_names", "return name"),
    ],
)
def test_the_first_use_is_an_import_at_its_line(blocks: list[list[Any]], function: str, module: str, text: str) -> None:
    """The session that uses the name has imported the module, and not who imported the session's code."""
    (block,) = [block for block in blocks if block[0] == function]
    line = next(number for number, each in enumerate(AGENT.splitlines(), 1) if each.strip() == text)
    assert block == [function, "import", module, line, function]
