from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from openrtc_introspect_core.wire import Cgroup, Snapshot, WorkerSocket
from openrtc_top._view.text import line_to_text
from openrtc_top._view.workers import worker_table


@pytest.mark.parametrize(
    ("limited", "expected"),
    [
        ({"memory_limit_mb": 0.0}, "-"),
        ({"memory_limit_mb": 4096.0}, "4.0 GB"),
        ({"memory_limit_mb": 0.0, "cgroup": Cgroup(cpu_limit=0.5)}, "0.5 cores"),
        ({"cgroup": Cgroup(cpu_limit=1.0, memory_limit_mb=512.0, memory_used_mb=500.0)}, "1 core, 512 MB"),
        ({"memory_limit_mb": 0.0, "cgroup": Cgroup(cpu_limit=1.25)}, "1.25 cores"),
        ({"memory_limit_mb": 0.0, "cgroup": Cgroup(cpu_limit=128.0)}, "128 cores"),
        ({"cgroup": Cgroup(memory_limit_mb=8192.0, memory_used_mb=500.0)}, "4.0 GB"),
    ],
)
def test_the_nearest_limits_are_listed(
    limited: dict[str, Any], expected: str, make_snapshot: Callable[..., Snapshot]
) -> None:
    """Of memory the one with the least left; none is a dash."""
    table = worker_table([(WorkerSocket(Path("/run/a-7.sock"), "a", 7), make_snapshot(**limited))])
    heading, line = (re.split(r" {2,}", line_to_text(each, 200, color=False)) for each in table)
    assert line[heading.index("limits")] == expected
