"""The fix of a block, as one line: the call to write instead."""

from __future__ import annotations

from collections.abc import Sequence

_INSTEAD = (
    (("requests/", "urllib3/", "urllib/", "http/client.py", "httpx/"), "an async HTTP client"),
    (("sqlite3/", "psycopg2/", "pymysql/", "redis/"), "the database's async client"),
    (("subprocess.py",), "await asyncio.create_subprocess_exec(...)"),
    (("socket.py", "ssl.py"), "asyncio's streams"),
    (("threading.py", "queue.py", "concurrent/futures/"), "asyncio's own locks, events and queues"),
)
"""The replacements of blocking calls into these files; the first entry that matches is used."""

_ON_TRIO = (
    ("asyncio.sleep(", "trio.sleep("),
    ("asyncio.to_thread(", "trio.to_thread.run_sync("),
    ("asyncio.create_subprocess_exec(", "trio.run_process("),
    ("asyncio's own locks, events and queues", "Trio's own locks, events and channels"),
    ("asyncio's streams", "Trio's streams"),
)
"""asyncio's names, and Trio's names for the same."""


def fix_of(cause: str | None, called: Sequence[str], source: str, *, on_trio: bool = False) -> str:
    """Return what to write instead.

    called: the files of the calls that the line led to. source: the text of the line.
    """
    fix = _fix_of(cause, called, source)
    for asyncios, trios in _ON_TRIO if on_trio else ():
        fix = fix.replace(asyncios, trios)
    return fix


def _fix_of(cause: str | None, called: Sequence[str], source: str) -> str:
    if cause == "sync-call":
        for parts, instead in _INSTEAD:
            if any(f"/{part}" in f"/{file}" for part in parts for file in called):
                return f"{instead}, or await asyncio.to_thread(...) around the call"
        if "sleep(" in source:
            return "await asyncio.sleep(...)"
    # The advice of `openrtc diagnose` for the same blocks in a worker. Imported here: most runs find no block.
    from openrtc_introspect_core._diagnosis.cause import CAUSES

    known = CAUSES.get(cause or "", CAUSES["sync-call"])
    return known.fix.replace("`", "")
