#!/usr/bin/env bash
# mypy 2.4.1: cancelling a task whose coroutine mypyc compiled emits DeprecationWarning, which -W error makes an exception.
#
# A compiled coroutine hands an exception on to what it waits for by the signature of `throw` with three arguments, which
# CPython deprecates since 3.12. So each cancellation and each timeout warns, at a line of asyncio's, and nothing in the message
# names what was compiled. Where warnings are errors, as in many test suites, the awaiting side gets a DeprecationWarning in
# the place of CancelledError.
#
# Seen, on CPython 3.12.1 and 3.13.0, for a task that waits for an asyncio.Event and is cancelled:
#     mypy 2.4.1: CancelledError, after 2 DeprecationWarnings; with warnings as errors DeprecationWarning
#
# The script fails if the behaviour changes. PYTHON names the interpreter, python3 by default;
# it has to be 3.12 or newer, with its headers and a C compiler.
set -euo pipefail
python=${PYTHON:-python3}
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
pip=("$python" -m pip); "${pip[@]}" --version >/dev/null 2>&1 || pip=(python3 -m pip)
"${pip[@]}" install --quiet --disable-pip-version-check --only-binary :all: --python-version "$version" \
  --target "$folder/packages" mypy==2.4.1 setuptools==80.9.0
printf 'import asyncio\n\nasync def wait(event: asyncio.Event) -> None:\n    await event.wait()\n' >"$folder/waiting.py"
(cd "$folder" && PYTHONPATH="$folder/packages" "$python" -m mypyc waiting.py >build.log 2>&1) || { tail "$folder/build.log"; exit 1; }
rm "$folder/waiting.py"
cat > "$folder/program.py" <<'PYTHON'
import asyncio
import sys
import warnings

import waiting


async def main():
    task = asyncio.create_task(waiting.wait(asyncio.Event()))
    await asyncio.sleep(0)
    task.cancel()
    try:
        await task
    except BaseException as error:
        return type(error).__name__


with warnings.catch_warnings(record=True) as seen:
    warnings.simplefilter("always")
    usual = asyncio.run(main())
with warnings.catch_warnings():
    warnings.simplefilter("error")
    strict = asyncio.run(main())
count = sum(each.category is DeprecationWarning for each in seen)
print(f"mypy 2.4.1: {usual}, after {count} DeprecationWarnings; with warnings as errors {strict}")
sys.exit((usual, strict) != ("CancelledError", "DeprecationWarning") or not count)
PYTHON
PYTHONPATH="$folder/packages:$folder" "$python" "$folder/program.py"
