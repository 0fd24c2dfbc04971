#!/usr/bin/env bash
# PySide6 6.12.0: QtAsyncio runs the steps of all tasks in one context; what one task sets, the others read.
#
# asyncio gives each task a copy of its maker's context, so a context variable (a request's id, a trace, a tenant) that a task
# sets is seen by itself and by the tasks that it makes. On QtAsyncio's loop every step runs in the same context: the last task
# to set a variable has set it for all tasks that live, until another one does.
#
# Seen, on CPython 3.13.0 and 3.14.8, two tasks that each set the variable to their own name, then slept:
#     asyncio: one read 'one', two read 'two'
#     PySide6 6.12.0, QtAsyncio: one read 'two', two read 'two'
#
# The script fails if the behaviour changes. PYTHON names the interpreter, python3 by default.
set -euo pipefail
python=${PYTHON:-python3}
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
pip=("$python" -m pip); "${pip[@]}" --version >/dev/null 2>&1 || pip=(python3 -m pip)
"${pip[@]}" install --quiet --disable-pip-version-check --only-binary :all: --python-version "$version" \
  --target "$folder/packages" PySide6-Addons==6.12.0
export QT_QPA_PLATFORM=offscreen
cat > "$folder/program.py" <<'PYTHON'
import asyncio
import contextvars
import sys

import PySide6
from PySide6 import QtAsyncio

who = contextvars.ContextVar("who", default=None)
read = {}


async def work(name):
    who.set(name)
    await asyncio.sleep(0.05)
    read[name] = who.get()


async def main():
    await asyncio.gather(*(asyncio.create_task(work(name)) for name in ("one", "two")))


asyncio.run(main())
plain = dict(read)
QtAsyncio.run(main(), keep_running=False)
for name, found in (("asyncio", plain), (f"PySide6 {PySide6.__version__}, QtAsyncio", read)):
    print(f"{name}: one read {found['one']!r}, two read {found['two']!r}")
sys.exit(plain != {"one": "one", "two": "two"} or read != {"one": "two", "two": "two"})
PYTHON
PYTHONPATH="$folder/packages" "$python" "$folder/program.py"
