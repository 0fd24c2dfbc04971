"""The cost of importing and attaching, in time and in memory."""

from __future__ import annotations

import asyncio
import gc
import os
import subprocess
import sys
from collections.abc import Callable
from contextvars import Context, copy_context
from pathlib import Path
from statistics import median
from typing import Any

from . import _loops
from ._case import Case, Result, Results, Row, value
from ._subjects import Peer, make

SESSIONS = 10_000

IMPORT_CORE = "import openrtc_introspect_core"
ATTACH_CORE = """
from openrtc_introspect_core import Introspector
async def attach():
    async with Introspector(name="bench"): pass
asyncio.run(attach())
"""
IMPORT_PEER = "import openrtc"
TIMED = "import asyncio, time; began = time.perf_counter()\n{}\nprint(time.perf_counter() - began)"


def cases(quick: bool) -> list[Case]:
    found = [Case("imports", measure_imports, {"runs": 3 if quick else 15}, limit_s=120.0)]
    for subject in ("exact", "peer"):
        needs = _loops.needs("asyncio", subject)
        found.append(Case(f"attached {subject}", measure_attached, {"subject": subject}, needs=needs))
        found.append(Case(f"sessions {subject}", measure_sessions, {"subject": subject}, needs=needs))
    return found


def measure_imports(runs: int) -> Result:
    """Measure imports beyond `import asyncio`, in milliseconds.

    Fresh interpreters take turns.
    """
    from importlib.util import find_spec

    snippets = {"import core": IMPORT_CORE, "attach and close": ATTACH_CORE}
    if find_spec("openrtc") is not None:
        snippets["import peer"] = IMPORT_PEER
    environment = {key: text for key, text in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    times: dict[str, list[float]] = {name: [] for name in snippets}
    for _ in range(runs + 1):
        for name, code in snippets.items():
            command = [sys.executable, "-c", TIMED.format(code)]
            done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
            times[name].append(1000.0 * float(done.stdout.split()[-1]))
    # The first of each wrote the bytecode.
    return {name: {"min_ms": min(all_[1:]), "median_ms": median(all_[1:])} for name, all_ in times.items()}


def measure_attached(subject: str) -> Result:
    return _loops.run("asyncio", _measure_attached(subject))


async def _measure_attached(name: str) -> Result:
    subject = make(name)
    before = resident()
    if isinstance(subject, Peer):
        import openrtc.observability.introspection_runtime  # noqa: F401  # its worker has imported this anyway
    else:
        import openrtc_introspect_core  # noqa: F401
    imported = resident()
    await subject.start()
    await asyncio.sleep(1.5)
    attached = resident()
    await subject.close()
    return {"import_mb": (imported - before) / 2**20, "attach_mb": (attached - imported) / 2**20}


def measure_sessions(subject: str) -> Result:
    return _loops.run("asyncio", _measure_sessions(subject))


async def _measure_sessions(name: str) -> Result:
    """Bind each session in a context of its own, as in a task, but without the task."""
    subject = make(name)
    await subject.start()
    contexts = [copy_context() for _ in range(SESSIONS)]
    names = [f"session-{number:05}" for number in range(SESSIONS)]
    bound: list[Any] = []
    await asyncio.sleep(1.2)
    gc.collect()
    before = resident()
    for context, session_id in zip(contexts, names, strict=True):
        await subject.register(session_id)
        bound.append(_run_in(context, subject.bind, session_id))
    await asyncio.sleep(2.5)  # until the once-a-second samples of all sessions have been taken
    gc.collect()
    after = resident()
    for context, one, session_id in zip(contexts, bound, names, strict=True):
        _run_in(context, subject.unbind, one)
        await subject.unregister(session_id)
    await subject.close()
    return {"kib_each": (after - before) / SESSIONS / 1024}


def _run_in(context: Context, function: Callable[[Any], Any], argument: Any) -> Any:
    return context.run(function, argument)


def resident() -> int:
    """Return this process's resident bytes, without imports that would add any."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        asked = subprocess.run(["ps", "-o", "rss=", "-p", str(os.getpid())], capture_output=True, check=True)
        return int(asked.stdout) * 1024


def rows(results: Results) -> list[Row]:
    peer = value(results, "imports").get("import peer") if "imports" in results else None
    ours, theirs = results.get("attached exact"), results.get("attached peer")
    parts = {name: value(results, "imports", name) or {} for name in ("import core", "attach and close")}
    core, attach = parts["import core"], parts["attach and close"]
    over = "import over `import asyncio` alone"
    return [
        Row(f"{over}, median", core.get("median_ms"), "ms", 60.0, peer and peer["median_ms"]),
        Row(f"{over}, minimum", core.get("min_ms"), "ms", None, peer and peer["min_ms"]),
        Row("import, attach for the first time and close, median", attach.get("median_ms"), "ms"),
        Row("RSS added by importing and attaching", _whole(ours), "MB", 10.0, _whole(theirs)),
        Row(
            "RSS added by attaching alone",
            value(results, "attached exact", "attach_mb"),
            "MB",
            peer=value(results, "attached peer", "attach_mb"),
        ),
        Row(
            "RSS per session, without its tasks",
            value(results, "sessions exact", "kib_each"),
            "KiB",
            must=2.0,
            peer=value(results, "sessions peer", "kib_each"),
        ),
    ]


def _whole(attached: Result | None) -> float | None:
    return attached["import_mb"] + attached["attach_mb"] if attached else None
