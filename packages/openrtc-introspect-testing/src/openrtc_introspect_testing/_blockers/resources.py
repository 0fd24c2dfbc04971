"""What blocking calls wait for: a thread, a slow server, a slow import.

The thread acts at a moment, and so does the server.

Each begins with its `with` block and is gone after it: threads are joined, sockets closed, modules forgotten. Servers
listen on the loopback interface, to one client, for a bounded time.
"""

from __future__ import annotations

import contextlib
import importlib.machinery
import itertools
import socket
import sys
import sysconfig
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from types import ModuleType
from typing import Any

from .deadline import now

_CLIENT_WITHIN_S = 5.0


class At:
    """A thread that calls `function` when `now()` reads `when`.

    The event of the `with` block is set once `function` has returned.
    """

    def __init__(self, when: float, function: Callable[[], object]) -> None:
        self._when = when
        self._function = function
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="openrtc-blocker", daemon=True)

    def __enter__(self) -> threading.Event:
        self._thread.start()
        return self._over

    def __exit__(self, *_: object) -> None:
        self._thread.join()

    def _run(self) -> None:
        sleep_until(self._when)
        self._function()
        self._over.set()


def sleep_until(when: float) -> None:
    if (left := when - now()) > 0.0:
        time.sleep(left)


class SlowServer:
    """A server that answers one HTTP request, when `now()` reads `when`."""

    ANSWER = b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok"

    def __init__(self, when: float) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=1)
        self._listener.settimeout(_CLIENT_WITHIN_S)
        self.address: tuple[str, int] = self._listener.getsockname()
        self._serving = At(now(), lambda: self._serve(when))

    def __enter__(self) -> SlowServer:
        self._serving.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):  # wakes the accept that no client has come to
            self._listener.shutdown(socket.SHUT_RDWR)
        self._serving.__exit__()
        self._listener.close()

    def _serve(self, when: float) -> None:
        with contextlib.suppress(OSError), self._listener.accept()[0] as connection:  # the client may be gone
            connection.settimeout(_CLIENT_WITHIN_S)
            asked = b""
            while not asked.endswith(b"\r\n\r\n"):
                if not (data := connection.recv(4096)):
                    return
                asked += data
            sleep_until(when)
            connection.sendall(self.ANSWER)


@contextlib.contextmanager
def heavy_module(until: float) -> Iterator[str]:
    """Yield the name of a module whose first import lasts until `until`."""
    name = f"openrtc_heavy_{next(_numbers)}"
    finder = _Finder(name, until)
    sys.meta_path.insert(0, finder)
    try:
        yield name
    finally:
        sys.meta_path.remove(finder)
        sys.modules.pop(name, None)


_numbers = itertools.count(1)
_SOURCE = """
from collections import deque
from itertools import repeat, starmap
from openrtc_introspect_testing._blockers.deadline import within
deque(within({until!r}, starmap(compile, repeat(({part!r}, __file__, "exec")))), maxlen=0)
"""
_PART = "def f(a, b=1, *c, **d):\n    return [x * 10 for x in c if x] + [a, b, d.get('k', 1)]\n" * 4


class _Finder:
    """A finder of one module, as if it were installed.

    The source of the module compiles other code until the moment.
    """

    def __init__(self, name: str, until: float) -> None:
        self._name = name
        self._until = until

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if name != self._name:
            return None
        file = f"{sysconfig.get_paths()['purelib']}/{name}.py"
        spec = importlib.machinery.ModuleSpec(name, _Loader(name, file, self._until), origin=file)
        spec.has_location = True
        return spec


class _Loader(importlib.machinery.SourceFileLoader):
    def __init__(self, name: str, path: str, until: float) -> None:
        super().__init__(name, path)
        self._source = _SOURCE.format(part=_PART, until=until).encode()

    def path_stats(self, path: str) -> dict[str, Any]:
        raise OSError(path)  # then no bytecode is read, and none written

    def get_data(self, path: str) -> bytes:
        return self._source
