#!/usr/bin/env bash
# trio-asyncio 0.16.0: after a mere `import trio_asyncio`, every asyncio.run of the process runs on Trio.
#
# The package replaces asyncio's event loop policy when it is imported, not when a Trio program opens a loop. Whatever in the
# process calls asyncio.run or asyncio.new_event_loop afterwards gets a loop that runs Trio in a greenlet of the thread, with
# other classes, other timing, and without the selector that some libraries look for. So an import in one plugin
# changes the loop of all others.
#
# Seen, on CPython 3.12.1 and 3.13.0, the class of asyncio.run's loop:
#     before the import _UnixSelectorEventLoop, after it SyncTrioEventLoop (trio-asyncio 0.16.0)
#
# The script fails if the behaviour changes. PYTHON names the interpreter, python3 by default;
# trio-asyncio cannot be imported on 3.14 and newer.
set -euo pipefail
python=${PYTHON:-python3}
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
pip=("$python" -m pip); "${pip[@]}" --version >/dev/null 2>&1 || pip=(python3 -m pip)
"${pip[@]}" install --quiet --disable-pip-version-check --only-binary :all: --python-version "$version" \
  --target "$folder/packages" trio-asyncio==0.16.0 trio==0.35.0
cat > "$folder/program.py" <<'PYTHON'
import asyncio
import sys
from importlib.metadata import version


async def main():
    return type(asyncio.get_running_loop()).__name__


before = asyncio.run(main())
import trio_asyncio  # noqa: F401

after = asyncio.run(main())
print(f"before the import {before}, after it {after} (trio-asyncio {version('trio-asyncio')})")
sys.exit((before, after) != ("_UnixSelectorEventLoop", "SyncTrioEventLoop"))
PYTHON
PYTHONPATH="$folder/packages" "$python" -W ignore "$folder/program.py"
