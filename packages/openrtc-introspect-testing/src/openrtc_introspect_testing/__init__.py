"""For test suites: fake clocks and loops, scripted workers, golden frames."""

from ._clock import FakeClock
from ._loop import FakeLoop

__all__ = ["FakeClock", "FakeLoop"]
