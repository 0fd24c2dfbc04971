"""The page of the key w: a line for each worker, and whether it can be reached."""

from __future__ import annotations

from dataclasses import replace

from rich.style import Style

from openrtc_introspect_core._diagnosis.memory_limits import own_limit
from openrtc_top._model.groups import host_of, stands_for_host
from openrtc_top._model.state import State
from openrtc_top._model.workers import Worker, busy_pct
from openrtc_top._view import quantity
from openrtc_top._view.body import Body, filled
from openrtc_top._view.grid import Title, grid, plain
from openrtc_top._view.line import Line, visible
from openrtc_top._view.style import BAD, BOLD, DIM, GOOD, PLAIN, SELECTED, WARN, load
from openrtc_top._view.unanswered import as_of

_STATE = 60
"""The cells of the last column at the most; more, if there is room."""
_BEFORE_STATE = 110
_TITLES = (
    Title("worker", 0, max_width=32),
    Title("pid", 4, right=True),
    Title("host", 5),
    Title("python", 8),
    Title("loop", 9),
    Title("meter", 10),
    Title("sessions", 2, right=True),
    Title("busy", 1, right=True),
    Title("lag p99", 3, right=True),
    Title("mem", 5, right=True),
    Title("trend", 7, right=True),
    Title("blocks", 6, right=True),
    Title("state", 0, max_width=_STATE),
)
_Cells = list[tuple[str, Style]]


def worker_page(state: State, width: int, room: int) -> Body:
    """Return the list in so many lines, heading included."""
    page_rows = max(1, room - 1)
    index = state.fleet.index([worker.key for worker in state.workers])
    top = state.fleet.window(index, len(state.workers), page_rows)
    hosts = any(worker.host or stands_for_host(worker) for worker in state.workers)
    shown = [title for title in _TITLES if hosts or title.text != "host"]
    shown[-1] = replace(shown[-1], max_width=max(_STATE, width - _BEFORE_STATE))
    rows = [_cells(state, worker, hosts) for worker in state.workers]
    heading, lines = grid(shown, rows, width)
    lines = lines[top : top + page_rows]
    if index is not None:
        line = lines[index - top]
        line.segments[0] = Line("▸").segments[0]
        lines[index - top] = line.filled(width, SELECTED)
    return Body([heading, *filled(lines, page_rows)], top, page_rows, len(state.workers))


def _cells(state: State, worker: Worker, hosts: bool) -> _Cells:
    pid = quantity.UNKNOWN if worker.pid is None else str(worker.pid)
    # The host has a column of its own here.
    name = worker.name.removeprefix(f"{worker.host}:") if worker.host else worker.name
    first = [("-", DIM) if stands_for_host(worker) else (visible(name), BOLD), plain(pid)]
    if hosts:
        first.append(plain(visible(host_of(worker) or "this one")))
    if worker.snapshot is None:
        return [*first, *[(quantity.UNKNOWN, DIM)] * 9, connection(state, worker)]
    info = worker.snapshot.worker
    busy, trend = busy_pct(info), info.rss_trend_mb_per_min
    least = "~" if busy is not None and info.loop_time.idle_pct is None else ""
    about = "~" if info.lag_method == "heartbeat" and info.lag_p99_ms is not None else ""
    limit = own_limit(info)
    memory = (
        f"{quantity.size(limit.used_mb)} / {quantity.size(limit.limit_mb)}" if limit else quantity.size(info.rss_mb)
    )
    cells: _Cells = [
        plain(visible(info.python) or quantity.UNKNOWN),
        plain(visible(info.loop) or quantity.UNKNOWN),
        plain(info.meter or quantity.UNKNOWN),
        plain(f"{info.sessions} / {info.max_sessions}" if info.max_sessions else str(info.sessions)),
        (least + quantity.percent(busy), PLAIN if busy is None else load(busy)),
        plain(about + quantity.lag(info.lag_p99_ms)),
        plain(memory),
        plain(quantity.UNKNOWN if trend is None else quantity.trend(trend)),
        plain(str(info.blocks)),
    ]
    if worker.gone is not None:
        cells = [(text, DIM) for text, _ in cells]
    return [*first, *cells, connection(state, worker)]


def connection(state: State, worker: Worker) -> tuple[str, Style]:
    """Return whether the worker can be read, in words."""
    if worker.gone is None:
        if worker.snapshot is None:
            return "connecting …", DIM
        age_s = state.age_s(worker)
        age = "" if age_s is None else f", {as_of(age_s)}"
        if worker.frozen:
            return f"does not answer{age}", BAD
        return (f"draining{age}", WARN) if worker.snapshot.worker.draining else (f"connected{age}", GOOD)
    since = 0.0 if worker.gone_at is None else state.now - worker.gone_at
    text = f"GONE for {quantity.uptime(since)}"
    if worker.retry_at is not None:
        left = worker.retry_at - state.now
        text += f", next try in {left:.0f} s" if left >= 0.5 else ", trying again"
    return f"{text}: {visible(worker.gone)}", BAD
