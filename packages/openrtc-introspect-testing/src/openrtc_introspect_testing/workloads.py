"""Scripted sessions with ground truth, to test attribution with.

from openrtc_introspect_testing.workloads import Workload

Workload.random(sessions=50).run().check()                 # virtual time, exact; the seed is told on failure
Workload.random(1234).run(real=True).check(worst_pct=10)  # the same sessions on a real loop
print(Workload.random(1234).run())                         # session by session
"""

from ._attribution import Report, Row
from ._workloads import Script, Step, Workload

__all__ = ["Report", "Row", "Script", "Step", "Workload"]
