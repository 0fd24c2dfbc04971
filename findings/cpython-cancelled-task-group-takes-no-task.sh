#!/usr/bin/env bash
# CPython 3.15: an asyncio.TaskGroup that is cancelled before it is entered ends with an ExceptionGroup if its body makes a
# task before its first await.
#
# TaskGroup.cancel() is new. Its documentation says that a group cancelled before it is entered "will be cancelled upon
# entry", and that the group ends without an exception: so it can be handed over and cancelled at any time. A body that
# awaits first does end quietly. A body that makes its tasks first, as nearly all do, gets a RuntimeError from create_task,
# and the group raises it. A cancelled task group of anyio takes the task, and ends quietly, in either order. It meets
# whoever replaces anyio's groups, or their own, by the new method.
#
# Seen:
#     3.15.2 anyio 4.16.0: a body that awaits first: asyncio quiet, anyio quiet; that makes a task first: asyncio
#     ExceptionGroup(RuntimeError), anyio quiet
#
# The script needs CPython 3.15 as python3.15 (or the one named by PYTHON), and pip of that Python or of python3.
# It fails if the behaviour changes.
set -euo pipefail
python=${PYTHON:-python3.15}
version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
case $version in 3.15) ;; *) echo "needs CPython 3.15: $python is $version" >&2; exit 2 ;; esac
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
pip=("$python" -m pip); "${pip[@]}" --version >/dev/null 2>&1 || pip=(python3 -m pip)
"${pip[@]}" install --quiet --disable-pip-version-check --only-binary :all: --python-version "$version" \
  --target "$folder" anyio==4.16.0
cat > "$folder/groups.py" <<'PYTHON'
import asyncio
import sys
from importlib.metadata import version

import anyio


async def in_asyncio(makes_a_task):
    group = asyncio.TaskGroup()
    group.cancel()
    async with group:
        if makes_a_task:
            group.create_task(asyncio.sleep(0))
        await asyncio.sleep(1)


async def in_anyio(makes_a_task):
    group = anyio.create_task_group()
    group.cancel_scope.cancel()
    async with group:
        if makes_a_task:
            group.start_soon(anyio.sleep, 0)
        await anyio.sleep(1)


def end(main, makes_a_task):
    try:
        asyncio.run(main(makes_a_task))
    except ExceptionGroup as group:
        return f"ExceptionGroup({type(group.exceptions[0]).__name__})"
    return "quiet"


ends = [end(main, makes_a_task) for makes_a_task in (False, True) for main in (in_asyncio, in_anyio)]
python = ".".join(map(str, sys.version_info[:3]))
print(
    f"{python} anyio {version('anyio')}: a body that awaits first: asyncio {ends[0]}, anyio {ends[1]}; "
    f"that makes a task first: asyncio {ends[2]}, anyio {ends[3]}"
)
sys.exit(ends != ["quiet", "quiet", "ExceptionGroup(RuntimeError)", "quiet"])
PYTHON
PYTHONPATH=$folder "$python" "$folder/groups.py"
