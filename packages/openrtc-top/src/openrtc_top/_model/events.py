"""The events that feed the view: news of workers, keys, time, what was drawn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from openrtc_introspect_core.wire import Block, Snapshot
    from openrtc_top._model.box_reading import BoxReading, DeadWorker
    from openrtc_top._model.page import Inspection
    from openrtc_top._model.waits import Survey


@dataclass(frozen=True, slots=True)
class Found:
    """A worker's socket was found; no snapshot has come so far."""

    worker: str
    name: str
    pid: int | None = None
    host: str | None = None
    """The machine it runs on, as the user called it. None: this one."""


@dataclass(frozen=True, slots=True)
class Dropped:
    """A worker is not to be shown any more.

    Its host is not listed any more; or it is a host's stand-in, and the host offers workers now.
    """

    worker: str


@dataclass(frozen=True, slots=True)
class Frame:
    """A worker sent a snapshot."""

    worker: str
    snapshot: Snapshot


@dataclass(frozen=True, slots=True)
class Blocked:
    """A worker sent blocks that are over, oldest first."""

    worker: str
    blocks: Sequence[Block]


@dataclass(frozen=True, slots=True)
class Inspected:
    """A worker described one of its sessions, for that session's page."""

    worker: str
    session_id: str
    inspection: Inspection


@dataclass(frozen=True, slots=True)
class Surveyed:
    """A worker said what its tasks wait for, or why it cannot."""

    worker: str
    survey: Survey


@dataclass(frozen=True, slots=True)
class Unanswered:
    """A worker has not answered for a moment; its black box was read meanwhile."""

    worker: str
    reading: BoxReading


@dataclass(frozen=True, slots=True)
class Died:
    """The workers that died on one machine and left a black box, the latest first."""

    host: str | None
    """The machine, as the user called it. None: this one."""
    dead: tuple[DeadWorker, ...]
    via: str | None = None
    """The value of `--via` that reaches it. None: this one."""


@dataclass(frozen=True, slots=True)
class Listed:
    """The hosts of `--via-each` were listed, or could not be."""

    problem: str | None
    """The reason why the hosts are those of an earlier list, or not all. None: they are all."""


@dataclass(frozen=True, slots=True)
class Gone:
    """The connection to a worker was lost, or could not be made."""

    worker: str
    reason: str
    retry_s: float | None = None
    """Seconds until the next try. None: not known."""


@dataclass(frozen=True, slots=True)
class Key:
    """A key was pressed: a name from `_tui.keys`."""

    name: str


@dataclass(frozen=True, slots=True)
class Tick:
    """The view's own clock, seconds, monotonic."""

    now: float


@dataclass(frozen=True, slots=True)
class Shown:
    """The part of a list that the last rendering had room for."""

    top: int
    """The first row's index."""
    page_rows: int
    """The number of rows that there was room for."""


@dataclass(frozen=True, slots=True)
class Noticed:
    """A message to the user, which stays until a key is pressed."""

    text: str


News = Found | Dropped | Frame | Blocked | Inspected | Surveyed | Unanswered | Died | Listed | Gone
Event = News | Key | Tick | Shown | Noticed
