"""The workers that a command is about: on this machine, or behind a relay."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeVar

from openrtc_introspect_core.wire import WorkerSocket, discover, discover_all, socket_name

if TYPE_CHECKING:
    from openrtc_introspect_core.black_box import BoxFile
    from openrtc_introspect_core.wire import Client
    from openrtc_top._model.box_reading import BoxReading, DeadWorker

_T = TypeVar("_T")
_W = TypeVar("_W", bound="Named")
Find = Callable[[], Sequence[WorkerSocket]]


class Named(Protocol):
    """A worker, dead or alive, as a file name or a relay describes it."""

    @property
    def name(self) -> str: ...
    @property
    def pid(self) -> int | None: ...


class Relay(Protocol):
    """The way to the workers of another host; `_relay.near_side` implements it."""

    @property
    def label(self) -> str:
        """The name by which the view calls the host."""

    @property
    def via(self) -> str:
        """The value of `--via` that reaches the host."""

    @property
    def workers(self) -> Sequence[RemoteWorker]:
        """The workers that were offered last, also while the host cannot be reached."""

    @property
    def dead(self) -> Sequence[DeadWorker]:
        """The workers that died there, by the last offer; none of an older relay."""

    @property
    def unseen(self) -> Sequence[str]:
        """Why some workers may not be seen there, if there is none; nothing of an older relay."""

    @property
    def problem(self) -> str | None:
        """The reason why the host cannot be reached now. None: it can."""

    async def run(self, changed: Callable[[], None]) -> None:
        """Stay connected until cancelled.

        Calls `changed` when the workers or the problem may have changed.
        """

    def open(self, worker: RemoteWorker) -> AbstractAsyncContextManager[Client]:
        """Connect to a worker that was offered."""

    async def box(self, path: str) -> BoxReading | str:
        """Return what a black box of that host says, or why there is nothing to be had of it."""

    def call(self, question: Callable[[], Awaitable[_T]]) -> _T:
        """Return the question's answer, for code without an event loop."""


class Hosts(Protocol):
    """The hosts that a command lists: they come and go; `_relay.hosts` implements it."""

    @property
    def relays(self) -> Sequence[Relay]:
        """The relays of the hosts there are now."""

    @property
    def problem(self) -> str | None:
        """The reason why these are not, or not all, the hosts of now. None: they are."""

    async def run(self, changed: Callable[[], None]) -> None:
        """List them again and again until cancelled.

        Calls `changed` when the relays or the problem may have changed.
        """

    def ask_soon(self) -> None:
        """List them as soon as may be: a connection was lost."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteWorker(WorkerSocket):
    """A worker on the other side of a relay.

    Its `path` reads `host:path`, and is no file of this machine.
    """

    socket: str
    """Its socket's path on the other host."""
    user: str | None = None
    """Its owner, if the relay named one."""
    relay: Relay = field(compare=False, repr=False)

    @property
    def box(self) -> str:
        """The path of its black box there."""
        from openrtc_introspect_core.black_box import box_path

        return str(box_path(Path(self.socket)))


@dataclass(frozen=True, slots=True)
class Target:
    """The workers that the options --socket, --worker, --via, --via-each and --all-users name together."""

    sockets: Sequence[Path] = ()
    names: Sequence[str] = ()
    relays: Sequence[Relay] = ()
    """Those of hosts that were named."""
    hosts: Hosts | None = None
    """The hosts that a command lists."""
    all_users: bool = False

    @property
    def remote(self) -> bool:
        """Whether the workers are those of other hosts."""
        return bool(self.relays) or self.hosts is not None

    @property
    def all_relays(self) -> Sequence[Relay]:
        """The relays of all hosts there are now."""
        return [*self.relays, *(self.hosts.relays if self.hosts is not None else ())]

    def find(self) -> list[WorkerSocket]:
        """Return the workers of this machine that are there now."""
        if self.sockets:
            return [worker_at(path) for path in dict.fromkeys(self.sockets)]
        return [] if self.remote else find(self.names, all_users=self.all_users)

    def boxes(self) -> list[BoxFile]:
        """Return the black boxes of this machine that may be those of such workers, dead or alive."""
        from openrtc_introspect_core.black_box import BoxFile, box_path, find_boxes

        if self.sockets:
            paths = [box_path(path) for path in dict.fromkeys(self.sockets)]
            return [BoxFile(path, path.stem, None) for path in paths if os.path.lexists(path)]
        return [] if self.remote else choose(find_boxes(self.all_users), self.names)

    def wanted(self, key: str) -> bool:
        """Return whether a worker's host still offers it, or its socket is still there."""
        if self.remote:
            return any(key == str(worker.path) for relay in self.all_relays for worker in relay.workers)
        return Path(key).exists()  # its worker removes it, or whoever finds it dead


def find(wanted: Sequence[str] = (), *, all_users: bool = False) -> list[WorkerSocket]:
    """Return the running workers of this user, or of every user, that are wanted."""
    return choose(discover_all() if all_users else discover(), wanted)


def worker_at(path: Path) -> WorkerSocket:
    """Return the worker of a socket that the user named.

    Its snapshot has its name and process.
    """
    return WorkerSocket(path=path, name=path.stem, pid=None)


def choose(workers: Sequence[_W], wanted: Sequence[str], host: str | None = None) -> list[_W]:
    """Return the workers of these names or process ids; all, if none is named.

    host: the host that they are on, if they do not say that themselves.
    """
    if not wanted:
        return list(workers)
    # A socket's file name holds the worker's name with other characters replaced.
    accepted = {*wanted, *map(socket_name, wanted)}
    return [
        worker
        for worker in workers
        if accepted & {worker.name, str(worker.pid or worker.name), f"{host or host_of(worker)}:{worker.name}"}
    ]


def owner_name(worker: Named) -> str | None:
    """Return the user that the worker belongs to.

    None: the current one, or it was not looked up.
    """
    owner: int | None = getattr(worker, "owner", None)
    if owner is None or owner == os.geteuid():
        return None
    import pwd

    try:
        return pwd.getpwuid(owner).pw_name
    except KeyError:  # no user of this machine has the number
        return str(owner)


def host_of(worker: Named) -> str | None:
    """Return the host that the worker runs on, or its owner, or both.

    None: this host, and the current user.
    """
    if isinstance(worker, RemoteWorker):
        return f"{worker.user}@{worker.relay.label}" if worker.user else worker.relay.label
    return owner_name(worker)


def shown_name(worker: WorkerSocket, name: str) -> str:
    """Return what a view calls this worker, which calls itself `name`."""
    from openrtc_top._model.workers import worker_label

    return worker_label(host_of(worker), name)
