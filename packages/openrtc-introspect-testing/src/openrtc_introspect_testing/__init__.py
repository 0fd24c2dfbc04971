"""For test suites: fake clocks and loops, blockers, scripted workers, golden frames."""

from . import blockers
from ._clock import FakeClock
from ._frames import GoldenFrame, golden_frames, refused_lines
from ._loop import FakeLoop
from ._worker import FakeWorker

__all__ = ["FakeClock", "FakeLoop", "FakeWorker", "GoldenFrame", "blockers", "golden_frames", "refused_lines"]
