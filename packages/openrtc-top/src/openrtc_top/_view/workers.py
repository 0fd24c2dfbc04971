"""The table of `openrtc ps`: one line for each worker."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from openrtc_introspect_core._diagnosis.memory_limits import own_limit
from openrtc_top._model.box_reading import BoxReading
from openrtc_top._view import quantity
from openrtc_top._view.line import Line, cells, fitted, visible
from openrtc_top._view.style import DIM, HEADING, PLAIN

if TYPE_CHECKING:
    from openrtc_introspect_core.wire import Snapshot, WorkerInfo, WorkerSocket

_TITLES = ("worker", "pid", "loop", "python", "meter", "mode", "sessions", "rss", "limits", "up", "socket")
_RIGHT = {"pid", "sessions", "rss", "up"}


def worker_table(answers: Sequence[tuple[WorkerSocket, Snapshot | BoxReading | Exception]]) -> list[Line]:
    """Return the heading and a line for each worker.

    A worker that did not answer has n/a in most columns. Columns are as wide as their contents: a socket's path
    that was cut off would be of no use.
    """
    rows = [_cells(worker, answer) for worker, answer in answers]
    widths = [max(map(cells, column)) for column in zip(_TITLES, *rows, strict=True)]
    lines = []
    for row in (_TITLES, *rows):
        line = Line()
        for title, text, width in zip(_TITLES, row, widths, strict=True):
            style = HEADING if row is _TITLES else DIM if title == "socket" else PLAIN
            line.add("  " if line.segments else "").add(fitted(text, width, right=title in _RIGHT), style)
        lines.append(line)
    return lines


def _cells(worker: WorkerSocket, answer: Snapshot | BoxReading | Exception) -> tuple[str, ...]:
    path = visible(str(worker.path))
    if isinstance(answer, Exception):
        pid = quantity.UNKNOWN if worker.pid is None else str(worker.pid)
        return (visible(worker.name), pid, *[quantity.UNKNOWN] * 8, path)
    info = (answer.snapshot if isinstance(answer, BoxReading) else answer).worker
    return (
        visible(info.name),
        str(info.pid),
        visible(info.loop) or quantity.UNKNOWN,
        visible(info.python) or quantity.UNKNOWN,
        info.meter or quantity.UNKNOWN,
        info.isolation,
        f"{info.sessions} / {info.max_sessions}" if info.max_sessions else str(info.sessions),
        quantity.size(info.rss_mb),
        _limits(info),
        quantity.uptime(info.uptime_s),
        path,
    )


def _limits(info: WorkerInfo) -> str:
    """Return the processors and the memory that the worker may use, if either is limited."""
    memory, cpus = own_limit(info), info.cgroup.cpu_limit if info.cgroup is not None else None
    limits = [f"{cpus:.4g} {'core' if cpus == 1.0 else 'cores'}"] if cpus is not None else []
    limits += [quantity.size(memory.limit_mb)] if memory is not None else []
    return ", ".join(limits) or "-"
