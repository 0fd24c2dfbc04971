"""The functions that make a blocker, one for each kind."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import anyio

from . import calls
from .blocker import AsyncBlocker, Blocker, Reading, run_delay_s
from .deadline import now
from .resources import At
from .running_loop import call_soon

STEP_S = 0.010
"""Seconds that one task of a burst takes: less than any sensible threshold."""
_AHEAD_S = 0.002
_POLL_S = 0.001


def sleep(seconds: float) -> Blocker:
    """`time.sleep`."""
    return Blocker("sleep", seconds, calls.sleep, ("sync-call",))


def spin(seconds: float) -> Blocker:
    """A loop in Python."""
    return Blocker("spin", seconds, calls.spin, ("cpu",))


def deepcopy(seconds: float) -> Blocker:
    """`copy.deepcopy`: Python code of the standard library."""
    return Blocker("deepcopy", seconds, calls.clone, ("cpu",))


def sorted(seconds: float) -> Blocker:
    """Sorting, in one C call that keeps the GIL."""
    return Blocker("sorted", seconds, calls.sort, ("native",))


def regex(seconds: float) -> Blocker:
    """A pattern that backtracks, in one C call that keeps the GIL."""
    return Blocker("regex", seconds, calls.match, ("native",))


def json(seconds: float) -> Blocker:
    """Parsing JSON, in one C call that keeps the GIL."""
    return Blocker("json", seconds, calls.parse, ("native",))


def sum(seconds: float) -> Blocker:
    """Adding up numbers, in one C call that keeps the GIL."""
    return Blocker("sum", seconds, calls.add, ("native",))


def hashing(seconds: float) -> Blocker:
    """`hashlib.pbkdf2_hmac`: C code that releases the GIL and computes."""
    return Blocker("hashing", seconds, calls.digest, ("native",))


def zlib(seconds: float) -> Blocker:
    """`zlib.compress`: C code that releases the GIL and computes."""
    return Blocker("zlib", seconds, calls.compress, ("native",))


def sqlite(seconds: float) -> Blocker:
    """Queries that SQLite computes."""
    return Blocker("sqlite", seconds, calls.query, ("native",))


def socket(seconds: float) -> Blocker:
    """`socket.recv` from a slow server.

    The server listens on the loopback interface, and is gone afterwards.
    """
    return Blocker("socket", seconds, calls.receive, ("sync-call",))


def http(seconds: float) -> Blocker:
    """`http.client`, on which `requests` is built, with a server as for `socket`."""
    return Blocker("http", seconds, calls.request, ("sync-call",))


def pipe(seconds: float) -> Blocker:
    """`os.read` of a pipe."""
    return Blocker("pipe", seconds, calls.read_pipe, ("sync-call",))


def lock(seconds: float) -> Blocker:
    """A `threading.Lock` that another thread has."""
    return Blocker("lock", seconds, calls.take_lock, ("sync-call",))


def fsync(seconds: float) -> Blocker:
    """`os.fsync` of a temporary file, again and again.

    Not exact: the block ends with the last call.

    If the temporary directory is in memory, the calls compute instead of waiting; `expected_causes` has the causes.
    """
    return Blocker("fsync", seconds, calls.sync, ("sync-call",), exact=False)


def subprocess(seconds: float) -> Blocker:
    """`subprocess.run` of a program that waits."""
    return Blocker("subprocess", seconds, calls.spawn, ("sync-call",))


def import_(seconds: float) -> Blocker:
    """The first import of a module that is slow to compile.

    The module is forgotten afterwards.
    """
    return Blocker("import", seconds, calls.load, ("import",))


def gc(seconds: float) -> Blocker:
    """Garbage collections that the collector begins by itself.

    Not exact: how long one takes depends on the objects that live in the process.
    """
    return Blocker("gc", seconds, calls.collect, ("gc",), exact=False)


def explicit_gc(seconds: float) -> Blocker:
    """Calls of `gc.collect()`.

    Not exact, as `gc`.
    """
    return Blocker("explicit-gc", seconds, calls.call_collector, ("explicit-gc",), exact=False)


def gil(seconds: float) -> Blocker:
    """One C call that keeps the GIL in another thread; the loop's cannot go on."""
    return Blocker("gil", seconds, calls.starve, ("gil-contention",))


def gil_idle(seconds: float) -> AsyncBlocker:
    """One C call that keeps the GIL in another thread, while the loop waits.

    Timers come due meanwhile.
    """
    return AsyncBlocker("gil-idle", seconds, _hold_gil, ("gil-contention",))


def signal(seconds: float) -> Blocker:
    """`time.sleep` in a signal handler, in the middle of a step.

    The signal is SIGUSR1, whose handler is put back afterwards. It works in the main thread alone, where Python runs
    signal handlers, and not on Windows.
    """
    return Blocker("signal", seconds, calls.interrupt, ("signal",))


def burst(seconds: float) -> AsyncBlocker:
    """Many tasks ready at once, each of which takes 10 ms."""
    return AsyncBlocker("burst", seconds, _burst, ("burst",))


def callback(seconds: float) -> AsyncBlocker:
    """`time.sleep` in a callback of the loop.

    For another kind in a callback: `loop.call_soon(blocker.block)`.

    Trio has no callbacks: it calls such a function in a task of its own, and the cause is that of `sleep`.
    """
    return AsyncBlocker("callback", seconds, _call_back, ("callback",))


_KINDS: Mapping[str, Callable[[float], Blocker | AsyncBlocker]] = MappingProxyType(
    {
        "sleep": sleep, "spin": spin, "deepcopy": deepcopy, "sorted": sorted, "regex": regex, "json": json, "sum": sum,
        "hashing": hashing, "zlib": zlib, "sqlite": sqlite, "socket": socket, "http": http, "pipe": pipe, "lock": lock,
        "fsync": fsync, "subprocess": subprocess, "import": import_, "gc": gc, "explicit-gc": explicit_gc, "gil": gil,
        "gil-idle": gil_idle, "signal": signal, "burst": burst, "callback": callback,
    }
)  # fmt: skip


def all_kinds() -> Mapping[str, Callable[[float], Blocker | AsyncBlocker]]:
    """Return the function that makes a blocker, by the name of its kind.

    For example `all_kinds()["sleep"](0.12)`.
    """
    return _KINDS


# --- holding the loop without a call of the task's own ------------------------------------------------


async def _hold_gil(seconds: float) -> tuple[Reading, Reading, None]:
    readings: list[Reading] = []

    def hold() -> None:
        readings.append(Reading.take())
        calls.add(readings[0].when + seconds)
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
        calls.spin(min(now() + STEP_S, until))
        readings.append(Reading.take())

    async with anyio.create_task_group() as group:
        for _ in range(1 + int(seconds / STEP_S)):
            group.start_soon(step)
        await anyio.sleep(0)  # until all of them wait
        delay_before_s = run_delay_s()
        go.set()
    return readings[0], readings[-1], delay_before_s


async def _call_back(seconds: float) -> Blocker:
    blocker = sleep(seconds)
    over = anyio.Event()

    def call() -> None:
        blocker.block()
        over.set()

    call_soon(call)
    await over.wait()
    return blocker
