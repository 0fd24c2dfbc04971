"""A server with the websockets library in which each connection is a session.

    python examples/websockets_server.py
    openrtc top                        # in a second terminal

The server hosts its own callers, so that there is something to see: eight of them, on loopback, each asking ten times a
second. One caller asks for a report now and then, and the server reads the report from an archive with a blocking call.
The example needs `pip install openrtc-introspect-core websockets`, and openrtc-top to watch it.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import logging
import time

from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection, serve

from openrtc_introspect_core import Introspector

CALLERS = 8


def read_archive() -> str:
    """Read from the archive, with a blocking call by mistake."""
    time.sleep(0.3)
    return "a report"


async def ask(url: str, number: int, ends_at: float) -> int:
    """Call the server, and return the number of answers."""
    async with connect(f"{url}/call-{number}") as connection:
        for answers in itertools.count():
            if time.monotonic() >= ends_at:
                return answers
            await connection.send("report" if number == 3 and answers % 20 == 19 else "question")
            await connection.recv()
            await asyncio.sleep(0.1)
    return 0


async def main(seconds: float) -> None:
    async with Introspector(name="websockets") as introspector:

        async def call(connection: ServerConnection) -> None:
            """Serve one connection as one session. All work in here is charged to the session."""
            assert connection.request is not None
            caller = connection.request.path.removeprefix("/")
            with introspector.session(caller, agent_name="desk", metadata={"tenant": "acme"}):
                async for message in connection:
                    await connection.send(read_archive() if message == "report" else "hello")

        async with serve(call, "127.0.0.1", 0) as server:
            url = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}"
            ends_at = time.monotonic() + seconds
            answers = await asyncio.gather(*(ask(url, number, ends_at) for number in range(CALLERS)))
    print(f"{sum(answers)} answers to {CALLERS} callers")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=60.0, help="how long it runs (60)")
    logging.basicConfig(format="%(message)s")
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main(parser.parse_args().seconds))
