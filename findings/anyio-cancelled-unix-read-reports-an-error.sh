#!/usr/bin/env bash
# anyio 4.16.0: if data come in the round of the loop in which a UNIX socket's `receive` is cancelled, asyncio reports an error.
#
# One would expect that a cancelled read leaves no trace, as with the same library's TCP streams. The reader of a raw socket sets
# the result of a future without asking whether it was cancelled meanwhile, and the loop reports "Exception in callback
# Future.set_result()" with a traceback: on stderr of a command that ends while its peers write, and in the log of a server.
# `aclose` had a fault of the same kind, which is fixed in this version.
#
# Seen, on CPython 3.13.0 and 3.14.8:
#     TCP: []
#     UNIX, anyio 4.16.0: ['Exception in callback Future.set_result()']
#
# The script fails if the behaviour changes. PYTHON names the interpreter, python3 by default.
set -euo pipefail
python=${PYTHON:-python3}
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
pip=("$python" -m pip); "${pip[@]}" --version >/dev/null 2>&1 || pip=(python3 -m pip)
"${pip[@]}" install --quiet --disable-pip-version-check --only-binary :all: --python-version "$version" \
  --target "$folder/packages" anyio==4.16.0
cat > "$folder/program.py" <<'PYTHON'
import asyncio
import socket
import sys
from importlib.metadata import version

import anyio


async def reported(server, connect):
    found = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: found.append(context["message"]))
    server.listen()
    async with await connect(server.getsockname()) as near, anyio.create_task_group() as tasks:
        far, _ = server.accept()
        tasks.start_soon(near.receive)
        await anyio.wait_all_tasks_blocked()
        far.send(b"x")
        loop.call_soon(tasks.cancel_scope.cancel)
        await anyio.sleep_forever()
    far.close()
    return found


with socket.socket() as tcp, socket.socket(socket.AF_UNIX) as unix:
    tcp.bind(("127.0.0.1", 0))
    unix.bind(f"{sys.argv[1]}/socket")
    of_tcp = anyio.run(reported, tcp, lambda address: anyio.connect_tcp(*address))
    of_unix = anyio.run(reported, unix, anyio.connect_unix)
print(f"TCP: {of_tcp}")
print(f"UNIX, anyio {version('anyio')}: {of_unix}")
sys.exit(bool(of_tcp) or not of_unix)
PYTHON
PYTHONPATH="$folder/packages" "$python" -W ignore "$folder/program.py" "$folder"
