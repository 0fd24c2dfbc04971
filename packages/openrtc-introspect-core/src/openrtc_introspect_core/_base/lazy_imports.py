"""Imports that the host has put off for all modules (`python -X lazy_imports=all`, Python 3.15).

Then a name that a module of ours imports is imported at its first use: in a session's step, or on the watchdog's thread
in the middle of a block, where it waits for an import of the host's own.
"""

from __future__ import annotations

import contextlib
import sys
import types

LAZY: type | None = getattr(types, "LazyImportType", None)
"""The type of what stands in a module's dictionary for a name that is not imported yet. None: before Python 3.15."""


def load(package: str) -> None:
    """Import now what the loaded modules of a package would import at first use, and what those modules would.

    A name that cannot be imported is left as it is: its first use raises the error.
    """
    loaded: set[str] = set()
    while LAZY is not None and (found := {name for name in sys.modules.copy() if is_within(name, package)} - loaded):
        loaded |= found
        for module in map(sys.modules.__getitem__, found):
            for name in [name for name, value in vars(module).copy().items() if type(value) is LAZY]:
                with contextlib.suppress(Exception):
                    getattr(module, name)  # this is its first use


def is_within(name: str, package: str) -> bool:
    """Return whether a module is the package or in it."""
    return f"{name}.".startswith(f"{package}.")
