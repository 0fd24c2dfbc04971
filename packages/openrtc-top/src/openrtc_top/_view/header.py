"""The lines above the table: the worker, its loop, its memory, and what is wrong now.

One worker has four lines where there is room and two where there is not; of several each has one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from openrtc_top._state import HISTORY_S, State, Worker, busy_pct
from openrtc_top._view import quantity
from openrtc_top._view.alert import alert
from openrtc_top._view.line import NAME_MOST, Line, cells, clip, fit, fitted, spread, visible
from openrtc_top._view.style import ACCENT, BAD, BOLD, DIM, GOOD, PAUSED, PLAIN, WARN, load

if TYPE_CHECKING:
    from openrtc_introspect_core.wire import WorkerInfo

WIDE = 100
TALL = 24
NARROW = 50
SILENT_S = 5.0
"""After this long without a snapshot, the view says that what it shows is old."""


def header(state: State, width: int, *, tall: bool) -> list[Line]:
    """All lines above the table's heading."""
    mark = badge(state)
    workers = state.scope
    if not workers:
        lines = [Line(" openrtc top", BOLD).cropped(width)]
    elif len(workers) == 1:
        full = tall and width >= WIDE
        lines = _full(state, workers[0], width, mark) if full else _short(state, workers[0], width, mark)
    else:
        lines = _several(state, width, mark, most=8 if tall else 3)
    return lines + alerts(state, width, tall=tall)


def alerts(state: State, width: int, *, tall: bool) -> list[Line]:
    """What the reader must know, and what is wrong now."""
    notes = [Line(clip(f" {visible(state.notice)}", width), WARN)] if state.notice else []
    notes += [line for worker in state.workers for line in _notes(state, worker, width)]
    return notes[: 3 if tall else 1] + alert(state, width)


def badge(state: State) -> Line:
    """Tells that the view stands still, and since when."""
    if not state.paused:
        return Line()
    return Line(" ").add(f" PAUSED {quantity.uptime(state.now - state.paused_at)} ago ", PAUSED)


# --- one worker ----------------------------------------------------------------------------------


def _full(state: State, worker: Worker, width: int, mark: Line) -> list[Line]:
    if worker.snapshot is None:
        return _short(state, worker, width, mark)
    info = worker.snapshot.worker
    loop = Line(" loop ").join(_loop_bar(info, 20))
    memory = Line(" mem  ").join(_memory(info, 20))
    lines = [
        _title(state, worker, width, mark),
        fit([(0, loop), (1, _lag(info)), *_parts(info)], width),
        fit([(0, memory), *_machine(info)], width, gap=3),
    ]
    if len(worker.history) > 1:  # a single snapshot has none
        lines.append(Line(f" {HISTORY_S} s ").add(_history(worker, HISTORY_S), ACCENT).cropped(width))
    return lines


def _short(state: State, worker: Worker, width: int, mark: Line) -> list[Line]:
    if worker.snapshot is None:
        how = Line("connecting …", DIM) if worker.gone is None else _gone(state, worker)
        return [_title(state, worker, width, mark), Line(" ").join(how).cropped(width)]
    info = worker.snapshot.worker
    parts = [
        (0, Line(" loop ").join(_loop_bar(info, 10))),
        (1, _lag(info, short=True)),
        (2, Line("mem ").join(_memory(info, 0, short=True))),
        (3, Line(f"host {quantity.percent(info.host.cpu_pct)}")),
        (4, Line(_history(worker, 20), ACCENT)),
    ]
    return [_title(state, worker, width, mark), fit(parts, width)]


def _title(state: State, worker: Worker, width: int, mark: Line) -> Line:
    return mark.join(_worker_title(state, worker, max(0, width - mark.width))).cropped(width)


def _worker_title(state: State, worker: Worker, width: int) -> Line:
    name = clip(visible(worker.name), NAME_MOST)
    parts = [(0, Line(" openrtc top", BOLD)), (1, Line("· ", DIM).add(name, BOLD))]
    if worker.pid is not None:
        parts.append((4, Line("· ", DIM).add(f"pid {worker.pid}")))
    if worker.snapshot is None:
        return fit(parts, width, gap=1)
    info = worker.snapshot.worker
    parts.append((2, Line("· ", DIM).add(f"up {quantity.uptime(info.uptime_s)}")))
    if worker.gone is None:
        python = f"Python {visible(info.python)}" if info.python else ""
        runs = ", ".join(filter(None, (visible(info.loop), python)))
        parts += [(5, Line("· ", DIM).add(runs))] if runs else []
    else:
        parts.append((3, Line("· ", DIM).join(_gone(state, worker))))
    right = _sessions(info, short=width < 80).add(" ") if width >= NARROW else Line()
    return spread(fit(parts, max(0, width - right.width - 2), gap=1), right, width)


def _gone(state: State, worker: Worker) -> Line:
    since = 0.0 if worker.gone_at is None else state.now - worker.gone_at
    return Line(f"GONE for {quantity.uptime(since)}: {clip(visible(worker.gone or ''), 60)}", BAD)


def _sessions(info: WorkerInfo, *, short: bool = False) -> Line:
    limit = f" / {info.max_sessions}" if info.max_sessions else ""
    noun = "session" if info.sessions == 1 and not limit else "sessions"
    line = Line("DRAINING · ", WARN) if info.draining else Line()
    line.add(f"{info.sessions}{limit} {noun}")
    if short and not info.errored:
        return line
    return line.add(" · ", DIM).add(f"{info.errored} errored", BAD if info.errored else PLAIN)


def _loop_bar(info: WorkerInfo, width: int) -> Line:
    busy = busy_pct(info)
    line = Line(quantity.bar((busy or 0.0) / 100, width, "·"), DIM if busy is None else load(busy))
    least = "~" if busy is not None and info.loop_time.idle_pct is None else ""
    return line.add(f" {least + quantity.percent(busy):>6}", BOLD)


def _lag(info: WorkerInfo, *, short: bool = False) -> Line:
    about = "~" if info.lag_method == "heartbeat" and info.lag_p99_ms is not None else ""
    line = Line("lag p99 ").add(about + quantity.lag(info.lag_p99_ms), BOLD)
    return line if short else line.add(f" max {about}{quantity.lag(info.lag_max_ms)}")


def _parts(info: WorkerInfo) -> list[tuple[int, Line]]:
    time = info.loop_time
    parts = (
        (2, "sessions", time.sessions_pct),
        (4, "untagged", time.untagged_pct),
        (6, "other", time.other_pct),
        (5, "gc", time.gc_pct),
        (3, "idle", time.idle_pct),
    )
    return [(rank, Line(f"{name} ", DIM).add(quantity.percent(value))) for rank, name, value in parts]


def _memory(info: WorkerInfo, bar: int, *, short: bool = False) -> Line:
    limit = info.memory_limit_mb
    line = Line()
    share = info.rss_mb / limit if limit else 0.0
    tone = load(100 * share) if share >= 0.8 else GOOD
    if bar and limit:
        line.add(quantity.bar(share, bar, "·"), tone).add(" ")
    if limit:
        line.add(f"{quantity.size(info.rss_mb)} / {quantity.size(limit)}", BOLD)
        line.add("" if short else " limit")
    else:
        line.add(quantity.size(info.rss_mb), BOLD).add("" if short else " rss, no limit")
    trend = info.rss_trend_mb_per_min
    if trend is not None:
        line.add(f"  {trend:+.{0 if abs(trend) >= 9.95 else 1}f} MB/min")
    elif not short:
        line.add(f"  trend {quantity.UNKNOWN}", DIM)
    return line


def _machine(info: WorkerInfo) -> list[tuple[int, Line]]:
    host = info.host
    about = "" if info.introspection_pct is None else "~"
    timed = [(5, Line(f"times 1 step in {info.timed_one_in}"))] if info.timed_one_in > 1 else []  # a note says it, too
    cores = "core" if host.cores == 1 else "cores"
    return [
        (1, Line("host cpu ", DIM).add(f"{quantity.percent(host.cpu_pct)} of {host.cores} {cores}")),
        (3, Line("load ", DIM).add(quantity.number(host.load_1m))),
        (
            4,
            Line("process ", DIM).add(f"{quantity.percent(host.process_cpu_pct)} cpu, {host.threads} threads"),
        ),
        (2, Line("introspection ", DIM).add(about + quantity.percent(info.introspection_pct, 1))),
        *timed,
    ]


def _history(worker: Worker, width: int) -> str:
    snapshot = worker.snapshot
    return quantity.sparkline(worker.history, int(snapshot.taken_at), width) if snapshot else ""


# --- several workers -----------------------------------------------------------------------------


def _several(state: State, width: int, mark: Line, most: int) -> list[Line]:
    infos = [worker.snapshot.worker for worker in state.workers if worker.snapshot and worker.gone is None]
    sessions = sum(info.sessions for info in infos)
    title = Line(" openrtc top", BOLD).add(" · ", DIM).add(f"{len(state.workers)} workers")
    gone = sum(worker.gone is not None for worker in state.workers)
    title.add(f", {gone} gone" if gone else "", BAD)
    errored = sum(info.errored for info in infos)
    right = Line(f"{sessions} sessions").add(" · ", DIM)
    right.add(f"{errored} errored ", BAD if errored else PLAIN)
    lines = [mark.join(spread(title, right, max(0, width - mark.width))).cropped(width)]
    shown = state.workers if len(state.workers) <= most else state.workers[: most - 1]
    longest = min(NAME_MOST, max(cells(visible(worker.name)) for worker in shown))
    lines += [_one_of(state, worker, width, longest) for worker in shown]
    if len(shown) < len(state.workers):
        lines.append(Line(f" … and {len(state.workers) - len(shown)} more: w lists them", DIM).cropped(width))
    return lines


def _one_of(state: State, worker: Worker, width: int, longest: int) -> Line:
    name = Line(" ").add(fitted(visible(worker.name), longest), BOLD)
    pid = Line(f"pid {worker.pid}" if worker.pid is not None else "")
    if worker.gone is not None:
        return fit([(0, name), (1, pid), (0, _gone(state, worker))], width)
    if worker.snapshot is None:
        return fit([(0, name), (1, pid), (0, Line("connecting …", DIM))], width)
    info = worker.snapshot.worker
    parts = [
        (0, name),
        (5, pid),
        (0, Line("loop ").join(_loop_bar(info, 10))),
        (1, _lag(info, short=True)),
        (3, Line("mem ").join(_memory(info, 0, short=True))),
        (2, _sessions(info)),
        (6, Line(_history(worker, 20), ACCENT)),
    ]
    return fit(parts, width)


# --- what the reader must know ------------------------------------------------------------------


def _notes(state: State, worker: Worker, width: int) -> list[Line]:
    name = f"{clip(visible(worker.name), NAME_MOST)}: " if len(state.workers) > 1 else ""
    notes = []
    silent = worker.gone is None and not state.paused
    if silent and worker.heard_at is not None and state.now - worker.heard_at > SILENT_S:
        notes.append(f"no answer for {state.now - worker.heard_at:.0f} s, this is its last snapshot")
    if worker.snapshot:
        notes += worker.snapshot.worker.notes
    return [Line(clip(f" note: {name}{visible(note)}", width), WARN) for note in notes]
