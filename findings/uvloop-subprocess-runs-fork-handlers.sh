#!/usr/bin/env bash
# uvloop 0.23.0: starting a subprocess runs the handlers of os.register_at_fork, in the parent and in the child.
#
# asyncio's own loops, and subprocess, start a program without them: CPython runs these handlers only around os.fork, and
# around a subprocess that was given a preexec_fn. uvloop registers CPython's before and after functions for the fork that
# libuv makes, so that `create_subprocess_exec` without any preexec_fn runs every handler of every library: those "before",
# those "after in parent", and in the child, between fork and exec, those "after in child". A library that takes its lock
# before a fork, and renews its state in a child, does so each time that the program starts a tool.
#
# Seen, on CPython 3.11.7, 3.13.0 and 3.14.8:
#     uvloop 0.23.0: handlers run for a subprocess: asyncio none, uvloop after in child, after in parent, before
#
# The script fails if the behaviour changes. PYTHON names the interpreter, python3 by default.
set -euo pipefail
python=${PYTHON:-python3}
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
pip=("$python" -m pip); "${pip[@]}" --version >/dev/null 2>&1 || pip=(python3 -m pip)
"${pip[@]}" install --quiet --disable-pip-version-check --only-binary :all: --python-version "$version" \
  --target "$folder/packages" uvloop==0.23.0
cat > "$folder/handlers.py" <<'PYTHON'
import asyncio
import os
import sys

import uvloop

reading, writing = os.pipe()


def note(when):
    return lambda: os.write(writing, when.encode() + b"\n")


os.register_at_fork(
    before=note("before"), after_in_parent=note("after in parent"), after_in_child=note("after in child")
)


async def start():
    process = await asyncio.create_subprocess_exec("true")
    await process.wait()


def handlers(factory):
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(start())
    os.write(writing, b"end\n")
    return sorted(os.read(reading, 4096).decode().splitlines()[:-1])


plain, uv = handlers(asyncio.SelectorEventLoop), handlers(uvloop.new_event_loop)
print(f"uvloop {uvloop.__version__}: handlers run for a subprocess: asyncio {', '.join(plain) or 'none'}, uvloop {', '.join(uv)}")
sys.exit(plain != [] or uv != ["after in child", "after in parent", "before"])
PYTHON
PYTHONPATH="$folder/packages" "$python" -W ignore "$folder/handlers.py"
