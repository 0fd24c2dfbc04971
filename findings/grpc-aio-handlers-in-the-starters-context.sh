#!/usr/bin/env bash
# grpcio 1.85.3: a handler of grpc.aio runs in the context of the task that awaited server.start().
#
# Each RPC is a task of its own, made long after the server has started, and for another client each time. Its context is a
# copy of the one in which `start()` was awaited. A context variable that the starter happened to have set (a test's name, the
# id of a job whose code started the server, a trace) is there in every handler for as long as the server lives; one that the
# main program sets afterwards is not.
#
# Seen, on CPython 3.13.0 and 3.14.8, the starter having set the variable to "starter", then the client to "client":
#     grpcio 1.85.3: two RPCs ran with 'starter', 'starter'
#
# The script fails if the behaviour changes. PYTHON names the interpreter, python3 by default.
set -euo pipefail
python=${PYTHON:-python3}
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
pip=("$python" -m pip); "${pip[@]}" --version >/dev/null 2>&1 || pip=(python3 -m pip)
"${pip[@]}" install --quiet --disable-pip-version-check --only-binary :all: --python-version "$version" \
  --target "$folder/packages" grpcio==1.85.3
cat > "$folder/program.py" <<'PYTHON'
import asyncio
import contextvars
import sys

import grpc

who = contextvars.ContextVar("who", default=None)
seen = []


async def handle(request, context):
    seen.append(who.get())
    return b""


class Handlers(grpc.GenericRpcHandler):
    def service(self, details):
        return grpc.unary_unary_rpc_method_handler(handle)


async def start(server):
    who.set("starter")
    await server.start()


async def main():
    who.set("client")
    server = grpc.aio.server()
    server.add_generic_rpc_handlers([Handlers()])
    port = server.add_insecure_port("127.0.0.1:0")
    await asyncio.create_task(start(server))
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        for _ in range(2):
            await channel.unary_unary("/service/method")(b"")
    await server.stop(None)


asyncio.run(main())
print(f"grpcio {grpc.__version__}: two RPCs ran with {', '.join(map(repr, seen))}")
sys.exit(seen != ["starter", "starter"])
PYTHON
PYTHONPATH="$folder/packages" "$python" "$folder/program.py"
