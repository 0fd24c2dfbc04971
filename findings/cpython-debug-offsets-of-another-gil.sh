#!/usr/bin/env bash
# CPython 3.13, 3.14 and 3.15: the table of offsets for debuggers gives the holder of a GIL that a sub-interpreter does not
# use.
#
# The table at the beginning of `_PyRuntime` (`_Py_DebugOffsets`) has `ceval_gil`, where an interpreter's state points to
# its GIL, and `gil_runtime_state_holder`. The latter is counted from the interpreter's state, and leads into the GIL that
# is embedded there. In the main interpreter both are the same. An interpreter that shares the main one's GIL (mod_wsgi's,
# and `create("legacy")`) has an embedded GIL that is never locked: by the table it has no holder while it runs. The right
# place is (holder - gil_runtime_state) behind where `ceval_gil` points to.
#
# Seen:
#     3.13.0 main: by the table True, by the pointer True; sharing: by the table False, by the pointer True
#     3.14.8 main: by the table True, by the pointer True; sharing: by the table False, by the pointer True
#     3.15.2 main: by the table True, by the pointer True; sharing: by the table False, by the pointer True
#
# The script needs CPython 3.13, 3.14 or 3.15 as python3.13 (or the one named by PYTHON), and no package. It reads the
# memory of its own process only. It fails if the behaviour changes.
set -euo pipefail
python=${PYTHON:-python3.13}
version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
case $version in 3.13 | 3.14 | 3.15) ;; *) echo "needs CPython 3.13 to 3.15: $python is $version" >&2; exit 2 ;; esac
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
cat > "$folder/holder.py" <<'PYTHON'
import ctypes
import os
import sys

import _interpreters

# Where the table has them, in numbers of eight bytes: ceval_gil, gil_runtime_state, gil_runtime_state_holder.
PLACES = {(3, 13): (14, 15, 18), (3, 14): (15, 16, 19), (3, 15): (15, 16, 19)}
table = (ctypes.c_uint64 * 20).in_dll(ctypes.pythonapi, "_PyRuntime")
assert ctypes.string_at(table, 8) == b"xdebugpy"
pointer, own, holder = (table[place] for place in PLACES[sys.version_info[:2]])

# Each interpreter writes whether the thread that runs it is the holder, by either way.
LOOK = f"""
import ctypes, os
api = ctypes.pythonapi
api.PyInterpreterState_Get.restype = api.PyThreadState_Get.restype = ctypes.c_void_p
interpreter, thread = api.PyInterpreterState_Get(), api.PyThreadState_Get()
word = lambda address: ctypes.c_uint64.from_address(address).value
by_table = word(interpreter + {holder}) == thread
by_pointer = word(word(interpreter + {pointer}) + {holder - own}) == thread
os.write({{}}, f"{{{{by_table}}}} {{{{by_pointer}}}}".encode())
"""


def seen(run):
    read, write = os.pipe()
    run(LOOK.format(write))
    os.close(write)
    with os.fdopen(read) as text:
        return text.read().split()


sharing = _interpreters.create("legacy")
found = [seen(exec), seen(lambda code: _interpreters.run_string(sharing, code))]
_interpreters.destroy(sharing)
texts = (f"by the table {by_table}, by the pointer {by_pointer}" for by_table, by_pointer in found)
print("{}.{}.{} main: {}; sharing: {}".format(*sys.version_info[:3], *texts))
sys.exit(found != [["True", "True"], ["False", "True"]])
PYTHON
"$python" "$folder/holder.py"
