"""The types of a benchmark: a case to measure, and a table row for its figure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any, Protocol

SEED = 20_010_327
"""The seed of every random choice of every benchmark."""

Result = dict[str, Any]
Results = Mapping[str, Result]
"""Results by the case's name. A case that failed or could not run is missing."""


@dataclass(frozen=True, slots=True)
class Case:
    """One measurement: a function that runs in an interpreter of its own."""

    name: str
    function: Callable[..., Result]
    arguments: dict[str, Any] = field(default_factory=dict)
    limit_s: float = 60.0
    """The case is killed after this many seconds."""
    needs: tuple[str, ...] = ()
    """Modules that the case needs; it is skipped if one is missing."""
    programs: tuple[str, ...] = ()
    """Programs that the case needs; it is skipped if one is missing."""
    meter_in_python: bool = False
    """Whether the case does without the meter in C; otherwise it is used if it is installed."""
    before: bool = False
    """Whether the case measures the build before, whose tree is given; see _runner.py."""


@dataclass(frozen=True, slots=True)
class Row:
    """One figure: ours, its target, and the peer's."""

    what: str
    ours: float | None
    unit: str = ""
    must: float | None = None
    """The target; None if there is none."""
    peer: float | str | None = None
    """A text if the peer has no figure; None if the peer was not measured."""
    at_least: bool = False
    """Whether `must` is a lower limit; otherwise it is an upper one."""

    @property
    def met(self) -> bool | None:
        if self.must is None or self.ours is None:
            return None
        return self.ours >= self.must if self.at_least else self.ours <= self.must


@dataclass(frozen=True, slots=True)
class Details:
    """A further table, for what does not fit into rows."""

    title: str
    heading: Sequence[str]
    lines: Sequence[Sequence[str]]


class Benchmark(Protocol):
    """The interface of a benchmark's module.

    A function `details(results)`, which returns a list of Details, is optional.
    """

    __doc__: str | None

    def cases(self, quick: bool) -> list[Case]: ...

    def rows(self, results: Results) -> list[Row]: ...


def title(module: ModuleType) -> str:
    """Return the first line of the module's docstring."""
    return (module.__doc__ or "").partition("\n")[0]


def value(results: Results, case: str, *path: str | int) -> Any:
    """Return results[case][path...], or None if the case has no result."""
    found: Any = results.get(case)
    for key in path:
        if found is None:
            return None
        found = found[key]
    return found
