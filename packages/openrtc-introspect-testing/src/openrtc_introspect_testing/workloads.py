"""Scripted sessions with a known truth, to test attribution with.

from openrtc_introspect_testing.workloads import Workload

Workload.random(sessions=50).run().check()                 # virtual time, exact; a failure shows the seed
Workload.random(1234).run(real=True).check(worst_pct=10)  # the same sessions on a real loop
print(Workload.random(1234).run())                         # session by session
"""

from ._workloads.report import Report, Row
from ._workloads.script import Script, Step
from ._workloads.workload import Workload

__all__ = ["Report", "Row", "Script", "Step", "Workload"]
