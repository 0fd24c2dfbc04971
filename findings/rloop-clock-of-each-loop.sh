#!/usr/bin/env bash
# rloop 0.5.0: the clock of each loop begins at zero when the loop is made; loop.time() is not time.monotonic().
#
# asyncio's own loops, uvloop and zuvloop return the system's monotonic clock, so a deadline taken from one loop can be given
# to another, to a thread, or compared with time.monotonic(). asyncio's documentation does not promise that, and rloop does
# otherwise: a deadline `loop.time() + 5` of an older loop lies minutes ahead on a newer one, and one made of
# time.monotonic() may lie days ahead.
#
# Seen, on CPython 3.13.0 and 3.14.8, the clocks of two loops, the second made 0.5 s after the first:
#     rloop 0.5.0: asyncio's differ by 0.0 s and are time.monotonic(); rloop's differ by 0.5 s and are not
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
import time
from importlib.metadata import version

import rloop


def clocks(new_event_loop):
    older = new_event_loop()
    time.sleep(0.5)
    newer = new_event_loop()
    apart = abs(round(older.time() - newer.time(), 1))
    monotonic = abs(older.time() - time.monotonic()) < 0.4
    older.close()
    newer.close()
    return apart, monotonic


(plain, plain_is), (its, its_is) = clocks(asyncio.new_event_loop), clocks(rloop.new_event_loop)
names = {True: "are time.monotonic()", False: "are not"}
print(
    f"rloop {version('rloop')}: asyncio's differ by {plain} s and {names[plain_is]}; "
    f"rloop's differ by {its} s and {names[its_is]}"
)
sys.exit(plain > 0.2 or not plain_is or its < 0.4 or its_is)
PYTHON
PYTHONPATH="$folder/packages" "$python" "$folder/program.py"
