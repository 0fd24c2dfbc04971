"""For test suites: fake clocks and loops, scripted workers, golden frames."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ._clock import FakeClock
    from ._frames import GoldenFrame, golden_frames, refused_lines
    from ._loop import DeadlockError, FakeLoop
    from ._worker import FakeWorker

__all__ = [
    "DeadlockError",
    "FakeClock",
    "FakeLoop",
    "FakeWorker",
    "GoldenFrame",
    "golden_frames",
    "refused_lines",
]

# pytest imports this package to get at the plugin, in every run where it is installed: what it
# offers is loaded when it is asked for.
_HOME = {
    "DeadlockError": "_loop",
    "FakeClock": "_clock",
    "FakeLoop": "_loop",
    "FakeWorker": "_worker",
    "GoldenFrame": "_frames",
    "golden_frames": "_frames",
    "refused_lines": "_frames",
}


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(f".{_HOME[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
