"""A measurement to take, and a row of the table it ends up in."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any, Protocol

SEED = 20_010_327
"""Every random choice of every benchmark follows from this."""

Result = dict[str, Any]
Results = Mapping[str, Result]
"""By the case's name; a case that failed or could not run is missing."""


@dataclass(frozen=True, slots=True)
class Case:
    """One measurement: a function of the benchmark's module, run in an interpreter of its own."""

    name: str
    function: Callable[..., Result]
    arguments: dict[str, Any] = field(default_factory=dict)
    limit_s: float = 60.0
    """It is killed after this long."""
    needs: tuple[str, ...] = ()
    """Modules without which it is left out."""
    compiled: bool = False
    """Whether the step meter is the one in C; else the one that everybody has."""


@dataclass(frozen=True, slots=True)
class Row:
    """One figure: ours, the least that is asked of it, and the peer's."""

    what: str
    ours: float | None
    unit: str = ""
    must: float | None = None
    """None: nothing is asked."""
    peer: float | str | None = None
    """A word where the peer has no figure; None where it was not measured."""
    at_least: bool = False
    """Whether `must` is the least, not the most."""

    @property
    def met(self) -> bool | None:
        if self.must is None or self.ours is None:
            return None
        return self.ours >= self.must if self.at_least else self.ours <= self.must


@dataclass(frozen=True, slots=True)
class Details:
    """A second table, of what does not fit into rows."""

    title: str
    heading: Sequence[str]
    lines: Sequence[Sequence[str]]


class Benchmark(Protocol):
    """What a benchmark's module has; `details(results)`, a list of Details, is optional."""

    __doc__: str | None

    def cases(self, quick: bool) -> list[Case]: ...

    def rows(self, results: Results) -> list[Row]: ...


def title(module: ModuleType) -> str:
    return (module.__doc__ or "").partition("\n")[0]


def value(results: Results, case: str, *path: str | int) -> Any:
    """results[case][path...], or None where the case has no result."""
    found: Any = results.get(case)
    for key in path:
        if found is None:
            return None
        found = found[key]
    return found
