"""For test suites: fake clocks and loops, scripted workers, golden frames.

`blockers`, `workloads` and `conformance` are modules of this package, loaded when they are asked for.
"""

from ._clock import FakeClock
from ._frames import GoldenFrame, RefusedLine, golden_frames, refused_lines
from ._loop import FakeLoop
from ._misbehaviour import MISBEHAVIOURS
from ._worker import FakeWorker

__all__ = [
    "MISBEHAVIOURS",
    "FakeClock",
    "FakeLoop",
    "FakeWorker",
    "GoldenFrame",
    "RefusedLine",
    "golden_frames",
    "refused_lines",
]
