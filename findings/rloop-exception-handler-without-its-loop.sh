#!/usr/bin/env bash
# rloop 0.5.0: an exception handler that is set on the loop is called without the loop, so it fails with a TypeError.
#
# A handler of asyncio's takes two arguments, the loop and a dictionary. rloop gives it the dictionary alone. The handler's
# own TypeError is printed as "Unhandled error in exception handler", so nothing that was meant to count, report or escalate
# an exception in a callback or a task ever sees one. A program finds out when it looks for a report that is not there.
#
# Seen, on CPython 3.13.0 and 3.14.8, the arguments for an exception in a callback:
#     rloop 0.5.0: asyncio called the handler with Loop, dict; rloop called it with dict
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
import sys
from importlib.metadata import version

import rloop


async def main(called):
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda *arguments: called.append(arguments))
    loop.call_soon(lambda: 1 / 0)
    await asyncio.sleep(0.05)


def arguments(loop):
    called = []
    loop.run_until_complete(main(called))
    loop.close()
    return ["Loop" if each is loop else type(each).__name__ for each in called[0]]


plain, its = arguments(asyncio.new_event_loop()), arguments(rloop.new_event_loop())
print(
    f"rloop {version('rloop')}: asyncio called the handler with {', '.join(plain)}; "
    f"rloop called it with {', '.join(its)}"
)
sys.exit(plain != ["Loop", "dict"] or its != ["dict"])
PYTHON
PYTHONPATH="$folder/packages" "$python" "$folder/program.py"
