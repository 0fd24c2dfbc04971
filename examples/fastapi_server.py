"""A FastAPI server in which each websocket connection is a session: the two lines that are marked below.

    python examples/fastapi_server.py      # or, without its own callers: uvicorn fastapi_server:app, in this folder
    openrtc top                            # in a second terminal

The server hosts its own callers, so that there is something to see: eight of them, on loopback, each asking ten times a
second. One caller asks for a report now and then, and the server reads the report from an archive with a blocking call.
The example needs `pip install openrtc-introspect-core fastapi uvicorn websockets`, and openrtc-top to watch it.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import logging
import time

import uvicorn
from fastapi import FastAPI, WebSocket, WebSocketDisconnect
from websockets.asyncio.client import connect

from openrtc_introspect_core.adapters.asgi import IntrospectionMiddleware  # <- one

CALLERS = 8

app = FastAPI()
app.add_middleware(IntrospectionMiddleware, name="fastapi")  # <- two


@app.websocket("/calls/{number}")
async def call(connection: WebSocket, number: int) -> None:
    """Serve one connection. All work in here is charged to its session."""
    await connection.accept()
    with contextlib.suppress(WebSocketDisconnect):
        async for question in connection.iter_text():
            await connection.send_text(read_archive() if question == "report" else "hello")


def read_archive() -> str:
    """Read from the archive, with a blocking call by mistake."""
    time.sleep(0.3)
    return "a report"


async def ask(url: str, number: int, ends_at: float) -> int:
    """Call the server, and return the number of answers."""
    async with connect(f"{url}/calls/{number}") as connection:
        for answers in itertools.count():
            if time.monotonic() >= ends_at:
                return answers
            await connection.send("report" if number == 3 and answers % 20 == 19 else "question")
            await connection.recv()
            await asyncio.sleep(0.1)
    return 0


async def main(seconds: float) -> None:
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning"))
    serving = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    url = f"ws://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    ends_at = time.monotonic() + seconds
    answers = await asyncio.gather(*(ask(url, number, ends_at) for number in range(CALLERS)))
    server.should_exit = True
    await serving
    print(f"{sum(answers)} answers to {CALLERS} callers")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=str(__doc__).partition(":")[0])
    parser.add_argument("--seconds", type=float, default=60.0, help="how long it runs (60)")
    logging.basicConfig(format="%(message)s")
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main(parser.parse_args().seconds))
