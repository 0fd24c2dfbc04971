"""An answer about waits, whatever the host's objects hold or do."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import pytest
from seen_tasks import cancel, settle

from openrtc_introspect_core import Introspector
from openrtc_introspect_core.wire import Waits
from openrtc_introspect_core.wire._framing import encode

pytestmark = pytest.mark.gil

SECRET = "4929 4444 5555 6666"
"""What a caller has said."""
CALLED: list[str] = []


class Lock(asyncio.Lock):
    """A lock of the host's own, which notes who calls its methods."""

    def __repr__(self) -> str:
        CALLED.append("__repr__")
        return SECRET

    def __eq__(self, other: object) -> bool:
        CALLED.append("__eq__")
        return True

    def __hash__(self) -> int:
        CALLED.append("__hash__")
        return 1

    def __bool__(self) -> bool:
        CALLED.append("__bool__")
        return True

    @property
    def owner(self) -> str:
        CALLED.append("owner")
        return SECRET


async def asked_while_all_wait() -> Waits:
    """Return the whole answer of a worker whose tasks, threads and callbacks hold the secret in every way."""
    loop, lock, let_go = asyncio.get_running_loop(), Lock(), threading.Event()
    queue: asyncio.Queue[str] = asyncio.Queue(1)
    queue.put_nowait(SECRET)
    pool = ThreadPoolExecutor(1)

    def said(card: str) -> None:
        let_go.wait()

    async def holds(card: str) -> None:
        async with lock:
            await asyncio.Event().wait()

    async def takes(card: str) -> None:
        async with lock:
            pass

    async with Introspector(socket_path=False, black_box=False) as introspector:

        async def session(number: int, body: Callable[[], Awaitable[Any]]) -> None:
            with introspector.session(f"job-{number}", agent_name="test"):
                await body()

        bodies: list[Callable[[], Awaitable[Any]]] = [partial(holds, SECRET), partial(queue.put, SECRET)]
        bodies += 2 * [partial(takes, SECRET)]
        bodies += 2 * [partial(loop.run_in_executor, pool, partial(said, card=SECRET))]
        tasks = [asyncio.create_task(session(number, body)) for number, body in enumerate(bodies)]
        loop.call_later(60.0, print, SECRET)
        await settle()
        answers: list[Waits] = []
        asker = threading.Thread(target=lambda: answers.append(introspector.waits()))
        asker.start()
        while asker.is_alive():
            await asyncio.sleep(0.01)
        let_go.set()
        await cancel(*tasks)
    pool.shutdown()
    return answers[0]


@pytest.fixture(scope="module")
def answer() -> Waits:
    CALLED.clear()
    return asyncio.run(asked_while_all_wait())


def test_it_has_no_value_of_the_host_s(answer: Waits) -> None:
    """Names of classes, functions and tasks, lines and times: nothing that a caller has said."""
    assert {"lock", "queue", "executor"} <= {group.kind for group in answer.groups}
    assert answer.executors
    assert SECRET not in encode(answer).decode()


def test_nothing_of_the_host_s_is_called(answer: Waits) -> None:
    """No method of an object that tasks wait for: it might block, or raise, on a thread of ours."""
    assert any(group.kind == "lock" and group.holders for group in answer.groups)
    assert CALLED == []
