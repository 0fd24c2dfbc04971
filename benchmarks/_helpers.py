"""What blocks wait for: a slow server in a process of its own, modules that are heavy to import, a thread
that keeps the GIL.

    python -m benchmarks._helpers

is the server: it prints its port, and answers GET /SECONDS after so many.
"""

from __future__ import annotations

import contextlib
import http.server
import importlib.machinery
import queue
import subprocess
import sys
import sysconfig
import threading
import time
from collections.abc import Iterator, Sequence
from types import ModuleType
from typing import Any

from ._work import now


class _Slow(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        time.sleep(float(self.path[1:]))
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"ok")

    def log_message(self, format: str, *args: Any) -> None: ...


@contextlib.contextmanager
def slow_server() -> Iterator[tuple[str, int]]:
    command = [sys.executable, "-m", "benchmarks._helpers"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield "127.0.0.1", int(process.stdout.readline())
        finally:
            process.kill()


class HeavyModules(importlib.machinery.SourceFileLoader):
    """Finds and loads bench_heavy_LINES_NUMBER: as if installed, without a file."""

    PREFIX = "bench_heavy_"
    ONE = "def f{0:05}(a, b=1, *c, **d):\n    return [x * 1{0:05} for x in c if x] + [a, b, d.get('k', 1)]\n"
    source = b""

    def __init__(self, name: str = "", path: str = "") -> None:
        super().__init__(name, path)

    @classmethod
    def find_spec(
        cls, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if not name.startswith(cls.PREFIX):
            return None
        file = f"{sysconfig.get_paths()['purelib']}/{name}.py"
        spec = importlib.machinery.ModuleSpec(name, cls(name, file), origin=file)
        spec.has_location = True
        return spec

    def path_stats(self, path: str) -> dict[str, Any]:
        raise OSError(path)  # no bytecode: it is the first import

    def get_data(self, path: str) -> bytes:
        return self.source[: int(self.name.split("_")[2]) * len(self.ONE.format(0))]

    @classmethod
    def install(cls) -> float:
        """Returns seconds per LINES."""
        cls.source = "".join(cls.ONE.format(number) for number in range(30_000)).encode()
        sys.dont_write_bytecode = True
        sys.meta_path.insert(0, cls)
        least = min(cls._import_time(number) for number in range(3))
        return least / 400

    @classmethod
    def _import_time(cls, number: int) -> float:
        began = now()
        __import__(f"{cls.PREFIX}400_{number}")
        return now() - began


class GilHog:
    """A thread that, told to, keeps the GIL in one C call."""

    def __init__(self) -> None:
        self._orders: queue.SimpleQueue[tuple[float, int, threading.Event]] = queue.SimpleQueue()
        self.held: queue.SimpleQueue[tuple[float, float]] = queue.SimpleQueue()
        """(start, end) of each."""
        threading.Thread(target=self._work, daemon=True).start()

    def hold(self, size: int, after_s: float = 0.0) -> threading.Event:
        """sum(range(size)), begun `after_s` from now or when the GIL is to be had. The event is set right before."""
        begins = threading.Event()
        self._orders.put((after_s, size, begins))
        return begins

    def _work(self) -> None:
        while True:
            after_s, size, begins = self._orders.get()
            time.sleep(after_s)
            start = now()
            begins.set()
            sum(range(size))
            self.held.put((start, now()))


if __name__ == "__main__":
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Slow)
    print(server.server_port, flush=True)
    server.serve_forever()
