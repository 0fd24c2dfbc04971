"""Pools of HTTP clients: a connection that one session has opened answers another one's request."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from importlib import import_module
from typing import Any

import pytest

from openrtc_introspect_core import Block, Introspector

aiohttp: Any = pytest.importorskip("aiohttp")
httpx: Any = pytest.importorskip("httpx")

HOLD_S = 0.2


Get = Callable[[str], Awaitable[bytes]]


@asynccontextmanager
async def of_aiohttp() -> AsyncIterator[Get]:
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=1)) as client:

        async def get(url: str) -> bytes:
            async with client.get(url) as response:
                body: bytes = await response.read()
                return body

        yield get


@asynccontextmanager
async def of_httpx() -> AsyncIterator[Get]:
    async with httpx.AsyncClient(limits=httpx.Limits(max_connections=1), trust_env=False) as client:

        async def get(url: str) -> bytes:
            response = await client.get(url)
            body: bytes = response.content
            return body

        yield get


CLIENTS = {"aiohttp": of_aiohttp, "httpx": of_httpx}
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


PROTOCOLS = {
    "aiohttp": ("aiohttp.client_proto", "ResponseHandler"),
    "httpx": ("anyio._backends._asyncio", "StreamProtocol"),
}
"""The module and the class of the protocol by which each client reads."""


@pytest.mark.parametrize("client", CLIENTS)
def test_a_block_in_a_pooled_connection_s_callback_is_the_session_s_that_waits_for_its_data(
    client: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The opener's session lives on, and neither pool makes a second connection."""
    module, name = PROTOCOLS[client]
    kind = getattr(import_module(module), name)
    received = kind.data_received
    holding = False

    def data_received(protocol: Any, data: bytes) -> None:
        if holding:
            time.sleep(HOLD_S)
        received(protocol, data)

    monkeypatch.setattr(kind, "data_received", data_received)

    async def main() -> tuple[int, list[Block]]:
        nonlocal holding
        connections = 0

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal connections
            connections += 1
            while True:
                try:
                    await reader.readuntil(b"\r\n\r\n")
                except asyncio.IncompleteReadError:
                    writer.close()
                    return
                writer.write(ANSWER)

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        async with Introspector(socket_path=False, stall_log=None) as introspector, CLIENTS[client]() as get:
            opened, over = asyncio.Event(), asyncio.Event()

            async def opens() -> None:
                with introspector.session("opener", agent_name="a"):
                    await get(url)
                    opened.set()
                    await over.wait()

            async def uses() -> None:
                with introspector.session("user", agent_name="a"):
                    assert await get(url) == b"ok"

            opening = asyncio.create_task(opens())
            await opened.wait()
            holding = True
            await asyncio.create_task(uses())
            holding = False
            while not introspector.blocks():
                await asyncio.sleep(0.01)
            over.set()
            await opening
            server.close()
            return connections, introspector.blocks()

    connections, blocks = asyncio.run(main())
    of_callback = [block.session_id for block in blocks if block.cause == "callback"]
    assert (connections, of_callback) == (1, ["user"])
