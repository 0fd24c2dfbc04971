"""What an introspector is started with, checked."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from . import _checks
from ._errors import ArgumentError, ArgumentTypeError
from ._sessions import check_text
from .wire._endpoint import check_path
from .wire._messages import CpuMethod, MemoryMethod

SocketPath = str | os.PathLike[str] | Literal[False] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The arguments of Introspector, which documents them. Raises ArgumentError on a bad one."""

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
    stacks: bool
    project_roots: Sequence[str | os.PathLike[str]] | None

    def __post_init__(self) -> None:
        _check_name(self.name)
        _checks.one_of("cpu", self.cpu, ("exact", "sampled", "off"))
        _checks.one_of("memory", self.memory, ("share", "heap", "traced"))
        if self.memory != "share" and self.cpu != "exact":
            raise ArgumentError(
                f"memory={self.memory!r} is booked with each step and needs cpu='exact', got cpu={self.cpu!r}"
            )
        _checks.number("slow_session_threshold_ms", self.slow_session_threshold_ms, above=0)
        _checks.number("slow_status_s", self.slow_status_s, least=0)
        _checks.number("memory_interval_s", self.memory_interval_s, least=0.01)
        _checks.number("sample_interval_s", self.sample_interval_s, least=0.001)
        _checks.number("budget_pct", self.budget_pct, least=0)
        _checks.number("memory_limit_mb", self.memory_limit_mb, least=0)
        _checks.whole("max_sessions", self.max_sessions)
        _check_socket_path(self.socket_path)
        if isinstance(self.project_roots, (str, os.PathLike)):
            raise ArgumentTypeError(f"project_roots must be a list of folders, got {self.project_roots!r}")

    @property
    def threshold_s(self) -> float:
        return self.slow_session_threshold_ms / 1000.0

    @property
    def path(self) -> Path | None:
        """The socket's path that was asked for; None: the default one, or none at all."""
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
