#!/usr/bin/env bash
# qasync 0.28.0: callbacks of readers, and of call_soon_threadsafe even with context=, run in an empty context.
#
# asyncio runs a reader's callback in the context in which it was added, and a function given to `call_soon_threadsafe` in the
# caller's context, or in the one that is passed as `context`. qasync hands both over by a signal of Qt's and drops the context,
# so context variables (a request's id, a trace) are gone, while `call_soon` and `call_later` keep them. The argument
# `context` is accepted and has no effect.
#
# Seen, with PySide6-Essentials 6.11.1 on CPython 3.13.0:
#     asyncio: {'reader': 'task', 'caller': 'thread', 'given': 'given', 'later': 'task'}
#     qasync 0.28.0: {'reader': None, 'caller': None, 'given': None, 'later': 'task'}
#
# The script fails if the behaviour changes. PYTHON names the interpreter, python3 by default.
set -euo pipefail
python=${PYTHON:-python3}
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
pip=("$python" -m pip); "${pip[@]}" --version >/dev/null 2>&1 || pip=(python3 -m pip)
"${pip[@]}" install --quiet --disable-pip-version-check --only-binary :all: --python-version "$version" \
  --target "$folder/packages" qasync==0.28.0 PySide6-Essentials==6.11.1
export QT_QPA_PLATFORM=offscreen
cat > "$folder/program.py" <<'PYTHON'
import asyncio
import contextvars
import os
import sys
import threading
from importlib.metadata import version

import qasync
from PySide6.QtCore import QCoreApplication

who = contextvars.ContextVar("who", default=None)


async def main():
    loop, seen = asyncio.get_running_loop(), {}
    given = contextvars.Context()
    given.run(who.set, "given")
    who.set("task")
    reading, writing = os.pipe()

    def note(what):
        seen[what] = who.get()

    def readable():
        os.read(reading, 1)
        note("reader")

    def from_thread():
        who.set("thread")
        loop.call_soon_threadsafe(note, "caller")
        loop.call_soon_threadsafe(note, "given", context=given)

    loop.add_reader(reading, readable)
    os.write(writing, b".")
    thread = threading.Thread(target=from_thread)
    thread.start()
    thread.join()
    loop.call_later(0.01, note, "later")
    await asyncio.sleep(0.2)
    loop.remove_reader(reading)
    return {name: seen.get(name, "never") for name in ("reader", "caller", "given", "later")}


app = QCoreApplication(sys.argv)
plain = asyncio.run(main())
with qasync.QEventLoop(app) as loop:
    its = loop.run_until_complete(main())
print(f"asyncio: {plain}")
print(f"qasync {version('qasync')}: {its}")
sys.exit(
    plain != {"reader": "task", "caller": "thread", "given": "given", "later": "task"}
    or its != {"reader": None, "caller": None, "given": None, "later": "task"}
)
PYTHON
PYTHONPATH="$folder/packages" "$python" "$folder/program.py"
