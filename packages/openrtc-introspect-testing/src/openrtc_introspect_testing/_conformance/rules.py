"""Rules by name, and the finding if one is broken.

Each rule has its line, under the same name, in the section "Rules" of the page. A check raises Broken with a sentence,
or Unchecked if the rule cannot be seen on this server or client.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Generic, TypeVar

PAGE = "docs/wire-protocol.md"


class Broken(Exception):
    """The rule was broken; the message says how."""


class Unchecked(Exception):
    """Nobody can see here whether the rule is kept; the message says why."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One rule that was not kept."""

    rule: str
    problem: str
    """A sentence: what was expected, and what came."""

    def __str__(self) -> str:
        return f"{self.rule}: {self.problem} ({PAGE}#rule-{self.rule})"


@dataclass(frozen=True, slots=True)
class Outcome:
    """The outcome of one rule's check."""

    rule: str
    finding: Finding | None = None
    unchecked: str | None = None
    """Why the rule could not be seen. None: it was seen."""


_Subject = TypeVar("_Subject")


class Rules(Generic[_Subject]):
    """The checks of one side, in the page's order. Several parts follow one another."""

    def __init__(self, *parts: Rules[_Subject]) -> None:
        self._checks: dict[str, Callable[[_Subject], None]] = {}
        for part in parts:
            self._checks |= part._checks

    def __call__(self, name: str) -> Callable[[Callable[[_Subject], None]], Callable[[_Subject], None]]:
        def keep(check: Callable[[_Subject], None]) -> Callable[[_Subject], None]:
            assert name not in self._checks
            self._checks[name] = check
            return check

        return keep

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._checks)

    def check(self, subject: _Subject, names: Iterable[str] | None = None, *, at_once: int = 1) -> list[Outcome]:
        """Check each rule, and return the outcomes in order.

        at_once: how many checks run at the same time.
        """

        def outcome(name: str) -> Outcome:
            try:
                self._checks[name](subject)
                return Outcome(name)
            except Broken as broken:
                return Outcome(name, Finding(name, str(broken)))
            except Unchecked as unchecked:
                return Outcome(name, unchecked=str(unchecked))

        with ThreadPoolExecutor(at_once) as pool:
            return list(pool.map(outcome, self.names if names is None else names))


def require(kept: bool, problem: str) -> None:
    if not kept:
        raise Broken(problem)
