#!/usr/bin/env bash
# uvloop 0.23.0 on CPython 3.14 and 3.15: tasks of asyncio.eager_task_factory do not start eagerly,
# without an error or a warning.
#
# From CPython 3.13 on, uvloop's create_task passes `eager_start=None` to the loop's task factory if the caller gave no
# value. The eager factory of 3.14 takes this None as a choice, and the task begins in a later iteration. On asyncio's own
# loop, and with uvloop on 3.12, the same program starts its task at once. (On CPython 3.13.0 the factory refuses the
# argument, and each create_task ends with a TypeError.)
#
# Seen:
#     3.14.8 uvloop 0.23.0: begun by create_task: asyncio True, uvloop False
#     3.15.2 uvloop 0.23.0: begun by create_task: asyncio True, uvloop False
#     3.12.1 uvloop 0.23.0: begun by create_task: asyncio True, uvloop True
#
# The script needs CPython 3.14 or 3.15 as python3.14 (or the one named by PYTHON), and pip of that Python or of python3.
# It fails if the behaviour changes.
set -euo pipefail
python=${PYTHON:-python3.14}
version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
case $version in 3.14 | 3.15) ;; *) echo "needs CPython 3.14 or 3.15: $python is $version" >&2; exit 2 ;; esac
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
pip=("$python" -m pip); "${pip[@]}" --version >/dev/null 2>&1 || pip=(python3 -m pip)
"${pip[@]}" install --quiet --disable-pip-version-check --only-binary :all: --python-version "$version" \
  --target "$folder" uvloop==0.23.0
cat > "$folder/eager.py" <<'PYTHON'
import asyncio
import sys

import uvloop


async def main():
    asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)
    begun = []

    async def child():
        begun.append(True)

    task = asyncio.create_task(child())
    at_once = bool(begun)
    await task
    return at_once


seen = [asyncio.run(main(), loop_factory=factory) for factory in (asyncio.SelectorEventLoop, uvloop.new_event_loop)]
python = ".".join(map(str, sys.version_info[:3]))
print(f"{python} uvloop {uvloop.__version__}: begun by create_task: asyncio {seen[0]}, uvloop {seen[1]}")
sys.exit(seen != [True, False])
PYTHON
PYTHONPATH=$folder "$python" "$folder/eager.py"
