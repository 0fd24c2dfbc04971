#!/usr/bin/env bash
# nest_asyncio 1.6.0: on CPython 3.14, after apply(), asyncio.current_task() is None in every task of the process.
#
# `apply()` replaces asyncio.Task by the class in Python. Since 3.14 the current task of tasks in C is kept apart from that of
# tasks in Python, and `asyncio.current_task` finds the former, so there is none: asyncio.timeout and TaskGroup refuse to work, in
# every later run, whether a loop is nested or not. Up to 3.13 all three work.
#
# Seen, on CPython 3.13.0:
#     nest_asyncio 1.6.0, Python 3.13: current task found True, timeout works True
# and on CPython 3.14.8:
#     nest_asyncio 1.6.0, Python 3.14: current task found False, timeout works False
#
# The script fails if the behaviour changes. PYTHON names the interpreter, python3 by default.
set -euo pipefail
python=${PYTHON:-python3}
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
pip=("$python" -m pip); "${pip[@]}" --version >/dev/null 2>&1 || pip=(python3 -m pip)
"${pip[@]}" install --quiet --disable-pip-version-check --only-binary :all: --python-version "$version" \
  --target "$folder/packages" nest_asyncio==1.6.0
cat > "$folder/program.py" <<'PYTHON'
import asyncio
import sys
from importlib.metadata import version

import nest_asyncio


async def main():
    found = asyncio.current_task() is not None
    try:
        async with asyncio.timeout(1):
            return found, True
    except RuntimeError:
        return found, False


assert asyncio.run(main()) == (True, True)
nest_asyncio.apply()
found, works = asyncio.run(main())
python = sys.version_info[:2]
print(
    f"nest_asyncio {version('nest_asyncio')}, Python {python[0]}.{python[1]}: "
    f"current task found {found}, timeout works {works}"
)
sys.exit((found, works) != ((False, False) if python >= (3, 14) else (True, True)))
PYTHON
PYTHONPATH="$folder/packages" "$python" -W ignore "$folder/program.py"
