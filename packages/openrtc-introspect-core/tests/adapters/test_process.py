"""The introspector that adapters share."""

from __future__ import annotations

import subprocess
import sys
import textwrap


def test_attaching_imports_nothing() -> None:
    """A loop that attaches at its first session does not stand for as long as modules take to load."""
    code = """
        import asyncio, sys
        from openrtc_introspect_core.adapters._process import ProcessIntrospector

        async def main():
            process = ProcessIntrospector({"socket_path": False})
            before = set(sys.modules)
            process.attached()
            print(sorted(set(sys.modules) - before))
            await process.detached()

        asyncio.run(main())
    """
    command = [sys.executable, "-c", textwrap.dedent(code)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "[]\n"
