"""The settings of an introspector, checked."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from .._base import validation
from .._base.errors import ArgumentError, ArgumentTypeError
from .._base.validation import check_text
from ..wire._endpoint import check_path
from ..wire._messages import CpuMethod, MemoryMethod

SocketPath = str | os.PathLike[str] | Literal[False] | None


class HasDescriptor(Protocol):
    """A file with a descriptor."""

    def fileno(self) -> int: ...


StallLog = int | HasDescriptor | Literal["stderr"] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The arguments of Introspector, which documents them.

    Raises ArgumentError or ArgumentTypeError.
    """

    name: str
    cpu: CpuMethod
    memory: MemoryMethod
    slow_session_threshold_ms: float
    slow_status_s: float
    memory_interval_s: float
    sample_interval_s: float
    budget_pct: float
    memory_limit_mb: float
    max_sessions: int
    socket_path: SocketPath
    black_box: bool
    stall_log: StallLog
    stacks: bool
    project_roots: Sequence[str | os.PathLike[str]] | None

    def __post_init__(self) -> None:
        _check_name(self.name)
        validation.one_of("cpu", self.cpu, ("exact", "sampled", "off"))
        validation.one_of("memory", self.memory, ("share", "heap", "traced"))
        if self.memory != "share" and self.cpu != "exact":
            raise ArgumentError(
                f"memory={self.memory!r} is charged with each step and needs cpu='exact', got cpu={self.cpu!r}"
            )
        validation.number("slow_session_threshold_ms", self.slow_session_threshold_ms, above=0)
        validation.number("slow_status_s", self.slow_status_s, least=0)
        validation.number("memory_interval_s", self.memory_interval_s, least=0.01)
        validation.number("sample_interval_s", self.sample_interval_s, least=0.001)
        validation.number("budget_pct", self.budget_pct, least=0)
        validation.number("memory_limit_mb", self.memory_limit_mb, least=0)
        validation.whole("max_sessions", self.max_sessions)
        _check_socket_path(self.socket_path)
        if not isinstance(self.black_box, bool):
            raise ArgumentTypeError(f"black_box must be True or False, got {self.black_box!r}")
        _check_stall_log(self.stall_log)
        if isinstance(self.project_roots, (str, os.PathLike)):
            raise ArgumentTypeError(f"project_roots must be a list of folders, got {self.project_roots!r}")

    @property
    def threshold_s(self) -> float:
        """Return the length in seconds from which on a span is a block."""
        return self.slow_session_threshold_ms / 1000.0

    @property
    def path(self) -> Path | None:
        """Return the socket's path that was asked for.

        None: the default one, or no socket.
        """
        return Path(self.socket_path) if self.socket_path else None


def _check_name(name: object) -> None:
    check_text("name", name)
    if not str(name).isprintable() or len(str(name)) > 64:
        raise ArgumentError(f"name must be at most 64 printable characters, got {name!a:.100}")


def _check_socket_path(path: Any) -> None:
    if path is None or path is False:
        return
    if not isinstance(path, (str, os.PathLike)) or not os.fspath(path):
        raise ArgumentTypeError(
            f"socket_path must be a path, None (the default place) or False (no socket), got {path!r}"
        )
    check_path(Path(path))


def _check_stall_log(target: Any) -> None:
    accepted = "a file descriptor, a file that has one, 'stderr' or None (nowhere)"
    if target is None or target == "stderr":
        return
    if isinstance(target, int) and not isinstance(target, bool):
        if target < 0:
            raise ArgumentError(f"stall_log must be {accepted}, got {target!r}")
        return
    if not callable(getattr(target, "fileno", None)):
        raise ArgumentTypeError(f"stall_log must be {accepted}, got {target!r}")
    try:
        descriptor = target.fileno()
    except (OSError, ValueError) as error:  # closed, or a file in memory
        raise ArgumentError(f"stall_log must be {accepted}, got {target!r}: {error}") from None
    if isinstance(descriptor, bool) or not isinstance(descriptor, int) or descriptor < 0:
        raise ArgumentTypeError(f"stall_log must be {accepted}, got {target!r}, whose fileno() is {descriptor!r}")
