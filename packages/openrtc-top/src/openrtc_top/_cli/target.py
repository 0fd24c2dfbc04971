"""The workers that a command is to look at."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from openrtc_top._cli.outcome import NO_WORKER, OK, USAGE, fail, no_worker

if TYPE_CHECKING:
    from openrtc_introspect_core.wire import Snapshot, WorkerSocket
    from openrtc_top._via import Via


@dataclass(frozen=True, slots=True)
class Target:
    """What the options --socket, --worker, --via and --all-users say together."""

    sockets: Sequence[Path] = ()
    names: Sequence[str] = ()
    vias: Sequence[Via] = ()
    all_users: bool = False

    @property
    def named(self) -> bool:
        """Sockets or hosts were named: one that does not answer is an error, whatever the others say."""
        return bool(self.sockets or self.vias)

    def find(self) -> list[WorkerSocket]:
        """The workers of this machine that are there now."""
        from openrtc_top._connection import find
        from openrtc_top._sockets import given

        if self.sockets:
            return [given(path) for path in dict.fromkeys(self.sockets)]
        return [] if self.vias else find(self.names, all_users=self.all_users)

    def wanted(self, key: str) -> bool:
        """Whether a worker is still worth asking after: its host offers it, or its socket is there."""
        if self.vias:
            return any(key == str(worker.path) for via in self.vias for worker in via.workers)
        return Path(key).exists()  # its worker removes it, or whoever finds it dead

    def must_find(self) -> list[WorkerSocket]:
        """The same; that there is none is the command's end."""
        if found := self.find():
            return found
        from openrtc_top._connection import find

        running = find(all_users=self.all_users)
        raise _nobody(self.names, running) if running else no_worker()

    @contextmanager
    def reached(self) -> Iterator[list[WorkerSocket]]:
        """The workers, those behind a relay among them, which can be asked while the block lasts.

        Hosts that cannot be reached are told of on stderr. That there is no worker is the command's end.
        """
        if not self.vias:
            yield self.must_find()
            return
        from openrtc_top._via import running

        with running(self.vias):
            for via in self.unreached():
                fail(f"{via.label}: {via.problem}", NO_WORKER)
            found: list[WorkerSocket] = [worker for via in self.vias for worker in via.workers]
            if found:
                yield found
            elif self.unreached():
                raise typer.Exit(NO_WORKER)
            else:
                hosts = ", ".join(via.label for via in self.vias)
                wanted = f" {' or '.join(map(repr, self.names))}" if self.names else ""
                raise fail(f"no worker{wanted} runs at {hosts} (for that user)", NO_WORKER)

    def unreached(self) -> list[Via]:
        """The hosts whose relay does not run now."""
        return [via for via in self.vias if via.problem is not None]

    def code(self, asked: int, answered: int) -> int:
        """How the command ends when so many of those asked have answered."""
        if not answered:
            return NO_WORKER
        return NO_WORKER if self.named and (answered < asked or self.unreached()) else OK


def target(
    sockets: Sequence[Path] | None = None,
    names: Sequence[str] | None = None,
    vias: Sequence[str] | None = None,
    all_users: bool = False,
) -> Target:
    """What the options say; where they contradict each other, or root is needed, that is wrong usage."""
    if sockets and names:
        raise fail("--socket and --worker both say which workers; give one of them", USAGE)
    if sockets and vias:
        raise fail("--socket is for workers of this machine, --via for those of others; give one of them", USAGE)
    if all_users and (sockets or vias):
        other = "--socket" if sockets else "--via"
        hint = "" if sockets else "; for another host: --via 'ssh root@HOST openrtc relay --all-users'"
        raise fail(f"--all-users looks around on this machine, {other} does not; give one of them{hint}", USAGE)
    if all_users:
        import os

        if os.geteuid() != 0:
            problem = f"--all-users is for root, this is user id {os.geteuid()}; without it your own workers are shown"
            raise fail(problem, USAGE)
    return Target(sockets or (), names or (), _vias(vias or (), names or ()), all_users)


def _vias(commands: Sequence[str], names: Sequence[str]) -> list[Via]:
    if not commands:
        return []
    from openrtc_top._command import BadCommand, distinct, parse
    from openrtc_top._via import Via

    try:
        parsed = [parse(command) for command in commands]
    except BadCommand as error:
        raise fail(f"--via {error}", USAGE) from None
    for _, words in parsed:
        if shutil.which(words[0]) is None:
            raise fail(f"--via: there is no command {words[0]!r} on this machine", USAGE)
    labels = distinct([label for label, _ in parsed])
    return [Via(label, words, names) for label, (_, words) in zip(labels, parsed, strict=True)]


def _nobody(names: Sequence[str], running: Sequence[WorkerSocket]) -> typer.Exit:
    told = ", ".join(worker.name if worker.pid is None else f"{worker.name} (pid {worker.pid})" for worker in running)
    return fail(f"no worker {' or '.join(map(repr, names))}; running: {told}", NO_WORKER)


def read_workers(found: Sequence[WorkerSocket]) -> list[tuple[WorkerSocket, Snapshot]]:
    """The snapshots there are; the others are told of on stderr."""
    from openrtc_top._connection import read_all

    snapshots: list[tuple[WorkerSocket, Snapshot]] = []
    for worker, answer in read_all(found):
        if isinstance(answer, Exception):
            fail(f"{answer}; `openrtc ps` lists the workers that run", NO_WORKER)
        else:
            snapshots.append((worker, answer))
    return snapshots
