"""The demo's worker as a child process: started, waited for, and ended with everything it left.

It ends by itself when this process is gone: the pipe to its stdin then closes.
"""

from __future__ import annotations

import contextlib
import select
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

CULPRIT = "job-blocks-now-and-then"
START_S = 20.0
END_S = 3.0
READY = b"ready\n"


class DemoFailed(Exception):
    """The demo's worker did not start."""


@contextlib.contextmanager
def demo_worker(sessions: int) -> Iterator[Path]:
    """The socket of a demo worker, while the block lasts. Raises DemoFailed."""
    folder = Path(tempfile.mkdtemp(prefix="openrtc-demo-"))  # 0700
    socket = folder / "demo.sock"
    try:
        # In a session of its own, Ctrl-C in the terminal does not reach it.
        worker = subprocess.Popen(
            [sys.executable, "-m", "openrtc_top._demo_worker", str(socket), str(sessions)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        try:
            _wait_until_ready(worker)
            yield socket
        finally:
            _end(worker)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _wait_until_ready(worker: subprocess.Popen[bytes]) -> None:
    assert worker.stdout is not None
    assert worker.stderr is not None
    said = b""
    if select.select([worker.stdout], [], [], START_S)[0]:
        said = worker.stdout.readline()
    if said == READY:
        return
    worker.kill()
    lines = worker.stderr.read().decode(errors="replace").strip().splitlines()
    why = lines[-1] if lines else f"it said nothing within {START_S:.0f} s"
    raise DemoFailed(f"the demo worker did not start: {why}")


def _end(worker: subprocess.Popen[bytes]) -> None:
    for pipe in (worker.stdin, worker.stdout, worker.stderr):
        if pipe:
            with contextlib.suppress(OSError):
                pipe.close()
    try:
        worker.wait(END_S)
    except subprocess.TimeoutExpired:
        worker.kill()
        worker.wait()
