"""The event loops of commands: what is reported of callbacks that fail."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import anyio
import pytest

from openrtc_top._client.loop import run_loop


async def cancel_as_data_come(path: Path) -> None:
    """Cancel a read in the round of the loop in which its data come."""
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()
        async with await anyio.connect_unix(path) as near, anyio.create_task_group() as tasks:
            far, _ = server.accept()
            with far:
                tasks.start_soon(near.receive)
                await anyio.wait_all_tasks_blocked()
                far.send(b"x")
                asyncio.get_running_loop().call_soon(tasks.cancel_scope.cancel)
                await anyio.sleep_forever()


async def fail() -> int:
    asyncio.get_running_loop().call_soon(int, "no number")
    await anyio.wait_all_tasks_blocked()
    await asyncio.sleep(0)
    return 7


def test_a_read_that_was_cancelled_in_vain(runtime_dir: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Prints no traceback, whatever the library makes of it."""
    run_loop(cancel_as_data_come, runtime_dir / "s")
    assert caplog.text == ""


def test_other_errors_are_reported(caplog: pytest.LogCaptureFixture) -> None:
    """With their tracebacks, as in any loop."""
    assert run_loop(fail) == 7
    assert "invalid literal for int() with base 10: 'no number'" in caplog.text
