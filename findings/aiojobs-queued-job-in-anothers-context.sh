#!/usr/bin/env bash
# aiojobs 1.4.0: a job that had to queue runs in the context of the job that ended before it, not in that of its spawner.
#
# A scheduler with a limit keeps further jobs, and starts the next one when a job ends. It creates that job's task in the
# ended task's done callback, which runs in the ended job's context, so the task copies this one. Context variables that
# the spawner had set (a request's id, a trace, a tenant) are replaced by those of a job that has nothing to do with it; the
# first job's pass from job to job for as long as the queue does not run empty. Jobs that start at once have the context
# of their spawner, so the fault comes and goes with the load.
#
# Seen, on CPython 3.11.7, each job spawned by a task of its own that had set the variable to the job's name:
#     aiojobs 1.4.0: without a queue {'a': 'a', 'b': 'b', 'c': 'c'}; limit of one job {'a': 'a', 'b': 'a', 'c': 'a'}
#
# The script fails if the behaviour changes. PYTHON names the interpreter, python3 by default.
set -euo pipefail
python=${PYTHON:-python3}
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
"$python" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check aiojobs==1.4.0
cat > "$folder/jobs.py" <<'PYTHON'
import asyncio
import contextvars
import sys
from importlib.metadata import version

import aiojobs

spawner = contextvars.ContextVar("spawner")


async def run(limit):
    seen = {}

    async def job(name):
        seen[name] = spawner.get(None)
        await asyncio.sleep(0.02)

    async def spawn(name):
        spawner.set(name)
        await scheduler.spawn(job(name))

    async with aiojobs.Scheduler(limit=limit) as scheduler:
        for name in "abc":
            await asyncio.create_task(spawn(name))
        await asyncio.sleep(0.2)
    return seen


free, queued = asyncio.run(run(10)), asyncio.run(run(1))
print(f"aiojobs {version('aiojobs')}: without a queue {free}; limit of one job {queued}")
sys.exit(free != {"a": "a", "b": "b", "c": "c"} or queued != {"a": "a", "b": "a", "c": "a"})
PYTHON
"$folder/venv/bin/python" "$folder/jobs.py"
