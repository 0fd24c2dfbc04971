#!/usr/bin/env bash
# sentry-sdk 2.75.0: its asyncio integration replaces the name that a task was given, on CPython 3.14 only.
#
# The integration's task factory names each task after its coroutine. Up to CPython 3.13.0 the loop set the name of
# `create_task(name=...)` after the factory had returned, so that name stayed. Since then the loop hands the name to
# the factory, which names the task by it and then by its own rule: every task is called "... (Sentry-wrapped)", and code that
# finds its tasks by name, or logs them, does not find them any more. So do names given to TaskGroup.create_task.
#
# Seen, on CPython 3.13.0:
#     sentry-sdk 2.75.0, Python 3.13: a task named 'mine' is called 'mine'
# and on CPython 3.14.8:
#     sentry-sdk 2.75.0, Python 3.14: a task named 'mine' is called 'work (Sentry-wrapped)'
#
# The script fails if the behaviour changes. PYTHON names the interpreter, python3 by default;
# later releases of 3.13 hand the name to the factory as 3.14 does, and were not tried.
set -euo pipefail
python=${PYTHON:-python3}
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
pip=("$python" -m pip); "${pip[@]}" --version >/dev/null 2>&1 || pip=(python3 -m pip)
"${pip[@]}" install --quiet --disable-pip-version-check --only-binary :all: --python-version "$version" \
  --target "$folder/packages" sentry-sdk==2.75.0
cat > "$folder/program.py" <<'PYTHON'
import asyncio
import sys

import sentry_sdk
from sentry_sdk.integrations.asyncio import AsyncioIntegration


async def work():
    pass


async def main():
    sentry_sdk.init(transport=lambda envelope: None, integrations=[AsyncioIntegration()])
    task = asyncio.create_task(work(), name="mine")
    await task
    return task.get_name()


name, python = asyncio.run(main()), sys.version_info[:2]
print(f"sentry-sdk {sentry_sdk.VERSION}, Python {python[0]}.{python[1]}: a task named 'mine' is called {name!r}")
sys.exit(name != ("work (Sentry-wrapped)" if python >= (3, 14) else "mine"))
PYTHON
PYTHONPATH="$folder/packages" "$python" "$folder/program.py"
