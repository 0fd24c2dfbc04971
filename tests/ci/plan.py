"""Read which sessions CI runs, and choose those of one run."""

from __future__ import annotations

import subprocess
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

PLAN = Path(__file__).with_name("plan.toml")


@dataclass(frozen=True)
class Queue:
    """Sessions that run one after the other."""

    every_run: list[str]
    one_a_run: list[list[str]] = field(default_factory=list)

    def chosen(self, number: int) -> list[str]:
        """Return the sessions of the run with this number."""
        return [*self.every_run, *(each[number % len(each)] for each in self.one_a_run)]

    @property
    def all(self) -> list[str]:
        """The sessions of all runs."""
        return [*self.every_run, *(name for each in self.one_a_run for name in each)]


@dataclass(frozen=True)
class Plan:
    """What plan.toml says."""

    queues: dict[str, Queue]
    arguments: dict[str, list[str]]
    may_be_missing: dict[str, str]
    not_blocking: list[str] = field(default_factory=list)

    def arguments_of(self, session: str) -> list[str]:
        """Return what stands behind -- of a session."""
        return self.arguments.get(session, self.arguments.get(kind_of(session), []))

    def sessions(self) -> Iterator[str]:
        """Yield the sessions of all runs."""
        for queue in self.queues.values():
            yield from queue.all


def read_plan() -> Plan:
    """Return the plan of plan.toml."""
    read = tomllib.loads(PLAN.read_text(encoding="utf-8"))
    return Plan(**{**read, "queues": {name: Queue(**queue) for name, queue in read["queues"].items()}})


def kind_of(session: str) -> str:
    """Return the name of a session without its Python."""
    return session.partition("-")[0]


def python_of(session: str) -> str:
    """Return the Python at the end of a session's name, such as 3.13. Empty: the one that runs noxfile.py."""
    return session.partition("-")[2]


def number_of_commits(root: Path) -> int:
    """Return how many commits lead to the one that is checked out. A copy without history has none."""
    count = ["git", "-C", str(root), "rev-list", "--count", "HEAD"]
    done = subprocess.run(count, capture_output=True, text=True, check=False)
    return int(done.stdout) if done.returncode == 0 else 0
