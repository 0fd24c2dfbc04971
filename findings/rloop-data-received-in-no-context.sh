#!/usr/bin/env bash
# rloop 0.5.0: data_received runs in an empty context, connection_made in that of the task which opened the connection.
#
# On asyncio and uvloop all callbacks of a protocol run in a copy of the context in which the connection was opened. On
# rloop only the first one does: `data_received` sees no context variable that the opener had set, such as a request's id
# or a tenant, and neither does a function that another thread gives to `call_soon_threadsafe`. `add_reader` and `call_soon`
# keep the context as elsewhere, so it depends on how bytes are read whether a variable is there.
#
# Seen, on CPython 3.13.0 and 3.14.8, the opener having set the variable to "opener", the thread to "thread":
#     rloop 0.5.0: asyncio {'made': 'opener', 'data': 'opener', 'thread': 'thread'}
#     rloop 0.5.0: rloop {'made': 'opener', 'data': None, 'thread': None}
#
# The script fails if the behaviour changes. PYTHON names the interpreter, python3 by default.
set -euo pipefail
python=${PYTHON:-python3}
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
pip=("$python" -m pip); "${pip[@]}" --version >/dev/null 2>&1 || pip=(python3 -m pip)
"${pip[@]}" install --quiet --disable-pip-version-check --only-binary :all: --python-version "$version" \
  --target "$folder/packages" rloop==0.5.0
cat > "$folder/program.py" <<'PYTHON'
import asyncio
import contextvars
import sys
import threading
from importlib.metadata import version

import rloop

who = contextvars.ContextVar("who", default=None)


async def main():
    loop, seen = asyncio.get_running_loop(), {}

    def note(what):
        seen[what] = who.get()

    class Client(asyncio.Protocol):
        def connection_made(self, transport):
            note("made")

        def data_received(self, data):
            note("data")

    class Server(asyncio.Protocol):
        def connection_made(self, transport):
            transport.write(b"hello")

    def from_thread():
        who.set("thread")
        loop.call_soon_threadsafe(note, "thread")

    async def open_connection(port):
        who.set("opener")
        await loop.create_connection(Client, "127.0.0.1", port)

    server = await loop.create_server(Server, "127.0.0.1", 0)
    await asyncio.create_task(open_connection(server.sockets[0].getsockname()[1]))
    thread = threading.Thread(target=from_thread)
    thread.start()
    thread.join()
    await asyncio.sleep(0.2)
    return {name: seen.get(name, "never") for name in ("made", "data", "thread")}


plain = asyncio.new_event_loop().run_until_complete(main())
its = rloop.new_event_loop().run_until_complete(main())
print(f"rloop {version('rloop')}: asyncio {plain}")
print(f"rloop {version('rloop')}: rloop {its}")
sys.exit(
    plain != {"made": "opener", "data": "opener", "thread": "thread"}
    or its != {"made": "opener", "data": None, "thread": None}
)
PYTHON
PYTHONPATH="$folder/packages" "$python" -W ignore "$folder/program.py"
