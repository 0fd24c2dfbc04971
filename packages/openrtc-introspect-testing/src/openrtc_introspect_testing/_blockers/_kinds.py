"""The kinds of blockers there are."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import anyio

from . import _calls
from ._blocker import AsyncBlocker, Blocker, Reading, waited
from ._clock import now
from ._helpers import At
from ._running import call_soon

STEP_S = 0.010
"""What one task of a burst takes: within any sensible threshold."""
_AHEAD_S = 0.002
_POLL_S = 0.001


def sleep(seconds: float) -> Blocker:
    """`time.sleep`."""
    return Blocker("sleep", seconds, _calls.sleep, ("sync-call",))


def spin(seconds: float) -> Blocker:
    """A loop in Python."""
    return Blocker("spin", seconds, _calls.spin, ("cpu",))


def deepcopy(seconds: float) -> Blocker:
    """`copy.deepcopy`: Python code of the standard library."""
    return Blocker("deepcopy", seconds, _calls.clone, ("cpu",))


def sorted(seconds: float) -> Blocker:
    """Sorting, in one C call that keeps the GIL."""
    return Blocker("sorted", seconds, _calls.sort, ("native",))


def regex(seconds: float) -> Blocker:
    """A pattern that backtracks, in one C call that keeps the GIL."""
    return Blocker("regex", seconds, _calls.match, ("native",))


def json(seconds: float) -> Blocker:
    """Parsing JSON, in one C call that keeps the GIL."""
    return Blocker("json", seconds, _calls.parse, ("native",))


def sum(seconds: float) -> Blocker:
    """Adding up numbers, in one C call that keeps the GIL."""
    return Blocker("sum", seconds, _calls.add, ("native",))


def hashing(seconds: float) -> Blocker:
    """`hashlib.pbkdf2_hmac`: C code that lets go of the GIL and computes."""
    return Blocker("hashing", seconds, _calls.digest, ("native",))


def zlib(seconds: float) -> Blocker:
    """`zlib.compress`: C code that lets go of the GIL and computes."""
    return Blocker("zlib", seconds, _calls.compress, ("native",))


def sqlite(seconds: float) -> Blocker:
    """Queries that SQLite computes."""
    return Blocker("sqlite", seconds, _calls.query, ("native",))


def socket(seconds: float) -> Blocker:
    """`socket.recv` from a slow server, which is on the loopback interface and gone afterwards."""
    return Blocker("socket", seconds, _calls.receive, ("sync-call",))


def http(seconds: float) -> Blocker:
    """`http.client`, which is what `requests` and its like come down to, with a slow server as `socket` has."""
    return Blocker("http", seconds, _calls.request, ("sync-call",))


def pipe(seconds: float) -> Blocker:
    """`os.read` of a pipe."""
    return Blocker("pipe", seconds, _calls.read_pipe, ("sync-call",))


def lock(seconds: float) -> Blocker:
    """A `threading.Lock` that another thread has."""
    return Blocker("lock", seconds, _calls.take_lock, ("sync-call",))


def fsync(seconds: float) -> Blocker:
    """`os.fsync` of a temporary file, again and again. Not exact: it ends with the last one.

    Where that directory is in memory it computes; `expected_causes` tells what it was.
    """
    return Blocker("fsync", seconds, _calls.sync, ("sync-call",), exact=False)


def subprocess(seconds: float) -> Blocker:
    """`subprocess.run` of a program that waits."""
    return Blocker("subprocess", seconds, _calls.spawn, ("sync-call",))


def import_(seconds: float) -> Blocker:
    """The first import of a module that is heavy to compile. It is forgotten afterwards."""
    return Blocker("import", seconds, _calls.load, ("import",))


def gc(seconds: float) -> Blocker:
    """Garbage collections. Not exact: one takes as long as what lives in the process makes it."""
    return Blocker("gc", seconds, _calls.collect, ("gc",), exact=False)


def gil(seconds: float) -> Blocker:
    """Another thread keeps the GIL in one C call, and the loop's thread cannot go on."""
    return Blocker("gil", seconds, _calls.starve, ("gil-contention",))


def gil_idle(seconds: float) -> AsyncBlocker:
    """Another thread keeps the GIL in one C call while the loop waits, and timers come due."""
    return AsyncBlocker("gil-idle", seconds, _hold_gil, ("gil-contention",))


def burst(seconds: float) -> AsyncBlocker:
    """Many tasks ready at once, each of which takes 10 ms."""
    return AsyncBlocker("burst", seconds, _burst, ("burst",))


def callback(seconds: float) -> AsyncBlocker:
    """`time.sleep` in a callback of the loop. To see another kind in one: `loop.call_soon(blocker.block)`.

    Trio has none: what it is told to call soon, it calls in a task of its own, and the cause is that of `sleep`.
    """
    return AsyncBlocker("callback", seconds, _call_back, ("callback",))


_KINDS: Mapping[str, Callable[[float], Blocker | AsyncBlocker]] = MappingProxyType(
    {
        "sleep": sleep, "spin": spin, "deepcopy": deepcopy, "sorted": sorted, "regex": regex, "json": json, "sum": sum,
        "hashing": hashing, "zlib": zlib, "sqlite": sqlite, "socket": socket, "http": http, "pipe": pipe, "lock": lock,
        "fsync": fsync, "subprocess": subprocess, "import": import_, "gc": gc, "gil": gil, "gil-idle": gil_idle,
        "burst": burst, "callback": callback,
    }
)  # fmt: skip


def all_kinds() -> Mapping[str, Callable[[float], Blocker | AsyncBlocker]]:
    """Every kind's name, and what makes a blocker of it: `all_kinds()["sleep"](0.12)`."""
    return _KINDS


# --- how the loop is held otherwise than by a call of the task's own --------------------------------


async def _hold_gil(seconds: float) -> tuple[Reading, Reading, None]:
    readings: list[Reading] = []

    def hold() -> None:
        readings.append(Reading.take())
        _calls.add(readings[0].when + seconds)
        readings.append(Reading.take())

    with At(now() + _AHEAD_S, hold) as over:
        while not over.is_set():
            await anyio.sleep(_POLL_S)
    return readings[0], readings[1], None


async def _burst(seconds: float) -> tuple[Reading, Reading, float]:
    go = anyio.Event()
    readings: list[Reading] = []
    until = 0.0

    async def step() -> None:
        nonlocal until
        await go.wait()
        if not readings:
            readings.append(Reading.take())
            until = readings[0].when + seconds
        _calls.spin(min(now() + STEP_S, until))
        readings.append(Reading.take())

    async with anyio.create_task_group() as group:
        for _ in range(1 + int(seconds / STEP_S)):
            group.start_soon(step)
        await anyio.sleep(0)  # all of them wait
        waited_before = waited()
        go.set()
    return readings[0], readings[-1], waited_before


async def _call_back(seconds: float) -> Blocker:
    blocker = sleep(seconds)
    over = anyio.Event()

    def call() -> None:
        blocker.block()
        over.set()

    call_soon(call)
    await over.wait()
    return blocker
