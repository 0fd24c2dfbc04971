"""The FastAPI app that tests/runtimes/test_asgi_servers.py serves."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
from fastapi import FastAPI, WebSocket, WebSocketDisconnect
from fastapi.responses import StreamingResponse

from openrtc_introspect_core import current_session
from openrtc_introspect_core.adapters.asgi import Identity, IntrospectionMiddleware, Scope, header_of

BLOCK_S = 0.3
PARTS = 3


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[dict[str, str]]:
    yield {"menu": "soup"}


def identify(scope: Scope) -> Identity:
    caller = header_of(scope, "x-caller")
    if caller == "nobody":
        raise LookupError("nobody is no caller")
    return Identity(caller, tenant=header_of(scope, "x-tenant"))


app = FastAPI(lifespan=lifespan)
app.add_middleware(IntrospectionMiddleware, name="asgi", requests=True, identify=identify)


async def call(connection: WebSocket, number: int) -> None:
    await connection.accept()
    try:
        async for text in connection.iter_text():
            if text == "archive":
                time.sleep(BLOCK_S)
            await connection.send_text(f"{connection.state.menu}, {text}")
    except WebSocketDisconnect:
        pass


def report() -> dict[str, str | bool | None]:
    """Answer on one of anyio's threads."""
    session = current_session()
    in_thread = threading.current_thread() is not threading.main_thread()
    return {"session": session.session_id if session is not None else None, "in a thread": in_thread}


async def stream() -> StreamingResponse:
    """Stream parts, and then nothing more until the client leaves."""

    async def parts() -> AsyncIterator[str]:
        for number in range(PARTS):
            yield f"part {number}\n"
        await anyio.sleep_forever()

    return StreamingResponse(parts())


async def faulty() -> None:
    raise LookupError("no such menu")


async def loop() -> str:
    """Name the kind of the loop."""
    try:
        return type(asyncio.get_running_loop()).__module__.partition(".")[0]
    except RuntimeError:
        return "trio"


app.add_api_websocket_route("/calls/{number}", call)
for endpoint in (report, stream, faulty, loop):
    app.add_api_route(f"/{endpoint.__name__}", endpoint, response_model=None)
