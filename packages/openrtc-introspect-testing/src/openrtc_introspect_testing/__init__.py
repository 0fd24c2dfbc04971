"""For test suites: fake clocks and loops, blockers, workloads, scripted workers, golden frames, conformance."""

from . import blockers, conformance, workloads
from ._clock import FakeClock
from ._frames import GoldenFrame, RefusedLine, golden_frames, refused_lines
from ._loop import FakeLoop
from ._misbehaviour import MISBEHAVIOURS
from ._worker import FakeWorker

__all__ = [
    "MISBEHAVIOURS", "FakeClock", "FakeLoop", "FakeWorker", "GoldenFrame", "RefusedLine", "blockers", "conformance",
    "golden_frames", "refused_lines", "workloads",
]  # fmt: skip
