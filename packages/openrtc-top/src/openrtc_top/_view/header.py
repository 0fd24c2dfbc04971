"""The lines above the table: the worker, its loop and memory, what is wrong.

One worker has four lines if there is room, else two; several workers have one line each.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from openrtc_introspect_core._diagnosis.memory_limits import POOL, own_limit
from openrtc_top._model.groups import host_of, stands_for_host
from openrtc_top._model.history import HISTORY_S
from openrtc_top._model.state import State
from openrtc_top._model.trouble import worst_first
from openrtc_top._model.workers import NO_WORKER_THERE, Worker, busy_pct
from openrtc_top._view import quantity
from openrtc_top._view.alert import alert
from openrtc_top._view.line import MAX_NAME_WIDTH, Line, cells, clip, fit, fitted, spread, visible
from openrtc_top._view.style import ACCENT, BAD, BOLD, DIM, GOOD, PAUSED, PLAIN, WARN, load
from openrtc_top._view.unanswered import as_of, dead_lines

if TYPE_CHECKING:
    from openrtc_introspect_core.wire import WorkerInfo

WIDE = 100
TALL = 24
NARROW = 50
NARROW_TITLE = 70
_OUTLIVED_PCT = 5.0
"""Tasks of a session that has ended are worth a line if they take so much of the loop."""
_REASON = 60
"""The cells for the reason why a worker is gone; more, if there is room."""
_GONE_FOR = 24
"""The cells for the words before the reason."""
MAX_DEAD = 3
"""The lines about workers that died, if there is room."""


def header(state: State, width: int, *, tall: bool) -> list[Line]:
    """Return all lines above the table's heading."""
    mark = badge(state)
    workers = state.scope
    if not workers:
        lines = [Line(" openrtc top", BOLD).cropped(width)]
    elif len(workers) == 1:
        full = tall and width >= WIDE
        lines = _full(state, workers[0], width, mark) if full else _short(state, workers[0], width, mark)
    else:
        lines = _several(state, width, mark, limit=8 if tall else 3)
    return lines + alerts(state, width, tall=tall)


def alerts(state: State, width: int, *, tall: bool) -> list[Line]:
    """Return what the reader must know, and what is wrong now."""
    notes = [Line(clip(f" {visible(state.notice)}", width), WARN)] if state.notice else []
    if state.listing is not None:
        notes.append(Line(clip(f" hosts: {visible(state.listing)}", width), WARN))
    notes += [line for worker in state.workers for line in _notes(state, worker, width)]
    dead = dead_lines(state.dead, MAX_DEAD if tall else 1, max(0, width - 1))
    notes += [line for worker in state.workers for line in _outlived(state, worker, width)]
    return [*notes[: 3 if tall else 1], *alert(state, width), *(Line(" ").join(line) for line in dead)]


def badge(state: State) -> Line:
    """Return a mark that says since when the view is paused; empty if it is not."""
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
    throttled = _throttled(info, 3)  # there is no room for the trend of memory beside it
    parts = [
        (0, Line(" loop ").join(_loop_bar(info, 10))),
        (1, _lag(info, short=True)),
        (2, Line("mem ").join(_memory(info, 0, short=True, trend=not throttled))),
        *throttled,
        (4, Line(f"host {quantity.percent(info.host.cpu_pct)}")),
        (5, Line(_history(worker, 20), ACCENT)),
    ]
    return [_title(state, worker, width, mark), fit(parts, width)]


def _title(state: State, worker: Worker, width: int, mark: Line) -> Line:
    return mark.join(_worker_title(state, worker, max(0, width - mark.width))).cropped(width)


def _worker_title(state: State, worker: Worker, width: int) -> Line:
    name = clip(visible(worker.name), MAX_NAME_WIDTH)
    parts = [(0, Line(" openrtc top", BOLD)), (1, Line("· ", DIM).add(name, BOLD))]
    if worker.pid is not None:
        parts.append((4, Line("· ", DIM).add(f"pid {worker.pid}")))
    if worker.snapshot is None:
        return fit(parts, width, gap=1)
    info = worker.snapshot.worker
    parts += [(1, age)] if (age := _age(state, worker, "· ")) is not None else []
    parts.append((2, Line("· ", DIM).add(f"up {quantity.uptime(info.uptime_s)}")))
    if worker.gone is None:
        python = f"Python {visible(info.python)}" if info.python else ""
        runs = ", ".join(filter(None, (visible(info.loop), python)))
        parts += [(5, Line("· ", DIM).add(runs))] if runs else []
        if info.isolation == "coroutine":
            parts.append((6, Line("· ", DIM).add(f"meter {info.meter or quantity.UNKNOWN}")))
    else:
        parts.append((3, Line("· ", DIM).join(_gone(state, worker))))
    right = _sessions(info, short=width < 80).add(" ") if width >= NARROW else Line()
    return spread(fit(parts, max(0, width - right.width - 2), gap=1), right, width)


def _gone(state: State, worker: Worker, longest: int = _REASON) -> Line:
    """Return since when it is gone, and why in so many cells."""
    since = 0.0 if worker.gone_at is None else state.now - worker.gone_at
    return Line(f"GONE for {quantity.uptime(since)}: {clip(visible(worker.gone or ''), longest)}", BAD)


def _age(state: State, worker: Worker, before: str = "") -> Line | None:
    """Return how old what is shown of a worker is. None: it is not old, or the worker is gone and says so."""
    age_s = None if worker.gone is not None else state.age_s(worker)
    return None if age_s is None else Line(before, DIM).add(as_of(age_s), DIM)


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
    shown = [(rank, Line(f"{name} ", DIM).add(quantity.percent(value))) for rank, name, value in parts]
    if info.iterations_per_s is not None:
        shown.append((7, Line("iterations ", DIM).add(f"{quantity.count(round(info.iterations_per_s))}/s")))
    return shown


def _memory(info: WorkerInfo, bar: int, *, short: bool = False, trend: bool = True) -> Line:
    limit = own_limit(info)
    line = Line()
    if limit is not None:
        share = limit.used_pct / 100
        tone = load(100 * share) if share >= 0.8 else GOOD
        line.add(f"{quantity.bar(share, bar, '·')} " if bar else "", tone)
        line.add(f"{quantity.size(limit.used_mb)} / {quantity.size(limit.limit_mb)}", BOLD)
        line.add("" if short else f" {limit.name}")
        if limit.name != POOL:
            line.add("" if short else f"  rss {quantity.size(info.rss_mb)}")
    else:
        line.add(quantity.size(info.rss_mb), BOLD).add("" if short else " rss, no limit")
    if not trend:
        return line
    if info.rss_trend_mb_per_min is not None:
        line.add(f"  {quantity.trend(info.rss_trend_mb_per_min)}")
    elif not short:
        line.add(f"  trend {quantity.UNKNOWN}", DIM)
    return line


def _machine(info: WorkerInfo) -> list[tuple[int, Line]]:
    host = info.host
    about = "" if info.introspection_pct is None else "~"
    timed = [(6, Line(f"times 1 step in {info.timed_one_in}"))] if info.timed_one_in > 1 else []  # a note says so too
    kills = info.cgroup.oom_kills if info.cgroup is not None else None
    killed = [(3, Line(f"oom kills {kills}", WARN))] if kills else []
    cores = "core" if host.cores == 1 else "cores"
    return [
        *_cpu_limit(info),
        (2, Line("host cpu ", DIM).add(f"{quantity.percent(host.cpu_pct)} of {host.cores} {cores}")),
        (4, Line("load ", DIM).add(quantity.number(host.load_1m))),
        (
            5,
            Line("process ", DIM).add(f"{quantity.percent(host.process_cpu_pct)} cpu, {host.threads} threads"),
        ),
        (3, Line("introspection ", DIM).add(about + quantity.percent(info.introspection_pct, 1))),
        *timed,
        *killed,
    ]


def _cpu_limit(info: WorkerInfo) -> list[tuple[int, Line]]:
    """Return the CPU limit of the worker's control group, if it has one, and how often it is used up."""
    group = info.cgroup
    if group is None or group.cpu_limit is None:
        return []
    return [(1, Line("cpu limit ", DIM).add(f"{group.cpu_limit:.4g}")), *_throttled(info, 1)]


def _throttled(info: WorkerInfo, rank: int) -> list[tuple[int, Line]]:
    group = info.cgroup
    if group is None or (group.cpu_throttled_pct or 0.0) < 0.5:
        return []
    return [(rank, Line(f"throttled {quantity.percent(group.cpu_throttled_pct)}", WARN))]


def _history(worker: Worker, width: int) -> str:
    snapshot = worker.snapshot
    return quantity.sparkline(worker.history, int(snapshot.taken_at), width) if snapshot else ""


# --- several workers -----------------------------------------------------------------------------


def _several(state: State, width: int, mark: Line, limit: int) -> list[Line]:
    workers = state.scope
    infos = [worker.snapshot.worker for worker in workers if worker.snapshot and worker.gone is None]
    sessions = sum(info.sessions for info in infos)
    title = Line(" openrtc top", BOLD).add(" · ", DIM)
    if state.grouping == "host" and state.group:
        title.add(clip(visible(state.group), MAX_NAME_WIDTH), BOLD).add(" · ", DIM)
    lost = [worker for worker in workers if stands_for_host(worker)]
    title.add(f"{len(workers) - len(lost)} workers")
    hosts = len({host_of(worker) for worker in workers} - {worker.name for worker in lost})
    title.add(f" on {hosts} hosts" if hosts > 1 and width > NARROW_TITLE else "")
    gone = sum(worker.gone is not None and worker not in lost for worker in workers)
    title.add(f", {gone} gone" if gone else "", BAD)
    empty = sum((worker.gone or "").startswith(NO_WORKER_THERE) for worker in lost)
    unreached = sum(worker.gone is not None for worker in lost) - empty
    connecting = len(lost) - unreached - empty
    title.add(f", {unreached} unreached" if unreached else "", BAD)
    title.add(f", {empty} {'host' if empty == 1 else 'hosts'} without one" if empty else "", WARN)
    title.add(f", {connecting} connecting" if connecting else "", DIM)
    errored = sum(info.errored for info in infos)
    right = Line(f"{sessions} session{'' if sessions == 1 else 's'}").add(" · ", DIM)
    right.add(f"{errored} errored ", BAD if errored else PLAIN)
    lines = [mark.join(spread(title, right, max(0, width - mark.width))).cropped(width)]
    shown = workers if len(workers) <= limit else worst_first(workers)[: limit - 1]
    longest = min(MAX_NAME_WIDTH, max(cells(visible(worker.name)) for worker in shown))
    lines += [_one_of(state, worker, width, longest) for worker in shown]
    if len(shown) < len(workers):
        more = len(workers) - len(shown)
        lines.append(Line(f" … and {more} more, these are the worst: w lists them", DIM).cropped(width))
    return lines


def _one_of(state: State, worker: Worker, width: int, longest: int) -> Line:
    name = Line(" ").add(fitted(visible(worker.name), longest), BOLD)
    pid = Line(f"pid {worker.pid}" if worker.pid is not None else "")
    if worker.gone is not None:
        room = width - name.width - pid.width - _GONE_FOR
        return fit([(0, name), (1, pid), (0, _gone(state, worker, max(_REASON, room)))], width)
    if worker.snapshot is None:
        return fit([(0, name), (1, pid), (0, Line("connecting …", DIM))], width)
    info = worker.snapshot.worker
    parts = [
        (0, name),
        *([(1, age)] if (age := _age(state, worker)) is not None else []),
        (5, pid),
        (0, Line("loop ").join(_loop_bar(info, 10))),
        (1, _lag(info, short=True)),
        (3, Line("mem ").join(_memory(info, 0, short=True))),
        (2, _sessions(info)),
        (6, Line(_history(worker, 20), ACCENT)),
    ]
    return fit(parts, width)


# --- what the reader must know ------------------------------------------------------------------


def _outlived(state: State, worker: Worker, width: int) -> list[Line]:
    """Return the session that has ended and whose tasks still take the most of the loop, if that is worth a line."""
    if worker.snapshot is None or worker.gone is not None or not worker.snapshot.worker.outlived:
        return []
    first, *others = worker.snapshot.worker.outlived
    if (first.cpu_pct or 0.0) < _OUTLIVED_PCT:
        return []
    name = f"{clip(visible(worker.name), MAX_NAME_WIDTH)}: " if len(state.workers) > 1 else ""
    ago = quantity.ago(worker.snapshot.taken_at - first.ended_at)
    tasks = "a task of it goes on" if first.tasks == 1 else f"{first.tasks} tasks of it go on"
    take = "and takes" if first.tasks == 1 else "and take"
    runs = (
        f": {clip(visible(first.task_name or first.coroutine or ''), 40)}" if first.task_name or first.coroutine else ""
    )
    more = f", and {len(others)} more sessions" if others else ""
    text = f" note: {name}{clip(visible(first.session_id), 40)} ended {ago} ago, {tasks}"
    return [Line(clip(f"{text} {take} {quantity.percent(first.cpu_pct)} of the loop{runs}{more}", width), WARN)]


def _notes(state: State, worker: Worker, width: int) -> list[Line]:
    name = f"{clip(visible(worker.name), MAX_NAME_WIDTH)}: " if len(state.workers) > 1 else ""
    notes = worker.snapshot.worker.notes if worker.snapshot else []
    return [Line(clip(f" note: {name}{visible(note)}", width), WARN) for note in notes]
