"""The lines about what keeps tasks waiting beside locks: pools of threads, busy loops, crowds of threads or tasks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from openrtc_top._model.waits import calls_by_function, has_queue, many_alive, odd_loops
from openrtc_top._view import quantity
from openrtc_top._view.line import Line, clip, visible, with_label
from openrtc_top._view.place import place
from openrtc_top._view.style import BAD, BOLD, DIM, PLAIN

if TYPE_CHECKING:
    from openrtc_introspect_core.wire import (
        CallbackGroup,
        Creation,
        ExecutorInfo,
        Location,
        LoopActivity,
        ThreadCallGroup,
        Waits,
    )

_WIDE = 10_000
_INDENT = 1
_RARE = 20
"""A callback that was found so many times less often than another is not shown, without --all."""
_FEW = 3
"""The calls and callbacks that are shown of a pool or loop, without --all."""


def activity_lines(waits: Waits, width: int | None, *, whole: bool = False) -> list[Line]:
    """Return a line for each pool that is at work, each loop that does something odd, each line that started many."""
    lines: list[Line] = []
    for executor in waits.executors:
        if executor.busy or executor.queued or whole:
            lines += _executor(executor, width, whole=whole)
    for loop in waits.loops if whole else odd_loops(waits):
        lines += _loop(loop, waits.taken_at, width, whole=whole)
    for creation in waits.creations if whole else many_alive(waits):
        lines += with_label("started", _creation(creation), width, _INDENT)
    return lines


def full_executor_lines(waits: Waits, width: int | None) -> list[Line]:
    """Return the lines of the pools whose threads are all busy while calls queue."""
    full = [executor for executor in waits.executors if is_full(executor)]
    return [line for executor in full for line in _executor(executor, width, whole=False)]


def is_full(executor: ExecutorInfo) -> bool:
    """Return whether calls queue because all of its threads are busy."""
    return executor.queued > 0 and executor.max_threads is not None and executor.busy >= executor.max_threads


def _executor(executor: ExecutorInfo, width: int | None, *, whole: bool) -> list[Line]:
    limit = f" of {executor.max_threads}" if executor.max_threads is not None else ""
    threads = "thread" if (executor.max_threads or executor.busy) == 1 else "threads"
    where = f" of loop {visible(executor.loop)}" if executor.loop else ""
    text = f"{_name(executor.name)}{where}: {executor.busy}{limit} {threads} busy"
    if executor.queued:
        text += f", {_calls(executor.queued)} queued{_longest(executor.longest_queued_s)}"
    lines = with_label("executor", text, width, _INDENT, BAD if is_full(executor) else PLAIN)
    if not (has_queue(executor) or whole):
        return lines
    if whole:
        for call in executor.calls:
            lines += with_label("", _call(call, _owner(call.session_id)), width, _INDENT)
        return lines
    functions = calls_by_function(executor)
    for calls in functions[:_FEW]:
        owner = _owner(calls.calls.session_id) if calls.sessions < 2 else f"{calls.sessions} sessions"
        lines += with_label("", _call(calls.calls, owner), width, _INDENT)
    more = len(functions) - _FEW
    if more > 0:
        lines += with_label("", f"and {more} more function{'' if more == 1 else 's'}", width, _INDENT, DIM)
    return lines


def _call(call: ThreadCallGroup, owner: str) -> str:
    parts = []
    if call.running:
        runs = "runs" if call.running == 1 else "run"
        parts.append(f"{call.running} {runs}{_longest(call.longest_running_s)}{_at(call.location)}")
    if call.queued:
        parts.append(f"{call.queued} queued{_longest(call.longest_queued_s)}")
    return f"{_name(call.function)} of {owner}: {'; '.join(parts) or 'none'}"


def _loop(loop: LoopActivity, now: float, width: int | None, *, whole: bool) -> list[Line]:
    rates = [
        f"{quantity.count(round(rate))} {noun}"
        for rate, noun in ((loop.iterations_per_s, "iterations"), (loop.steps_per_s, "steps"))
        if rate is not None
    ]
    texts = [f"{' and '.join(rates)} a second"] if rates else []
    if loop.ready:
        callbacks = "1 callback" if loop.ready == 1 else f"{quantity.count(loop.ready)} callbacks"
        texts.append(f"{callbacks} in its queue")
    if loop.asleep_since is not None:
        texts.append(f"asleep for {quantity.lasted(now - loop.asleep_since)}")
    lines = with_label("loop", f"{_name(loop.name)}: {', '.join(texts) or 'nothing is known'}", width, _INDENT)
    most = max([callback.count for callback in loop.callbacks], default=0)
    shown = [callback for callback in loop.callbacks if callback.count >= most / _RARE or callback.source == "lost"]
    for callback in loop.callbacks if whole else shown[:_FEW]:
        lines += with_label("", _callback(callback), width, _INDENT, BOLD)
    return lines


def _callback(callback: CallbackGroup) -> str:
    text = f"{visible(callback.source)} {_name(callback.function)}{_at(callback.location)}"
    if callback.fd is not None:
        text += f", fd {callback.fd}"
    if callback.peer is not None:
        text += f", {_name(callback.peer)}"
    if callback.session_id is not None:
        text += f", of {_owner(callback.session_id)}"
    if callback.thread is not None:
        text += f", added by thread {_name(callback.thread)}"
    match callback.source:
        case "reader" | "writer":
            return f"{text}: found ready {_times(callback.count)}"
        case "lost":
            return f"{text}: {callback.count} in the queue while the loop sleeps, until something else wakes it"
        case _:
            return f"{text}: {callback.count} in the queue"


def _creation(creation: Creation) -> str:
    kind = visible(creation.kind) + ("" if creation.alive == 1 else "s")
    total = f", of {creation.started} started there" if creation.started is not None else ""
    by = f", most by {_owner(creation.session_id)}" if creation.session_id is not None else ""
    run = "runs" if creation.alive == 1 else "run"
    at = _at(creation.location) or " at a line that is not known"
    return f"{creation.alive} {kind} that {run} {_name(creation.function)}, started{at}{by}{total}"


def _owner(session_id: str | None) -> str:
    return "no session" if session_id is None else clip(visible(session_id), 40)


def _name(text: str) -> str:
    return clip(visible(text), 60) or "-"


def _at(location: Location | None) -> str:
    return "" if location is None else f" at {place(location, _WIDE)}"


def _calls(number: int) -> str:
    return "1 call" if number == 1 else f"{number} calls"


def _times(number: int) -> str:
    return "once" if number == 1 else f"{number} times"


def _longest(seconds: float | None) -> str:
    return "" if seconds is None else f", the longest for {quantity.span(seconds * 1000)}"
