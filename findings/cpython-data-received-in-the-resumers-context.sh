#!/usr/bin/env bash
# CPython up to 3.14: after pause_reading and resume_reading, a transport's data_received runs in the resumer's context.
#
# One would think that all callbacks of a connection run in the context of whoever opened it. But `resume_reading` registers the
# reader anew, in the context of the code that calls it: from then on, `data_received` sees the context variables of the
# task that happened to resume, for as long as the connection lives. A pooled connection with flow control passes from one
# request's context to another's. CPython 3.15 keeps the opener's.
#
# Seen, a connection opened by "opener", then paused and resumed by "resumer", on CPython 3.11.7, 3.13.0 and 3.14.8:
#     Python 3.13: data_received ran in the contexts opener, resumer
# and on CPython 3.15.2:
#     Python 3.15: data_received ran in the contexts opener, opener
#
# The script fails if the behaviour changes. PYTHON names the interpreter, python3 by default.
set -euo pipefail
python=${PYTHON:-python3}
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
cat > "$folder/program.py" <<'PYTHON'
import asyncio
import contextvars
import sys

who = contextvars.ContextVar("who", default=None)
seen, peers = [], []


class Client(asyncio.Protocol):
    def data_received(self, data):
        seen.append(who.get())


class Server(asyncio.Protocol):
    def connection_made(self, transport):
        peers.append(transport)


async def main():
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Server, "127.0.0.1", 0)

    async def open_connection():
        who.set("opener")
        return await loop.create_connection(Client, *server.sockets[0].getsockname())

    async def resume(transport):
        who.set("resumer")
        transport.pause_reading()
        transport.resume_reading()

    transport, _ = await asyncio.create_task(open_connection())
    while not peers:
        await asyncio.sleep(0.01)
    peers[0].write(b"1")
    await asyncio.sleep(0.1)
    await asyncio.create_task(resume(transport))
    peers[0].write(b"2")
    await asyncio.sleep(0.1)
    transport.close()
    server.close()


asyncio.run(main())
python = sys.version_info[:2]
print(f"Python {python[0]}.{python[1]}: data_received ran in the contexts {', '.join(map(str, seen))}")
sys.exit(seen != ["opener", "resumer" if python < (3, 15) else "opener"])
PYTHON
"$python" "$folder/program.py"
