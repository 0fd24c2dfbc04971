"""The report about a worker that died."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from msgspec import structs

from openrtc_introspect_core.black_box import MemoryPoint
from openrtc_introspect_core.wire import Cgroup, Snapshot
from openrtc_top._model.box_reading import BoxReading
from openrtc_top._view.postmortem import report
from openrtc_top._view.text import line_to_text


@pytest.mark.parametrize(
    ("rss_mb", "used_mb", "said"),
    [
        (90.0, 88.0, "90 MB, 88 MB of the cgroup limit of 100 MB (where the kernel kills: exit code 137, OOMKilled), "),
        (95.0, 21.0, "95 MB, 21 MB of the cgroup limit of 100 MB (where the kernel kills: exit code 137, OOMKilled), "),
        (89.0, 88.0, "89 MB, 88 MB of the cgroup limit of 100 MB, +12 MB/min"),
    ],
    ids=["near it", "the count is older", "not near it"],
)
def test_a_worker_that_died_near_its_limit_may_have_been_killed_there(
    rss_mb: float, used_mb: float, said: str, make_snapshot: Callable[..., Snapshot]
) -> None:
    """The kernel says so nowhere in the container; its exit code does."""
    snapshot = make_snapshot()
    group = Cgroup(memory_limit_mb=100.0, memory_used_mb=used_mb)
    snapshot = structs.replace(snapshot, worker=structs.replace(snapshot.worker, cgroup=group, memory_limit_mb=0.0))
    reading = BoxReading(
        box="/b",
        worker="w",
        pid=7,
        alive=False,
        now=1009.0,
        at=1009.0,
        snapshot=snapshot,
        memory=[MemoryPoint(at=1009.0, rss_mb=rss_mb)],
    )
    text = "\n".join(line_to_text(line, line.width, color=False) for line in report(reading, "w", None))
    assert f"memory     {said}" in text
