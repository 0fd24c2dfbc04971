"""The demo's worker as a child process: started, awaited, and cleaned up.

The worker ends by itself when this process is gone, since the pipe to its stdin then closes.
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
    """Run a demo worker while the `with` block lasts, and yield its socket.

    Raises DemoFailed.
    """
    try:
        folder = Path(tempfile.mkdtemp(prefix="openrtc-demo-"))  # 0700
    except OSError as error:  # everything is read-only, in a container for example
        raise DemoFailed(f"no folder for the demo's socket: {error.strerror}; set TMPDIR to one") from None
    socket = folder / "demo.sock"
    try:
        # In a session of its own, Ctrl-C in the terminal does not reach it.
        worker = subprocess.Popen(
            [sys.executable, "-m", "openrtc_top._demo.worker", str(socket), str(sessions)],
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
    line = b""
    if select.select([worker.stdout], [], [], START_S)[0]:
        line = worker.stdout.readline()
    if line == READY:
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
