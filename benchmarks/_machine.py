"""The machine and the versions behind the figures, without host or user names."""

from __future__ import annotations

import os
import platform
import sysconfig
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGES = (
    "uvloop", "rloop", "zuvloop", "qasync", "openrtc", "livekit-agents", "pyleak", "blockbuster", "aiodebug",
    "looptime",
)  # fmt: skip

_THREADED = "t" if sysconfig.get_config_var("Py_GIL_DISABLED") else ""
"""The mark of a free-threaded build."""


def describe() -> dict[str, str | int]:
    return {
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        "cpu": _cpu_model(),
        "os": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}{_THREADED}",
        **{name: _version(name) for name in PACKAGES},
    }


def load_1m() -> float | None:
    """Return the load average of the last minute, or None if the platform has none."""
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None


def _cpu_model() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or "unknown"


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"
