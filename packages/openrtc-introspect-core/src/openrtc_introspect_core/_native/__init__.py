"""The part of the meter that is in C, if it is installed.

It does the work of every step, every task and every iteration; all else is in Python, and so is each of its parts,
for where it is not installed. Both do the same.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

from .._base.gil import FREE_THREADED_BUILD
from .._version import __version__
from .sources import checksum

METER_VARIABLE = "OPENRTC_INTROSPECT_METER"
"""The variable of the environment that, set to "python", has the part in C not used: for who suspects it of a fault."""


def _load() -> tuple[ModuleType | None, str | None]:
    """Return (the extension module, why it cannot be used); either is None.

    Raise ImportError if the module is of another version than the package: what it knows of the package's objects
    may be wrong.
    """
    # A free-threaded Python takes the file for one of its own, and crashes: its objects are laid out otherwise.
    if FREE_THREADED_BUILD or os.environ.get(METER_VARIABLE) == "python":
        return None, None
    try:
        _meter = import_module("._meter", __name__)
    except ModuleNotFoundError:
        return None, None
    except ImportError as error:
        return None, f"the meter in C cannot be loaded, the one in Python is used: {error}"
    if __version__ != _meter.VERSION:
        raise ImportError(
            f"openrtc-introspect-core is {__version__} and its meter in C is {_meter.VERSION}: "
            "install openrtc-introspect-core again"
        )
    if checksum(Path(__file__).parent) not in (None, getattr(_meter, "SOURCES", "")):
        return None, (
            "the meter in C was compiled from other sources than those beside it, the one in Python is used: "
            "install openrtc-introspect-core again"
        )
    return _meter, None


def _nothing() -> None:
    pass


native: Any
"""The extension module; None: the meter is in Python."""
native, trouble = _load()
"""trouble: why the installed extension module is not used, in one line. None: it is, or is not wanted, or not there."""
meter: Literal["C", "Python"] = "Python" if native is None else "C"
"""The language of the meter that runs."""

rebound: Callable[[], None] = native.rebound if native is not None else _nothing
"""Takes note that a session was bound in some context, or is no longer: to be called after each such change."""
