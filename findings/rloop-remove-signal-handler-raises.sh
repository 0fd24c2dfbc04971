#!/usr/bin/env bash
# rloop 0.5.0: remove_signal_handler raises AttributeError, after add_signal_handler of the same signal has worked.
#
# The method asks for a method of the loop that does not exist. So a program may install its handlers for SIGTERM and SIGINT and
# fails when it takes them off: at the end of a graceful shutdown, or of anyio's `open_signal_receiver`, which removes what it
# has added when its block is left.
#
# Seen, on CPython 3.13.0 and 3.14.8:
#     asyncio: True
#     rloop 0.5.0: AttributeError("'RLoop' object has no attribute '_is_main_thread'")
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
import signal
import sys
from importlib.metadata import version

import rloop


async def main():
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGUSR1, print)
    try:
        return loop.remove_signal_handler(signal.SIGUSR1)
    except Exception as error:
        return repr(error)


plain = asyncio.new_event_loop().run_until_complete(main())
its = rloop.new_event_loop().run_until_complete(main())
print(f"asyncio: {plain}")
print(f"rloop {version('rloop')}: {its}")
sys.exit(plain is not True or "_is_main_thread" not in str(its))
PYTHON
PYTHONPATH="$folder/packages" "$python" -W ignore "$folder/program.py"
