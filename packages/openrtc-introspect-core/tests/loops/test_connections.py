from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from hostile import Hostile

from openrtc_introspect_core import Introspector
from openrtc_introspect_core._introspector import parts_of
from openrtc_introspect_core._loops.connections import Connection, connection_of, peer_of, reading_sessions
from openrtc_introspect_core._sessions.session import Session
from openrtc_introspect_testing._loops.backends import Backend

Read = Callable[["Kept"], Awaitable[Any]]


class Buffer:
    """What a protocol gives its data to."""

    def __init__(self) -> None:
        self.queue: asyncio.Queue[bytes] = asyncio.Queue()
        self.event = asyncio.Event()
        self.waiter: asyncio.Future[None] | None = None


class Kept(asyncio.Protocol):
    """A protocol that refers to what its readers wait for."""

    def __init__(self) -> None:
        self.queue: asyncio.Queue[bytes] = asyncio.Queue()
        self.future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.buffer = Buffer()
        self.tasks: set[asyncio.Task[Any]] = set()
        self.of_connections: dict[Kept, asyncio.Task[Any]] = {}
        self.task: asyncio.Task[Any] | None = None


async def in_buffer(protocol: Kept) -> None:
    protocol.buffer.waiter = asyncio.get_running_loop().create_future()
    await protocol.buffer.waiter


WAYS: dict[str, Read] = {
    "a future": lambda protocol: protocol.future,
    "a queue": lambda protocol: protocol.queue.get(),
    "a buffer's queue": lambda protocol: protocol.buffer.queue.get(),
    "a buffer's event": lambda protocol: protocol.buffer.event.wait(),
    "a buffer's future": in_buffer,
}


class Scene:
    """A worker with some readers of one protocol."""

    def __init__(self, introspector: Introspector) -> None:
        self.introspector = introspector
        self.protocol = Kept()
        self.tasks: list[asyncio.Task[Any]] = []

    async def read(self, session_id: str | None, read: Read) -> asyncio.Task[Any]:
        """Begin to read in a session's task."""

        async def reading() -> None:
            if session_id is None:
                await read(self.protocol)
                return
            with self.introspector.session(session_id, agent_name="a"):
                await read(self.protocol)

        task = asyncio.ensure_future(reading())
        self.tasks.append(task)
        await asyncio.sleep(0)
        return task

    def readers(self, ready: Any = ()) -> set[str]:
        callbacks: Any = parts_of(self.introspector).loops[0].hook.callbacks
        waiting, referred, _ = reading_sessions(self.protocol, callbacks._bound_in, ready)
        found: set[Session] = waiting or referred
        return {session.session_id for session in found}

    def end(self) -> None:
        for task in self.tasks:
            task.cancel()


def in_scene(run: Backend, act: Callable[[Scene], Awaitable[Any]]) -> Any:
    async def main() -> Any:
        async with Introspector(socket_path=False) as introspector:
            scene = Scene(introspector)
            try:
                return await act(scene)
            finally:
                scene.end()
                await asyncio.gather(*scene.tasks, return_exceptions=True)

    return run(main())


@pytest.mark.gil
@pytest.mark.parametrize("way", WAYS)
def test_who_waits_for_what_a_protocol_has_reads_it(way: str, run: Backend) -> None:
    """On something of the protocol's own, or of an object that it has."""

    async def act(scene: Scene) -> Any:
        await scene.read("reads", WAYS[way])
        await scene.read("another", lambda protocol: asyncio.sleep(60))
        return scene.readers()

    assert in_scene(run, act) == {"reads"}


@pytest.mark.gil
def test_a_reader_that_the_protocol_has_just_woken_still_counts(run_on_asyncio: Backend) -> None:
    """Its future is done, and its task is in the loop's queue."""

    async def act(scene: Scene) -> Any:
        await scene.read("reads", WAYS["a future"])
        scene.protocol.future.set_result(None)
        loop: Any = asyncio.get_running_loop()
        return scene.readers([handle._callback for handle in loop._ready])

    assert in_scene(run_on_asyncio, act) == {"reads"}


@pytest.mark.gil
def test_several_readers_are_all_named(run: Backend) -> None:
    """So that none is blamed."""

    async def act(scene: Scene) -> Any:
        await scene.read("one", WAYS["a queue"])
        await scene.read("two", WAYS["a queue"])
        return scene.readers()

    assert in_scene(run, act) == {"one", "two"}


@pytest.mark.gil
def test_a_task_of_no_session_reads_for_none(run: Backend) -> None:
    """Nobody is guessed."""

    async def act(scene: Scene) -> Any:
        await scene.read(None, WAYS["a queue"])
        return scene.readers()

    assert in_scene(run, act) == set()


@pytest.mark.gil
def test_a_task_that_the_protocol_refers_to_counts_if_nobody_waits(run: Backend) -> None:
    """One that waits for the protocol's data is preferred."""

    async def act(scene: Scene) -> Any:
        scene.protocol.task = await scene.read("serves", lambda protocol: asyncio.sleep(60))
        alone = scene.readers()
        await scene.read("reads", WAYS["a buffer's queue"])
        return alone, scene.readers()

    assert in_scene(run, act) == ({"serves"}, {"reads"})


@pytest.mark.gil
def test_of_a_table_of_connections_only_its_own_entry_counts(run: Backend) -> None:
    """A server's table has the tasks of all others."""

    async def act(scene: Scene) -> Any:
        sleeps: Read = lambda protocol: asyncio.sleep(60)  # noqa: E731
        others = {Kept(): await scene.read(f"other-{number}", sleeps) for number in range(3)}
        scene.protocol.of_connections = others
        without = scene.readers()
        scene.protocol.of_connections = {**others, scene.protocol: await scene.read("serves", sleeps)}
        return without, scene.readers()

    assert in_scene(run, act) == (set(), {"serves"})


@pytest.mark.gil
def test_tasks_of_a_set_are_not_taken_for_readers(run: Backend) -> None:
    """If it has several, they may be all connections'."""

    async def act(scene: Scene) -> Any:
        sleeps: Read = lambda protocol: asyncio.sleep(60)  # noqa: E731
        scene.protocol.tasks = {await scene.read(f"other-{number}", sleeps) for number in range(2)}
        return scene.readers()

    assert in_scene(run, act) == set()


@pytest.mark.gil
def test_a_session_that_has_ended_reads_nothing(run: Backend) -> None:
    """Its task lives on."""

    async def act(scene: Scene) -> Any:
        with scene.introspector.session("ended", agent_name="a"):
            task = await scene.read(None, WAYS["a queue"])
        return scene.readers(), task.done()

    assert in_scene(run, act) == (set(), False)


@pytest.mark.gil
def test_no_code_of_the_host_runs(run: Backend) -> None:
    """Only references are followed."""

    async def act(scene: Scene) -> Any:
        await scene.read("reads", WAYS["a buffer's future"])
        scene.protocol.buffer = Hostile(scene.protocol.buffer)  # type: ignore[assignment]
        return scene.readers()

    assert in_scene(run, act) == {"reads"}


@pytest.mark.parametrize(
    ("peername", "shown"),
    [
        (("10.0.0.7", 5512), "10.0.0.7:5512"),
        (("::1", 5512, 0, 0), "[::1]:5512"),
        ("/run/agent.sock", "/run/agent.sock"),
        ("", None),
        (None, None),
    ],
)
def test_the_other_end_is_its_address(peername: Any, shown: str | None) -> None:
    """A Unix socket's is its path, if it has one."""
    assert peer_of(asyncio.Transport({"peername": peername})) == shown


def test_a_connection_is_described_by_the_other_end_and_its_protocol() -> None:
    """By the protocol alone if the other end is not known."""
    protocol = asyncio.Protocol()
    assert Connection(protocol, None).describe() == "Protocol"
    assert Connection(protocol, asyncio.Transport({"peername": ("::1", 1)})).describe() == "[::1]:1, Protocol"


def test_only_a_transport_s_method_is_a_connection_s() -> None:
    """Not that of an object of the host's, whatever it has."""

    class Like:
        _protocol = asyncio.Protocol()

        def read(self) -> None: ...

    assert connection_of(Like().read) is None
    assert connection_of(print) is None
