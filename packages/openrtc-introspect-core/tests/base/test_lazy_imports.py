"""A host that puts all imports off, in a process of its own."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from openrtc_introspect_core._base import lazy_imports

HOST = """
import asyncio, sys, time
import openrtc_introspect_core
from openrtc_introspect_core import Introspector, read_snapshot

def ours():
    return {name for name in sys.modules if name.startswith("openrtc_introspect_core")}

async def blocks():
    time.sleep(0.2)

async def main():
    assert len(ours()) == 0, ours()
    async with Introspector(socket_path=sys.argv[1], black_box=False, stall_log=None) as introspector:
        loaded = ours()
        with introspector.session("job-1", agent_name="a"):
            await asyncio.create_task(blocks())
            await asyncio.sleep(0.1)
        introspector.snapshot()
        introspector.waits()
        (block,) = [block for block in introspector.blocks() if block.session_id]
        assert block.location.function == "blocks", block
        print(sorted(ours() - loaded))

asyncio.run(main())
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.version_info < (3, 15), reason="lazy imports are new in Python 3.15")
def test_nothing_of_ours_is_imported_while_sessions_run(tmp_path: Path) -> None:
    """An introspector that is attached has loaded what it needs."""
    command = [sys.executable, "-X", "lazy_imports=all", "-c", textwrap.dedent(HOST), str(tmp_path / "w.sock")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (0, "[]\n"), done.stderr


def test_a_package_is_no_other_whose_name_begins_alike() -> None:
    assert [lazy_imports.is_within(name, "a.b") for name in ("a.b", "a.b.c", "a.bc", "a")] == [True, True, False, False]
