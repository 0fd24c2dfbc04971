"""Blocks of callbacks of connections, and of signal handlers: whose they are, and what their detail says."""

from __future__ import annotations

import asyncio
import signal
import socket
import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest

from openrtc_introspect_core import Block, Introspector
from openrtc_introspect_core._blocks.watchdog import Watchdog
from openrtc_introspect_core._introspector import parts_of
from openrtc_introspect_testing._loops.backends import Backend, in_task
from openrtc_introspect_testing._loops.fake_clock import FakeClock

pytestmark = pytest.mark.gil

Hold = Callable[[], None]


def take_sample(introspector: Introspector) -> None:
    """Take one sample from another thread, while this one, the loop's, is held here."""
    sampler = parts_of(introspector).loops[0].stall_sampler
    assert sampler is not None
    thread = threading.Thread(target=sampler.sample)
    thread.start()
    thread.join()


def asleep(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the watchdog's own thread from sampling: the test does."""
    monkeypatch.setattr(Watchdog, "start", lambda self: None)


class Decoder(asyncio.Protocol):
    """A protocol that holds the loop while data comes, and puts the data into a queue."""

    def __init__(self, hold: Hold) -> None:
        self.hold = hold
        self.queue: asyncio.Queue[bytes] = asyncio.Queue()

    def data_received(self, data: bytes) -> None:
        self.hold()
        self.queue.put_nowait(data)


class Buffered(asyncio.BufferedProtocol):
    """The same, with a buffer of its own."""

    def __init__(self, hold: Hold) -> None:
        self.hold = hold
        self.queue: asyncio.Queue[bytes] = asyncio.Queue()
        self.buffer = bytearray(100)

    def get_buffer(self, sizehint: int) -> bytearray:
        return self.buffer

    def buffer_updated(self, nbytes: int) -> None:
        self.hold()
        self.queue.put_nowait(b"")


class Peer:
    """A server that a worker's protocols connect to, and what it sends."""

    def __init__(self) -> None:
        self.writers: list[asyncio.StreamWriter] = []
        self.connected = asyncio.Event()

    async def __aenter__(self) -> Peer:
        async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            self.writers.append(writer)
            self.connected.set()

        self.server = await asyncio.start_server(connected, "127.0.0.1", 0)
        self.port = self.server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *error: object) -> None:
        for writer in self.writers:
            writer.close()
        self.server.close()

    async def send(self) -> None:
        await self.connected.wait()
        self.writers[-1].write(b"data")


async def until(what: Callable[[], Any]) -> Any:
    for _ in range(6000):
        if found := what():
            return found
        await asyncio.sleep(0.005)
    return what()


Act = Callable[[Introspector, Peer, Hold], Any]


def blocks_of(run: Backend, monkeypatch: pytest.MonkeyPatch, act: Act) -> list[Block]:
    """Return the blocks while `act` runs, in each of which samples were taken at one moment.

    There are more of them than tasks: a sample searches at least one for who uses a connection, and as many as it has
    the time for.
    """
    asleep(monkeypatch)

    async def main() -> list[Block]:
        clock = FakeClock()
        async with Introspector(socket_path=False, clock=clock) as introspector, Peer() as peer:

            def hold() -> None:
                clock.advance(0.2)
                for _ in range(10):
                    take_sample(introspector)

            await act(introspector, peer, hold)
            await until(introspector.blocks)
            return introspector.blocks()

    return run(main())


def of_connection(blocks: list[Block]) -> tuple[str | None, str | None, str]:
    (block,) = blocks
    assert block.location is not None
    return block.session_id, block.cause, block.detail or ""


@pytest.mark.parametrize("kind", [Decoder, Buffered])
def test_a_protocol_s_callback_is_the_session_s_that_waits_for_its_data(
    kind: type[Any], run_on_asyncio: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not the opener's. The detail has the other end. The session is not among those that it delayed."""
    ports: list[int] = []

    async def act(introspector: Introspector, peer: Peer, hold: Hold) -> None:
        ports.append(peer.port)
        loop = asyncio.get_running_loop()

        async def opens() -> Any:
            with introspector.session("opener", agent_name="a"):
                return await loop.create_connection(lambda: kind(hold), "127.0.0.1", peer.port)

        async def reads(protocol: Any) -> None:
            with introspector.session("reader", agent_name="a"):
                await protocol.queue.get()

        transport, protocol = await in_task(opens)
        reading = asyncio.ensure_future(reads(protocol))
        await asyncio.sleep(0)
        await peer.send()
        await reading
        transport.close()

    blocks = blocks_of(run_on_asyncio, monkeypatch, act)
    method = "data_received" if kind is Decoder else "buffer_updated"
    assert of_connection(blocks) == (
        "reader", "callback", f"{kind.__name__}.{method}, connection with 127.0.0.1:{ports[0]}",
    )  # fmt: skip
    assert blocks[0].delayed == []


def test_on_uvloop_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    """There the frames show the protocol. Whether the block is found is the heartbeat's to say: the sample is asked."""
    asleep(monkeypatch)

    async def main() -> Any:
        clock = FakeClock()
        async with Introspector(socket_path=False, clock=clock) as introspector, Peer() as peer:
            hook = parts_of(introspector).loops[0].hook
            seen: list[Any] = []

            def hold() -> None:
                frame = sys._getframe()
                end = frame
                while end is not None and end.f_code not in hook.ends.codes:
                    end = end.f_back  # type: ignore[assignment]
                seen.append(hook.seen_running(frame, end))

            async def reads() -> None:
                with introspector.session("reader", agent_name="a"):
                    await protocol.queue.get()

            transport, protocol = await asyncio.get_running_loop().create_connection(
                lambda: Decoder(hold), "127.0.0.1", peer.port
            )
            protocol.transport = transport  # type: ignore[attr-defined]
            reading = asyncio.ensure_future(reads())
            await asyncio.sleep(0)
            await peer.send()
            await reading
            transport.close()
            return seen[0], peer.port

    running, port = Backend("uvloop")(main())
    assert (running.session.session_id, running.callback) == (
        "reader", f"Decoder.data_received, connection with 127.0.0.1:{port}",
    )  # fmt: skip


def test_a_connection_that_only_its_opener_holds_is_the_opener_s(
    run_on_asyncio: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As long as that session lives; afterwards it is unattributed."""

    async def act(introspector: Introspector, peer: Peer, hold: Hold) -> None:
        loop = asyncio.get_running_loop()
        with introspector.session("opener", agent_name="a"):
            transport, protocol = await loop.create_connection(lambda: Decoder(hold), "127.0.0.1", peer.port)
            await peer.send()
            await until(lambda: not protocol.queue.empty())
        await peer.send()
        await until(lambda: protocol.queue.qsize() == 2)
        transport.close()
        await until(lambda: len(introspector.blocks()) == 2)

    blocks = blocks_of(run_on_asyncio, monkeypatch, act)
    assert [(block.session_id, block.cause) for block in blocks] == [("opener", "callback"), (None, "callback")]
    assert all("Decoder.data_received, connection with 127.0.0.1:" in (block.detail or "") for block in blocks)


@pytest.mark.parametrize("how", ["close", "abort", "pause_reading"])
def test_a_transport_that_is_stopped_in_a_callback_is_its_reader_s_all_the_same(
    how: str, run_on_asyncio: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loop's handle shows no callback any more, and its context is the opener's, who lives."""

    async def act(introspector: Introspector, peer: Peer, hold: Hold) -> None:
        loop = asyncio.get_running_loop()
        opened, over = asyncio.Event(), asyncio.Event()
        pool: list[Any] = []

        def stop_and_hold() -> None:
            getattr(pool[0][0], how)()
            hold()

        async def opens() -> None:
            with introspector.session("opener", agent_name="a"):
                pool.append(await loop.create_connection(lambda: Decoder(stop_and_hold), "127.0.0.1", peer.port))
                opened.set()
                await over.wait()

        async def reads() -> None:
            with introspector.session("reader", agent_name="a"):
                await opened.wait()
                await peer.send()
                await pool[0][1].queue.get()
                over.set()

        await asyncio.gather(*(asyncio.ensure_future(each) for each in (opens(), reads())))
        pool[0][0].abort()
        await asyncio.sleep(0)

    session, cause, detail = of_connection(blocks_of(run_on_asyncio, monkeypatch, act))
    assert (session, cause) == ("reader", "callback")
    assert "Decoder.data_received, connection with 127.0.0.1:" in detail


POOL: list[Any] = []
"""Connections that no task's function has in a variable."""


@pytest.mark.parametrize("held", ["by the user", "by both", "by a pool"])
def test_a_pooled_connection_is_its_user_s_or_unattributed(
    held: str, run_on_asyncio: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The opener's session lives, and nobody waits for the data."""

    async def act(introspector: Introspector, peer: Peer, hold: Hold) -> None:
        loop = asyncio.get_running_loop()
        opened, used, over = asyncio.Event(), asyncio.Event(), asyncio.Event()

        async def opens() -> None:
            with introspector.session("opener", agent_name="a"):
                mine: Any = await loop.create_connection(lambda: Decoder(hold), "127.0.0.1", peer.port)
                POOL.append(mine)
                if held != "by both":
                    mine = None
                opened.set()
                await over.wait()

        async def uses() -> None:
            with introspector.session("user", agent_name="a"):
                await opened.wait()
                _mine = None if held == "by a pool" else POOL[0]
                used.set()
                await over.wait()

        tasks = [asyncio.ensure_future(each) for each in (opens(), uses())]
        await used.wait()
        await peer.send()
        await until(introspector.blocks)
        over.set()
        await asyncio.gather(*tasks)
        POOL.pop()[0].close()
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    session_id, cause, detail = of_connection(blocks_of(run_on_asyncio, monkeypatch, act))
    assert (session_id, cause) == ("user" if held == "by the user" else None, "callback")
    assert "Decoder.data_received, connection with 127.0.0.1:" in detail


def test_a_connection_that_a_server_has_accepted_is_the_session_s_that_made_the_server(
    run_on_asyncio: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No pool hands it to another one."""

    class Accepted(Decoder):
        def connection_lost(self, error: Exception | None) -> None:
            ended.append(error)

    async def act(introspector: Introspector, peer: Peer, hold: Hold) -> None:
        loop = asyncio.get_running_loop()
        with introspector.session("serves", agent_name="a"):
            server = await loop.create_server(lambda: Accepted(hold), "127.0.0.1", 0)
            with introspector.no_session():
                client, _ = await loop.create_connection(asyncio.Protocol, *server.sockets[0].getsockname())
                client.write(b"data")
            await until(introspector.blocks)
            client.close()
            await until(lambda: ended)  # the accepted transport is closed in callbacks of the loop
            server.close()

    ended: list[object] = []
    session_id, cause, _ = of_connection(blocks_of(run_on_asyncio, monkeypatch, act))
    assert (session_id, cause) == ("serves", "callback")


class Writer(asyncio.streams.FlowControlMixin, asyncio.Protocol):
    """A protocol that holds the loop when its transport can be written to again."""

    def __init__(self, hold: Hold) -> None:
        super().__init__()
        self.hold = hold

    def connection_made(self, transport: Any) -> None:
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        transport.set_write_buffer_limits(high=1000, low=0)

    def resume_writing(self) -> None:
        self.hold()
        super().resume_writing()


@pytest.mark.parametrize("waits", [True, False])
def test_a_transport_that_can_be_written_to_again_is_the_writer_s(
    waits: bool, run_on_asyncio: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who waits to write is seen. Else, until Python 3.14, the context is that of who has written; later, nobody's."""

    async def act(introspector: Introspector, peer: Peer, hold: Hold) -> None:
        loop = asyncio.get_running_loop()
        read = asyncio.Event()

        async def reads(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await read.wait()
            try:
                while await reader.read(1 << 20):
                    pass
            except ConnectionError:
                pass
            writer.close()
            await asyncio.sleep(0)
            ended.append(writer)

        server = await asyncio.start_server(reads, "127.0.0.1", 0)
        server.sockets[0].setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        pool: dict[str, Any] = {}
        over = asyncio.Event()

        async def opens() -> None:
            with introspector.session("opener", agent_name="a"):
                pool["connection"] = await loop.create_connection(
                    lambda: Writer(hold), *server.sockets[0].getsockname()
                )
                await over.wait()
                pool.clear()

        async def writes() -> None:
            with introspector.session("writer", agent_name="a"):
                transport, protocol = pool["connection"]
                transport.write(b"x" * 500_000)
                if waits:
                    await protocol._drain_helper()
                await over.wait()

        tasks = [asyncio.ensure_future(opens())]
        await until(lambda: pool)
        tasks.append(asyncio.ensure_future(writes()))
        await asyncio.sleep(0)
        take_sample(introspector)  # so that the run delay until here is not the block's
        read.set()
        await until(introspector.blocks)
        pool["connection"][0].abort()
        over.set()
        await asyncio.gather(*tasks)
        await until(lambda: ended)
        server.close()

    ended: list[object] = []
    session_id, cause, detail = of_connection(blocks_of(run_on_asyncio, monkeypatch, act))
    known = waits or sys.version_info < (3, 15)
    assert (session_id, cause) == ("writer" if known else None, "callback")
    assert detail.startswith("Writer.resume_writing, connection with 127.0.0.1:")


def test_another_callback_of_a_session_is_its_own_as_before(
    run_on_asyncio: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And has no detail."""

    async def act(introspector: Introspector, peer: Peer, hold: Hold) -> None:
        with introspector.session("scheduler", agent_name="a"):
            asyncio.get_running_loop().call_soon(hold)
        await asyncio.sleep(0.01)

    assert of_connection(blocks_of(run_on_asyncio, monkeypatch, act)) == ("scheduler", "callback", "")


# --- signals ---------------------------------------------------------------------------------------

needs_signals = pytest.mark.skipif(sys.platform == "win32", reason="raises no such signal")


@pytest.fixture
def handled() -> Any:
    """Return a function that sets a handler of SIGUSR1, which is put back afterwards."""
    before = signal.getsignal(signal.SIGUSR1)
    yield lambda handler: signal.signal(signal.SIGUSR1, handler)
    signal.signal(signal.SIGUSR1, before)


@needs_signals
def test_a_signal_handler_is_nobody_s_and_a_cause_of_its_own(
    on_any_loop: Backend, monkeypatch: pytest.MonkeyPatch, handled: Any
) -> None:
    """The session whose step it interrupts has no part in it. The line is the handler's."""
    asleep(monkeypatch)

    async def main() -> list[Block]:
        clock = FakeClock()
        async with Introspector(socket_path=False, clock=clock) as introspector:

            def handler(number: int, frame: object) -> None:
                clock.advance(0.2)
                take_sample(introspector)

            async def interrupted() -> None:
                signal.raise_signal(signal.SIGUSR1)

            handled(handler)
            with introspector.session("innocent", agent_name="a"):
                await in_task(interrupted)
            return introspector.blocks()

    (block,) = on_any_loop(main())
    assert (block.session_id, block.cause) == (None, "signal")
    assert "handler" in [call.function.rpartition(".")[2] for call in block.stack]


@needs_signals
def test_a_handler_that_is_called_as_a_function_is_its_caller_s(
    run_on_asyncio: Backend, monkeypatch: pytest.MonkeyPatch, handled: Any
) -> None:
    """It is a step like any other."""
    asleep(monkeypatch)

    async def main() -> list[Block]:
        clock = FakeClock()
        async with Introspector(socket_path=False, clock=clock) as introspector:

            def handler(number: int, frame: object) -> None:
                clock.advance(0.2)
                take_sample(introspector)

            async def calls() -> None:
                handler(signal.SIGUSR1, None)

            handled(handler)
            with introspector.session("caller", agent_name="a"):
                await in_task(calls)
            return introspector.blocks()

    (block,) = run_on_asyncio(main())
    assert block.session_id == "caller"
    assert block.cause != "signal"


@needs_signals
def test_a_callback_of_add_signal_handler_is_nobody_s_as_well(
    run_on_asyncio: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though its context has the session that has set it."""

    async def act(introspector: Introspector, peer: Peer, hold: Hold) -> None:
        loop = asyncio.get_running_loop()
        with introspector.session("setter", agent_name="a"):
            loop.add_signal_handler(signal.SIGUSR1, hold)
            signal.raise_signal(signal.SIGUSR1)
            await until(introspector.blocks)
            loop.remove_signal_handler(signal.SIGUSR1)

    (block,) = blocks_of(run_on_asyncio, monkeypatch, act)
    assert (block.session_id, block.cause) == (None, "signal")


@needs_signals
@pytest.mark.slow
def test_on_uvloop_such_a_callback_is_found_by_its_function(monkeypatch: pytest.MonkeyPatch) -> None:
    """Among those that the loop holds for signals."""

    async def main() -> Any:
        async with Introspector(socket_path=False) as introspector:
            hook = parts_of(introspector).loops[0].hook
            loop = asyncio.get_running_loop()
            seen: list[Any] = []

            def on_signal() -> None:
                frame = sys._getframe()
                end = frame
                while end is not None and end.f_code not in hook.ends.codes:
                    end = end.f_back  # type: ignore[assignment]
                seen.append(hook.seen_running(frame, end))

            loop.add_signal_handler(signal.SIGUSR1, on_signal)
            signal.raise_signal(signal.SIGUSR1)
            await until(lambda: seen)
            loop.remove_signal_handler(signal.SIGUSR1)
            loop.call_soon(on_signal)
            await until(lambda: len(seen) == 2)
            return seen

    handled, called = Backend("uvloop")(main())
    assert handled.signal is not None
    assert handled.signal[1].endswith("on_signal")
    assert called.signal is None
