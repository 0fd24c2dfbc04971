"""An aiohttp server in which each websocket connection is a session.

    python examples/aiohttp_server.py
    openrtc top                        # in a second terminal

The server hosts its own callers, so that there is something to see: eight of them, on loopback, each asking ten times a
second. One caller asks for a report now and then, and the server reads the report from an archive with a blocking call.
The example needs `pip install openrtc-introspect-core aiohttp`, and openrtc-top to watch it.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import logging
import time

import aiohttp
from aiohttp import web

from openrtc_introspect_core import Introspector

CALLERS = 8
introspection = web.AppKey("introspection", Introspector)


async def call(request: web.Request) -> web.WebSocketResponse:
    """Serve one connection as one session. All work in here is charged to the session."""
    connection = web.WebSocketResponse()
    await connection.prepare(request)
    caller, tenant = request.match_info["caller"], request.query.get("tenant")
    metadata = {"tenant": tenant} if tenant else None
    with request.app[introspection].session(caller, agent_name="desk", metadata=metadata):
        async for message in connection:
            await connection.send_str(read_archive() if message.data == "report" else "hello")
    return connection


def read_archive() -> str:
    """Read from the archive, with a blocking call by mistake."""
    time.sleep(0.3)
    return "a report"


async def introspected(app: web.Application):  # type: ignore[no-untyped-def]  # an async generator, as aiohttp wants it
    """Keep introspection attached as long as the application runs."""
    async with Introspector(name="aiohttp") as app[introspection]:
        yield


def application() -> web.Application:
    app = web.Application()
    app.cleanup_ctx.append(introspected)
    app.router.add_get("/calls/{caller}", call)
    return app


async def ask(client: aiohttp.ClientSession, url: str, number: int, ends_at: float) -> int:
    """Call the server, and return the number of answers."""
    tenant = ("acme", "globex")[number % 2]
    async with client.ws_connect(f"{url}/calls/call-{number}?tenant={tenant}") as connection:
        for answers in itertools.count():
            if time.monotonic() >= ends_at:
                return answers
            await connection.send_str("report" if number == 3 and answers % 20 == 19 else "question")
            await connection.receive_str()
            await asyncio.sleep(0.1)
    return 0


async def main(seconds: float) -> None:
    runner = web.AppRunner(application())
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        async with aiohttp.ClientSession() as client:
            ends_at = time.monotonic() + seconds
            answers = await asyncio.gather(*(ask(client, url, number, ends_at) for number in range(CALLERS)))
    finally:
        await runner.cleanup()
    print(f"{sum(answers)} answers to {CALLERS} callers")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=60.0, help="how long it runs (60)")
    logging.basicConfig(format="%(message)s")
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main(parser.parse_args().seconds))
