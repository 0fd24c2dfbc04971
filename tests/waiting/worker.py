"""A worker of well-behaved calls and one fault, or of healthy ways to wait: `python worker.py NAME`.

It prints "ready" when it serves and the fault has begun, and ends with its stdin.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import anyio
import anyio.to_thread

from openrtc_introspect_core import Introspector

LIFETIME_S = 60
CALLS = 6
IDLE = {"wakeup-lost", "nobody-steps"}
"""Workers without calls that step all the time."""

Fault = Callable[[Introspector], Awaitable[None]]
FAULTS: dict[str, Fault] = {}


def fault(function: Fault) -> Fault:
    """Make it a fault that can be asked for."""
    FAULTS[function.__name__.replace("_", "-")] = function
    return function


@contextlib.contextmanager
def session(introspector: Introspector, session_id: str) -> Iterator[None]:
    with introspector.session(session_id, agent_name="desk", metadata={"tenant": "acme"}):
        yield


async def many(
    introspector: Introspector, number: int, body: Callable[[int], Awaitable[object]], name: str = "call"
) -> None:
    """Run a body in so many sessions at once."""

    async def one(n: int) -> None:
        with session(introspector, f"{name}-{n}"):
            await body(n)

    await asyncio.gather(*(one(n) for n in range(number)))


async def steps() -> None:
    """Behave: a frame each 20 ms, hardly any work."""
    while True:
        await asyncio.sleep(0.02)


def spin(seconds: float) -> None:
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        pass


# --- faults --------------------------------------------------------------------------------------


@fault
async def default_executor(introspector: Introspector) -> None:
    """One session's downloads have all threads; the others look something up."""
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(2))

    async def body(n: int) -> None:
        if n == 0:
            await asyncio.gather(*(asyncio.to_thread(download) for _ in range(20)))
        await asyncio.sleep(0.1)
        await asyncio.to_thread(len, "name")

    await many(introspector, 4, body, "slow")


def download() -> None:
    time.sleep(4.0)


@fault
async def thread_limiter(introspector: Introspector) -> None:
    """Synchronous endpoints have all threads that anyio allows."""
    anyio.to_thread.current_default_thread_limiter().total_tokens = 2

    async def body(_n: int) -> None:
        while True:
            await anyio.to_thread.run_sync(download)

    await many(introspector, 8, body, "endpoint")


@fault
async def lock_of_all(introspector: Introspector) -> None:
    """One lock for everybody's history, held while a model answers."""
    history = asyncio.Lock()

    async def body(n: int) -> None:
        await asyncio.sleep(0.02 * n)
        while True:
            async with history:
                await asyncio.sleep(30.0 if n == 0 else 0.01)
            await asyncio.sleep(0.02)

    await many(introspector, 6, body, "chat")


@fault
async def two_locks(introspector: Introspector) -> None:
    """Two tasks take two locks in opposite order."""
    accounts, ledger = asyncio.Lock(), asyncio.Lock()

    async def body(n: int) -> None:
        first, second = (accounts, ledger) if n == 0 else (ledger, accounts)
        async with first:
            await asyncio.sleep(0.05)
            async with second:
                pass

    await many(introspector, 2, body, "transfer")


@fault
async def leaked_slots(introspector: Introspector) -> None:
    """Slots that are taken and never given back, until nobody gets one."""
    slots = asyncio.Semaphore(3)

    async def body(_n: int) -> None:
        await slots.acquire()
        await asyncio.sleep(0.01)
        await slots.acquire()

    await many(introspector, 9, body, "query")


@fault
async def connection_pool(introspector: Introspector) -> None:
    """Connections that are kept after an error, until the pool has none."""
    pool: asyncio.LifoQueue[object] = asyncio.LifoQueue()
    for _ in range(3):
        pool.put_nowait(object())

    async def body(_n: int) -> None:
        while True:
            await pool.get()
            await asyncio.sleep(0.01)

    await many(introspector, 9, body, "query")


@fault
async def anyio_lock(introspector: Introspector) -> None:
    """A lock of anyio's, held while a model answers."""
    history = anyio.Lock()

    async def body(n: int) -> None:
        await anyio.sleep(0.02 * n)
        while True:
            async with history:
                await anyio.sleep(30.0 if n == 0 else 0.01)
            await anyio.sleep(0.02)

    await many(introspector, 6, body, "chat")


@fault
async def full_queue(introspector: Introspector) -> None:
    """A queue for all whose consumer has ended."""
    transcript: asyncio.Queue[int] = asyncio.Queue(5)

    async def body(n: int) -> None:
        while True:
            await transcript.put(n)

    await many(introspector, 8, body, "speaker")


@fault
async def threading_lock(introspector: Introspector) -> None:
    """A threading lock whose holder is suspended while another comes to it."""
    lock = threading.Lock()

    async def body(n: int) -> None:
        if n == 0:
            with lock:
                await asyncio.sleep(30.0)
        await asyncio.sleep(0.3)
        if lock.acquire(timeout=20.0):
            lock.release()

    await many(introspector, 2, body, "cache")


@fault
async def nobody_ends_them(introspector: Introspector) -> None:
    """Sessions that wait for an event that only their caller's disconnect would set."""

    async def one(n: int) -> None:
        with session(introspector, f"ws-{n}"):
            for _ in range(10):
                await asyncio.sleep(0.02)
            await asyncio.Event().wait()

    async with asyncio.TaskGroup() as tasks:
        for n in range(1000):
            tasks.create_task(one(n))
            await asyncio.sleep(0.3)


@fault
async def pool_a_turn(introspector: Introspector) -> None:
    """A pool of threads for each turn, never shut down."""
    pools: list[ThreadPoolExecutor] = []

    async def body(_n: int) -> None:
        for _ in range(2000):
            pools.append(ThreadPoolExecutor(1))
            await asyncio.wrap_future(pools[-1].submit(len, "turn"))
            await asyncio.sleep(0.05)

    await many(introspector, 1, body, "turns")


@fault
async def thread_a_message(introspector: Introspector) -> None:
    """A thread for each message, which waits for ever."""
    never = threading.Event()

    async def body(_n: int) -> None:
        while True:
            threading.Thread(target=never.wait, daemon=True).start()
            await asyncio.sleep(0.05)

    await many(introspector, 1, body, "messages")


@fault
async def forgotten_tasks(introspector: Introspector) -> None:
    """A task for each frame, which nobody awaits."""
    kept: list[asyncio.Task[object]] = []

    async def body(_n: int) -> None:
        while True:
            kept.append(asyncio.create_task(asyncio.sleep(3600)))
            await asyncio.sleep(0.02)

    await many(introspector, 1, body, "frames")


@fault
async def writer_left_on(introspector: Introspector) -> None:
    """A socket with room is always writable."""
    ours, theirs = socket.socketpair()
    with ours, theirs:

        async def body(_n: int) -> None:
            asyncio.get_running_loop().add_writer(ours, flush)
            await asyncio.Event().wait()

        await many(introspector, 1, body, "sender")


def flush() -> None:
    pass


@fault
async def callback_of_its_own(introspector: Introspector) -> None:
    """A callback that adds itself again."""
    loop = asyncio.get_running_loop()

    def poll() -> None:
        loop.call_soon(poll)

    async def body(_n: int) -> None:
        poll()
        await asyncio.Event().wait()

    await many(introspector, 1, body, "poller")


@fault
async def ticks_from_a_thread(introspector: Introspector) -> None:
    """A thread adds callbacks faster than the loop runs them."""
    loop = asyncio.get_running_loop()

    def feed() -> None:
        while True:
            for _ in range(2000):
                loop.call_soon_threadsafe(on_tick)
            time.sleep(0.002)

    threading.Thread(target=feed, daemon=True, name="feed").start()
    await steps()


def on_tick() -> None:
    spin(2e-6)


@fault
async def wakeup_lost(introspector: Introspector) -> None:
    """A thread completes futures without waking the loop."""
    loop = asyncio.get_running_loop()

    async def body(_n: int) -> None:
        while True:
            answer = loop.create_future()
            threading.Timer(0.05, answer.set_result, (None,)).start()
            await answer

    await many(introspector, 1, body, "asks")


@fault
async def collections_asked_for(introspector: Introspector) -> None:
    """Each turn ends with a full collection of a large heap."""
    heap = [{"n": n, "of": [n]} for n in range(300_000)]

    async def turn(_n: int) -> None:
        await asyncio.sleep(0.1)
        gc.collect()

    n = 0
    while heap:
        await many(introspector, 1, turn, f"turn-{n}")
        n += 1


@fault
async def shared_task(introspector: Introspector) -> None:
    """The first session creates the task that works for all, and ends."""
    work: list[asyncio.Task[None]] = []

    async def writes_for_all() -> None:
        while True:
            spin(0.004)
            await asyncio.sleep(0.01)

    async def first(_n: int) -> None:
        work.append(asyncio.create_task(writes_for_all()))

    await many(introspector, 1, first, "first")
    await steps()


@fault
async def too_many(introspector: Introspector) -> None:
    """Three sessions that each need a third of the loop and more."""

    async def body(_n: int) -> None:
        while True:
            spin(0.045)
            await asyncio.sleep(0.085)

    await many(introspector, 4, body, "scores")


@fault
async def nobody_steps(introspector: Introspector) -> None:
    """Sessions that wait for what is not there: no fault that can be told."""

    async def body(_n: int) -> None:
        await asyncio.Queue().get()

    await many(introspector, 12, body, "idle")


# --- healthy waiting -----------------------------------------------------------------------------


@fault
async def healthy(introspector: Introspector) -> None:
    """Fifty sessions that wait in every healthy way."""
    shutdown, gate, handed = asyncio.Event(), asyncio.Semaphore(4), asyncio.Lock()
    jobs: asyncio.Queue[int] = asyncio.Queue()
    kept: list[socket.socket] = []

    async def own_socket(_n: int) -> None:
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        kept.extend((ours, theirs))
        await asyncio.get_running_loop().sock_recv(ours, 64)

    async def own_socket_and_shutdown(n: int) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(shutdown.wait())
            tasks.create_task(steps() if n % 2 else own_socket(n))

    async def consumer(_n: int) -> None:
        async with asyncio.TaskGroup() as tasks:
            for _ in range(3):
                tasks.create_task(consume())

    async def consume() -> None:
        while True:
            await jobs.get()

    async def short_slot(_n: int) -> None:
        while True:
            async with gate:
                await asyncio.sleep(0.05)

    async def chat(_n: int) -> None:
        said: asyncio.Queue[str] = asyncio.Queue()
        await said.get()

    async def keepalive(_n: int) -> None:
        while True:
            await asyncio.sleep(3600)

    async def in_threads(_n: int) -> None:
        while True:
            await asyncio.to_thread(time.sleep, 0.02)

    async def hands_around(_n: int) -> None:
        while True:
            async with handed:
                await asyncio.sleep(0.002)

    async def serves_jobs() -> None:
        while True:
            jobs.put_nowait(1)
            await asyncio.sleep(0.5)

    bodies = (own_socket, own_socket_and_shutdown, consumer, short_slot, chat, keepalive, in_threads, hands_around)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(serves_jobs())
        for body in bodies:
            tasks.create_task(many(introspector, 6, body, body.__name__))


async def serve(name: str) -> None:
    async with Introspector(name=name) as introspector, asyncio.TaskGroup() as tasks:
        if name not in IDLE:
            tasks.create_task(many(introspector, CALLS, lambda _: steps()))
        tasks.create_task(told(FAULTS[name](introspector)))
        await asyncio.sleep(0.2)
        print("ready", flush=True)


async def told(fault: Awaitable[Any]) -> None:
    await fault
    await asyncio.Event().wait()


def end_with_stdin() -> None:
    sys.stdin.buffer.read()
    os._exit(0)


if __name__ == "__main__":
    signal.alarm(LIFETIME_S)
    threading.Thread(target=end_with_stdin, daemon=True).start()
    asyncio.run(serve(sys.argv[1]))
