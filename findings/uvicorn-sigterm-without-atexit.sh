#!/usr/bin/env bash
# uvicorn 0.54.0: after a graceful shutdown by SIGTERM the process still dies by the signal, and no atexit function runs.
#
# uvicorn catches SIGTERM, ends its connections and shuts the app down. Then it raises the signal again, with the handler
# that was there before, the default one: the process is killed inside of the event loop. So a `finally` around
# uvicorn.run, async generators that the loop would close, and atexit functions do not run, although the log says
# "Finished server process". A library that cleans up at the interpreter's exit expects that a graceful shutdown gets
# there. Only the app's lifespan does. hypercorn 0.18.0 returns, and exits with 0.
#
# Seen, on CPython 3.11.7 and 3.13.0:
#     uvicorn 0.54.0: exit code -15, ran: lifespan
#     hypercorn 0.18.0: exit code 0, ran: lifespan, finally, atexit
#
# The script fails if the behaviour changes. PYTHON names the interpreter, python3 by default.
set -euo pipefail
python=${PYTHON:-python3}
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
pip=("$python" -m pip); "${pip[@]}" --version >/dev/null 2>&1 || pip=(python3 -m pip)
"${pip[@]}" install --quiet --disable-pip-version-check --only-binary :all: --python-version "$version" \
  --target "$folder/packages" uvicorn==0.54.0 hypercorn==0.18.0
cat > "$folder/program.py" <<'PYTHON'
import asyncio
import atexit
import sys


def ran(what):
    with open(sys.argv[2] + ".ran", "a") as file:
        print(what, file=file)


async def app(scope, receive, send):
    assert scope["type"] == "lifespan"
    for kind in ("startup", "shutdown"):
        await receive()
        ran(kind)
        await send({"type": f"lifespan.{kind}.complete"})


if __name__ == "__main__":
    server, path = sys.argv[1:]
    atexit.register(ran, "atexit")
    try:
        if server == "uvicorn":
            import uvicorn

            uvicorn.run(app, uds=path, log_level="critical")
        else:
            from hypercorn.config import Config
            from hypercorn.run import run

            sys.argv = ["program", server, path]
            run(Config.from_mapping(application_path="program:app", bind=[f"unix:{path}"], workers=1, loglevel="CRITICAL"))
    finally:
        ran("finally")
PYTHON
cat > "$folder/seen.py" <<'PYTHON'
import importlib.metadata
import os
import signal
import subprocess
import sys
import time

folder, expected = os.path.dirname(__file__), {"uvicorn": (-15, "lifespan"), "hypercorn": (0, "lifespan, finally, atexit")}
changed = False
for server, sees in expected.items():
    path = os.path.join(folder, server)
    process = subprocess.Popen([sys.executable, os.path.join(folder, "program.py"), server, path], cwd=folder)
    deadline = time.monotonic() + 60
    while not (os.path.exists(path) and os.path.exists(path + ".ran")) and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(0.5)
    process.send_signal(signal.SIGTERM)
    code = process.wait(60)
    with open(path + ".ran") as file:
        ran = file.read().split()
    seen = code, ", ".join("lifespan" if each == "shutdown" else each for each in ran if each != "startup")
    print(f"{server} {importlib.metadata.version(server)}: exit code {seen[0]}, ran: {seen[1]}")
    changed |= seen != sees
sys.exit(changed)
PYTHON
PYTHONPATH="$folder/packages:$folder" "$python" "$folder/seen.py"
