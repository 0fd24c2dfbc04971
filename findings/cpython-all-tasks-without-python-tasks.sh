#!/usr/bin/env bash
# CPython 3.14 and 3.15: asyncio.all_tasks leaves out the tasks of the Task class that is written in Python.
#
# asyncio has its Task class twice, in C and in Python, and a debugger, a tracer or a library (nest_asyncio) may put the one in
# Python in place. Such a task runs, and is in asyncio's own set of scheduled tasks, but `asyncio.all_tasks()` does not return
# it since 3.14, so what cancels or waits for all tasks at the end misses it. Up to 3.13 it is returned.
#
# Seen, a task of the class in Python, named "py", beside the main one: on CPython 3.13.0
#     Python 3.13: all_tasks: Task-1, py
# and on CPython 3.14.8 (3.15.2 alike)
#     Python 3.14: all_tasks: Task-1
#
# The script fails if the behaviour changes. PYTHON names the interpreter, python3 by default.
set -euo pipefail
python=${PYTHON:-python3}
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
cat > "$folder/program.py" <<'PYTHON'
import asyncio
import sys


async def main():
    loop = asyncio.get_running_loop()
    task = asyncio.tasks._PyTask(asyncio.sleep(1), loop=loop, name="py")
    await asyncio.sleep(0)
    names = sorted(each.get_name() for each in asyncio.all_tasks())
    task.cancel()
    return names


names = asyncio.run(main())
python = sys.version_info[:2]
print(f"Python {python[0]}.{python[1]}: all_tasks: {', '.join(names)}")
sys.exit(names != (["Task-1"] if python >= (3, 14) else ["Task-1", "py"]))
PYTHON
"$python" "$folder/program.py"
