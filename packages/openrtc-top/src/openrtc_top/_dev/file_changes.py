"""Changes of Python files, by watchfiles, which is an optional dependency."""

from __future__ import annotations

import importlib.util
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

Stamps = Mapping[Path, tuple[int, int, int]]
"""For each file what differs between two versions of it."""


def can_watch() -> bool:
    """Return whether watchfiles is installed."""
    return importlib.util.find_spec("watchfiles") is not None


def stamps(folder: Path) -> Stamps:
    """Return the stamps of the Python files in the folder."""
    found = {}
    for file in folder.glob("*.py"):
        try:
            status = file.stat()
        except OSError:
            continue
        found[file.resolve()] = status.st_mtime_ns, status.st_size, status.st_ino
    return found


async def changes(folder: Path, known: Stamps) -> AsyncIterator[set[Path]]:
    """Yield the files in the folder, and below it, that were changed.

    Watching begins some moment after the stamps were `known`, so these are compared once at first.
    """
    from watchfiles import PythonFilter, awatch

    first = True
    async for found in awatch(folder, watch_filter=PythonFilter(), yield_on_timeout=True, rust_timeout=1000):
        changed = {Path(path) for _, path in found}
        if first:
            first = False
            now = stamps(folder)
            changed |= {path for path in now.keys() | known.keys() if now.get(path) != known.get(path)}
        if changed:
            yield changed
