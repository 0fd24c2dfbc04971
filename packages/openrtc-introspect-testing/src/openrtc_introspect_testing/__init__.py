"""For test suites: fake clocks and loops, scripted workers, golden frames.

`blockers`, `workloads` and `conformance` are modules of this package; import them by name.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ._loops.fake_clock import FakeClock
    from ._loops.fake_loop import DeadlockError, FakeLoop
    from ._workers.fake_worker import FakeWorker
    from ._workers.golden_frames import GoldenFrame, RefusedLine, golden_frames, refused_lines
    from ._workers.misbehaviour import MISBEHAVIOURS

__all__ = [
    "MISBEHAVIOURS",
    "DeadlockError",
    "FakeClock",
    "FakeLoop",
    "FakeWorker",
    "GoldenFrame",
    "RefusedLine",
    "golden_frames",
    "refused_lines",
]

# pytest imports this package for the plugin, in every run where the package is installed. So each name is loaded when
# a program asks for it.
_HOME = {
    "DeadlockError": "_loops.fake_loop",
    "FakeClock": "_loops.fake_clock",
    "FakeLoop": "_loops.fake_loop",
    "FakeWorker": "_workers.fake_worker",
    "GoldenFrame": "_workers.golden_frames",
    "MISBEHAVIOURS": "_workers.misbehaviour",
    "RefusedLine": "_workers.golden_frames",
    "golden_frames": "_workers.golden_frames",
    "refused_lines": "_workers.golden_frames",
}


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(f".{_HOME[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
