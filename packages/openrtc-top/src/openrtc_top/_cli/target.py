"""The workers that a command is about, and its end if they do not answer."""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from openrtc_top._cli.outcome import NO_WORKER, OK, USAGE, fail, no_worker, say
from openrtc_top._client.targets import Target, find
from openrtc_top._relay.command import PLACE

if TYPE_CHECKING:
    from openrtc_introspect_core.wire import Snapshot, WorkerSocket
    from openrtc_top._model.box_reading import BoxReading
    from openrtc_top._relay.hosts import HostList
    from openrtc_top._relay.near_side import RelayClient
    from openrtc_top._view.line import Line


LISTED_S = 10.0
"""A command that prints once waits so long for hosts of --via-each: one that is dead delays it no longer."""
MAX_DEAD_LINES = 8
"""The lines about workers that died; one more says how many others did."""


@dataclass(frozen=True, slots=True)
class CommandTarget(Target):
    """A target whose errors are a command's."""

    relays: Sequence[RelayClient] = ()
    hosts: HostList | None = None

    @property
    def all_relays(self) -> Sequence[RelayClient]:
        """The relays of all hosts there are now."""
        return [*self.relays, *(self.hosts.relays if self.hosts is not None else ())]

    @property
    def named(self) -> bool:
        """Sockets or hosts were named, so one that does not answer is an error."""
        return bool(self.sockets) or self.remote

    def must_find(self) -> list[WorkerSocket]:
        """Return the workers of this machine. If there is none, the command ends."""
        if found := self.find():
            return found
        running = find(all_users=self.all_users)
        dead = [line_text(line) for line in self.dead_lines([])]
        if not running and not (self.names and dead):
            from openrtc_top._client.unseen import searched, unseen

            raise no_worker([*dead, *unseen(self.all_users)], searched())
        end = _no_such_worker(self.names, running)
        for line in dead:
            say(line)
        raise end

    def dead_lines(self, live: Sequence[WorkerSocket]) -> list[Line]:
        """Return a line for each of the workers that died and left a black box, the last one first."""
        from openrtc_top._client.black_boxes import find_dead
        from openrtc_top._view.unanswered import dead_lines

        return dead_lines(find_dead(self, live), MAX_DEAD_LINES)

    @contextmanager
    def reached(self) -> Iterator[list[WorkerSocket]]:
        """Reach the workers, so that they can be asked while the `with` block lasts.

        Hosts that cannot be reached are reported on stderr. If there is no worker, the command ends.
        """
        if not self.remote:
            yield self.must_find()
            return
        with self.connected():
            found: list[WorkerSocket] = [worker for relay in self.all_relays for worker in relay.workers]
            if found:
                yield found
            elif self.unreached() or not self.all_relays:
                raise typer.Exit(NO_WORKER)
            else:
                hosts = ", ".join(relay.label for relay in self.all_relays)
                wanted = f" {' or '.join(map(repr, self.names))}" if self.names else ""
                end = fail(f"no worker{wanted} runs at {hosts} (for that user)", NO_WORKER)
                for relay in self.relays:
                    for reason in relay.unseen:
                        say(f"{relay.label}: {reason}")
                for line in self.dead_lines([]):
                    say(line_text(line))
                raise end

    @contextmanager
    def connected(self) -> Iterator[None]:
        """Stay connected to the hosts while the `with` block lasts.

        Those that cannot be reached are reported on stderr, and so is why hosts could not be listed.
        """
        from openrtc_top._relay.child import signals_wake_main_thread
        from openrtc_top._relay.near_side import running

        patience_s = math.inf
        if self.hosts is not None:
            import anyio

            patience_s = LISTED_S
            anyio.run(self.hosts.list_once)
            if self.hosts.problem is not None:
                fail(f"--via-each: {self.hosts.problem}", NO_WORKER)
        with signals_wake_main_thread(), running(self.all_relays, patience_s):
            for relay in self.unreached():
                fail(f"{relay.label}: {relay.problem}", NO_WORKER)
            yield

    def unreached(self) -> list[RelayClient]:
        """Return the hosts whose relay does not run now."""
        return [relay for relay in self.all_relays if relay.problem is not None]

    def exit_code(self, asked: int, answered: int) -> int:
        """Return how the command ends if so many of those asked have answered."""
        if not answered:
            return NO_WORKER
        unlisted = self.hosts is not None and self.hosts.problem is not None
        return NO_WORKER if self.named and (answered < asked or self.unreached() or unlisted) else OK


def parse_target(
    sockets: Sequence[Path] | None = None,
    names: Sequence[str] | None = None,
    vias: Sequence[str] | None = None,
    all_users: bool = False,
    via_each: str | None = None,
) -> CommandTarget:
    """Return the target that the options name.

    If they contradict each other, or need root, the usage is wrong.
    """
    if sockets and names:
        raise fail("--socket and --worker both say which workers; give one of them", USAGE)
    if sockets and (vias or via_each):
        raise fail("--socket is for workers of this machine, --via for those of others; give one of them", USAGE)
    if all_users and (sockets or vias or via_each):
        other = "--socket" if sockets else "--via"
        hint = "" if sockets else "; for another host: --via 'ssh root@HOST openrtc relay --all-users'"
        raise fail(f"--all-users looks around on this machine, {other} does not; give one of them{hint}", USAGE)
    if all_users:
        import os

        if os.geteuid() != 0:
            problem = f"--all-users is for root, this is user id {os.geteuid()}; without it your own workers are shown"
            raise fail(problem, USAGE)
    templates = [via for via in vias or () if PLACE in via]
    relays = _relay_clients([via for via in vias or () if PLACE not in via], names or ())
    hosts = _host_list(via_each, templates, names or ())
    if relays or hosts is not None:
        from openrtc_top._relay.child import end_with_this_process

        end_with_this_process()
    return CommandTarget(sockets=sockets or (), names=names or (), relays=relays, hosts=hosts, all_users=all_users)


def _host_list(command: str | None, templates: Sequence[str], names: Sequence[str]) -> HostList | None:
    if command is None and not templates:
        return None
    if command is None:
        problem = f"--via {templates[0]!r}: {PLACE} stands for each host that --via-each COMMAND lists; give that too"
        raise fail(problem, USAGE)
    if len(templates) != 1:
        problem = f"--via-each takes one --via with {PLACE} in it, where each host goes, as in --via 'ssh {PLACE}'"
        raise fail(f"{problem}; there {'is none' if not templates else f'are {len(templates)}'}", USAGE)
    from openrtc_top._relay.command import BadCommand
    from openrtc_top._relay.hosts import HostList, parse_list, parse_template

    option = "--via-each"
    try:
        words = parse_list(command)
        option = "--via"
        template = parse_template(templates[0])
    except BadCommand as error:
        raise fail(f"{option} {error}", USAGE) from None
    _must_be_here("--via-each", words[0])
    _must_be_here("--via", template[0])
    return HostList(words, template, names)


def _must_be_here(option: str, program: str) -> None:
    if shutil.which(program) is None:
        raise fail(f"{option}: there is no command {program!r} on this machine", USAGE)


def _relay_clients(commands: Sequence[str], names: Sequence[str]) -> list[RelayClient]:
    if not commands:
        return []
    from openrtc_top._relay.command import BadCommand, distinct, parse
    from openrtc_top._relay.near_side import RelayClient

    try:
        parsed = [parse(command) for command in commands]
    except BadCommand as error:
        raise fail(f"--via {error}", USAGE) from None
    for _, words in parsed:
        _must_be_here("--via", words[0])
    labels = distinct([label for label, _ in parsed])
    return [RelayClient(label, words, names) for label, (_, words) in zip(labels, parsed, strict=True)]


def _no_such_worker(names: Sequence[str], running: Sequence[WorkerSocket]) -> typer.Exit:
    """Report that no worker has one of these names, with the names there are."""
    listed = ", ".join(worker.name if worker.pid is None else f"{worker.name} (pid {worker.pid})" for worker in running)
    return fail(f"no worker {' or '.join(map(repr, names))}; running: {listed or 'none'}", NO_WORKER)


def read_workers(found: Sequence[WorkerSocket]) -> list[tuple[WorkerSocket, Snapshot | BoxReading]]:
    """Return the snapshots there are, and what the black boxes say of workers that do not answer.

    Workers of which nothing is to be had are reported on stderr.
    """
    from openrtc_top._client.query import read_all

    answers: list[tuple[WorkerSocket, Snapshot | BoxReading]] = []
    for worker, answer in read_all(found):
        if isinstance(answer, Exception):
            fail(f"{answer}; `openrtc ps` lists the workers that run", NO_WORKER)
        else:
            answers.append((worker, answer))
    return answers


def snapshot_of(answer: Snapshot | BoxReading) -> Snapshot:
    """Return the snapshot that was read, from the worker or from its black box."""
    from openrtc_top._model.box_reading import BoxReading

    return answer.snapshot if isinstance(answer, BoxReading) else answer


def say_frozen(answers: Sequence[tuple[WorkerSocket, Snapshot | BoxReading]]) -> None:
    """Report on stderr which workers do not answer, and what their black boxes say."""
    from openrtc_top._client.targets import shown_name
    from openrtc_top._model.box_reading import BoxReading
    from openrtc_top._view.unanswered import frozen_line

    for worker, answer in answers:
        if isinstance(answer, BoxReading):
            say(f"note: {frozen_line(shown_name(worker, answer.worker), answer)}")


def line_text(line: Line) -> str:
    """Return a line as plain text."""
    return "".join(text for text, _, _ in line.segments)
