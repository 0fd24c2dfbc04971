from __future__ import annotations

from typing import Any

from watched_series import codes, series, several

from openrtc_introspect_core import diagnose
from openrtc_introspect_core._diagnosis.memory_limits import memory_limits
from openrtc_introspect_core.wire import Cgroup, Host, WorkerInfo

GROUP = Cgroup(
    cpu_limit=0.5,
    cpu_limit_file="/sys/fs/cgroup/cpu.max",
    cpu_throttled_pct=40.0,
    memory_limit_mb=512.0,
    memory_limit_file="/sys/fs/cgroup/memory.max",
    memory_used_mb=460.0,
    memory_working_set_mb=480.0,
    memory_current_mb=510.0,
    anon_mb=430.0,
    file_mb=50.0,
    kernel_mb=30.0,
    memory_pressure_pct=3.2,
    oom_kills=2,
)
HOST = Host(memory_mb=8192.0, memory_available_mb=4096.0)


def worker(**fields: Any) -> WorkerInfo:
    return WorkerInfo(name="voice-a", pid=1, rss_mb=200.0, **fields)


def test_the_limit_with_the_least_left_comes_first() -> None:
    """Each with what counts towards it."""
    shown = memory_limits(worker(memory_limit_mb=400.0, cgroup=GROUP, host=HOST))
    assert [(each.name, each.used_mb, each.limit_mb) for each in shown] == [
        ("cgroup limit", 460.0, 512.0),
        ("limit", 200.0, 400.0),
        ("host", 4096.0, 8192.0),
    ]
    assert [round(each.used_pct) for each in shown] == [90, 50, 50]
    assert [each.left_mb for each in shown] == [52.0, 200.0, 4096.0]


def test_limits_that_are_not_known_are_left_out() -> None:
    """As of a worker of an earlier version."""
    assert memory_limits(worker()) == []
    assert memory_limits(worker(cgroup=Cgroup(memory_limit_mb=512.0))) == []
    assert memory_limits(worker(cgroup=Cgroup(memory_used_mb=90.0))) == []


def test_above_a_limit_nothing_is_left() -> None:
    """Above `memory.high` the kernel does not kill."""
    (limit,) = memory_limits(worker(memory_limit_mb=150.0))
    assert limit.left_mb == 0.0


def test_what_counts_towards_the_cgroups_limit_is_shown() -> None:
    """And the file that has the limit."""
    (found,) = diagnose(*series(worker=lambda t: {"cgroup": GROUP, "host": HOST}))
    assert (found.code, found.severity) == ("memory-limit", "warning")
    assert found.title == "memory is at 90 % of the cgroup limit"
    assert found.seen == (
        "460 MB of 512 MB that cannot be reclaimed; set by /sys/fs/cgroup/memory.max; anon 430, file 50, kernel 30 MB, "
        "working set 480 MB; memory pressure 3 %; 2 killed since the group was made; the worker's rss 200 MB, "
        "10 sessions"
    )


def test_of_two_limits_the_nearer_is_the_finding() -> None:
    """One fault, one finding."""
    (found,) = diagnose(*series(worker=lambda t: {"cgroup": GROUP, "memory_limit_mb": 210.0}))
    assert found.title == "memory is at 95 % of the limit"
    (found,) = diagnose(*series(worker=lambda t: {"cgroup": GROUP, "memory_limit_mb": 1000.0}))
    assert found.title == "memory is at 90 % of the cgroup limit"


def test_file_cache_that_fills_the_cgroup_is_no_finding() -> None:
    """The kernel takes it back when something else is needed."""
    group = Cgroup(memory_limit_mb=512.0, memory_used_mb=100.0, memory_current_mb=511.0, memory_working_set_mb=450.0)
    assert codes(series(worker=lambda t: {"cgroup": group})) == []


def test_kills_in_the_cgroup_are_a_finding_at_any_share() -> None:
    """What was killed has given its memory back."""

    def killed(t: float) -> dict[str, Any]:
        return {"cgroup": Cgroup(memory_limit_mb=512.0, memory_used_mb=90.0, oom_kills=int(t))}

    (found,) = diagnose(*series(worker=killed))
    assert (found.severity, found.value, found.unit) == ("critical", 5.0, "processes")
    assert found.title == "the kernel killed 5 processes of the cgroup for want of memory"


def test_a_full_machine_is_a_finding() -> None:
    """Its memory is not the worker's alone, so nothing is said before 95 %."""
    host = Host(memory_mb=8192.0, memory_available_mb=300.0)
    (found,) = diagnose(*series(worker=lambda t: {"host": host}))
    assert (found.severity, found.title) == ("critical", "memory is at 96 % of the machine's")
    assert found.seen == "7892 MB of 8192 MB not available, the worker's rss 200 MB, 10 sessions"


def test_growth_is_judged_by_the_nearest_limit() -> None:
    """Here the cgroup's, whose memory others use as well."""

    def grows(t: float) -> dict[str, Any]:
        return {"rss_mb": 200.0 + t, "memory_limit_mb": 4000.0, "cgroup": GROUP, "host": HOST}

    (found,) = [each for each in diagnose(*series(worker=grows)) if each.code == "memory-trend"]
    assert found.severity == "critical"
    assert "at the cgroup limit of 512 MB in 52 s" in found.seen


def test_growth_without_a_limit_ends_with_the_machines_memory() -> None:
    """If that comes before twice of the present memory."""

    def grows(t: float) -> dict[str, Any]:
        return {"rss_mb": 1000.0 + 10.0 * t, "host": Host(memory_mb=8192.0, memory_available_mb=500.0)}

    (found,) = [each for each in diagnose(*series(worker=grows)) if each.code == "memory-trend"]
    assert "at the end of the machine's memory in 50 s" in found.seen


def test_the_cpu_limit_is_shown_where_it_throttles() -> None:
    """With the file that has it, and how often it was used up."""
    detail = "run delay 90 ms; cgroup throttled 80 ms"
    shown = series(
        blocks=several("descheduled", 3, 900.0, detail=detail),
        worker=lambda t: {
            "cgroup": Cgroup(cpu_limit=0.5, cpu_limit_file="/sys/fs/cgroup/cpu.max", cpu_throttled_pct=40.0)
        },
    )
    (found,) = diagnose(*shown)
    assert found.title == "the cgroup's CPU limit throttles the worker"
    assert found.seen.endswith("CPU limit 0.5 by /sys/fs/cgroup/cpu.max, used up in 40 % of its periods")
