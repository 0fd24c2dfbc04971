from __future__ import annotations

import io
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from openrtc_introspect_core import (
    ArgumentError,
    Introspector,
)

Run = Callable[[Coroutine[Any, Any, Any]], Any]


class Descriptor:
    """Something that has what it says is a descriptor."""

    def __init__(self, descriptor: Any) -> None:
        self._descriptor = descriptor

    def fileno(self) -> Any:
        return self._descriptor


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"slow_session_threshold_ms": 0}, r"slow_session_threshold_ms must be greater than 0, got 0$"),
        ({"slow_session_threshold_ms": -1.5}, r"greater than 0, got -1\.5$"),
        ({"slow_session_threshold_ms": float("nan")}, "greater than 0, got nan$"),
        ({"slow_session_threshold_ms": "50"}, "must be a number, got '50'$"),
        ({"slow_session_threshold_ms": True}, "must be a number, got True$"),
        ({"slow_status_s": -1}, "slow_status_s must be 0 or more, got -1$"),
        ({"memory_interval_s": 0}, r"memory_interval_s must be 0\.01 or more, got 0$"),
        ({"sample_interval_s": 0}, r"sample_interval_s must be 0\.001 or more, got 0$"),
        ({"memory_limit_mb": -1}, "memory_limit_mb must be 0 or more, got -1$"),
        ({"max_sessions": -1}, r"max_sessions must be 0 \(no limit\) or more, got -1$"),
        ({"max_sessions": 1.5}, r"max_sessions must be an int, got 1\.5$"),
        ({"cpu": "fast"}, "cpu must be 'exact' or 'sampled' or 'off', got 'fast'$"),
        ({"memory": "all"}, "memory must be 'share' or 'heap' or 'traced', got 'all'$"),
        ({"name": ""}, "name must have 1 to 256 characters, got an empty one$"),
        ({"name": "a\x1bb"}, r"name must be at most 64 printable characters, got 'a\\x1bb'$"),
        ({"socket_path": 7}, r"socket_path must be a path, None .* or False .*, got 7$"),
        ({"black_box": "no"}, "black_box must be True or False, got 'no'$"),
        ({"stall_log": -1}, r"stall_log must be a file descriptor, .*, 'stderr' or None \(nowhere\), got -1$"),
        ({"stall_log": True}, r"stall_log must be a file descriptor, .*, got True$"),
        ({"stall_log": "stdout"}, r"stall_log must be a file descriptor, .*, got 'stdout'$"),
        ({"stall_log": io.StringIO()}, r"stall_log must be a file descriptor, .*, got <.*StringIO.*>: fileno$"),
        ({"stall_log": Descriptor("2")}, r"stall_log must be .*, got <.*>, whose fileno\(\) is '2'$"),
        ({"stall_log": Descriptor(-1)}, r"stall_log must be .*, got <.*>, whose fileno\(\) is -1$"),
        ({"socket_path": "/" + "x" * 200}, r"is 201 bytes long; at most 10[37] are possible: set"),
    ],
)
def test_bad_arguments_are_described_in_one_line(arguments: dict[str, Any], message: str) -> None:
    """The error names what was given and what is accepted, before anything has started."""
    with pytest.raises(ArgumentError, match=message) as caught:
        Introspector(**arguments)
    assert "\n" not in str(caught.value)
    assert isinstance(caught.value, ValueError)


def test_a_closed_file_is_no_stall_log(tmp_path: Path) -> None:
    """The error says why."""
    file = (tmp_path / "log").open("w")
    file.close()
    with pytest.raises(ArgumentError, match=r"stall_log must be .*: I/O operation on closed file"):
        Introspector(stall_log=file)


@pytest.mark.parametrize("target", [0, 2, 999, None, "stderr", Descriptor(5)])
def test_a_stall_log_is_a_descriptor_or_has_one(target: Any) -> None:
    """The number is used at the start only."""
    assert Introspector(stall_log=target).name == "worker"
