"""The rules for a server's replies: tasks, stacks, waits, snapshots."""

from __future__ import annotations

import itertools
from typing import Any

from .dialer import NO_SESSION, Dialer, Line, brief, is_live
from .rules import Broken, Rules, Unchecked, require

rule: Rules[Dialer] = Rules()

_ROUNDING_S = 0.001
_TOTALS = ("started", "errored", "blocks")
_ROW_TOTALS = ("cpu_s", "steps", "blocks", "worst_block_ms", "delayed_s", "worst_delay_ms")
_TRIES = 10
_MAX_TASKS = 500
_MAX_FRAMES = 64
_MAX_GROUPS = 200
_MAX_NAMED = 20


# --- tasks, stacks and waits --------------------------------------------------------------------------


@rule("not-found")
def _(dial: Dialer) -> None:
    with dial.greeted() as line:
        _requires(line, "tasks")
        for number, session_id in enumerate((NO_SESSION, "", "é\n\x00", 1000 * "x")):
            reply = line.ask("tasks", "error", number, session_id=session_id)
            require(reply["code"] == "not-found", f"tasks of no live session: expected not-found, got {brief(reply)}")
        line.ask("blocks", "blocks", "after")


@rule("tasks")
def _(dial: Dialer) -> None:
    with dial.greeted() as line:
        _requires(line, "tasks")
        reply = None
        for number in range(_TRIES):  # a session may end between the two requests
            if (session_id := dial.live_session()) is None:
                raise Unchecked("no session was live")
            line.say({"type": "tasks", "id": number, "session_id": session_id})
            reply = line.hear()
            if reply is None or reply.get("code") != "not-found":
                break
    if reply is None or (reply.get("type"), reply.get("id"), reply.get("session_id")) != ("tasks", number, session_id):
        raise Broken(f"expected the tasks of {session_id!r}, got {reply and brief(reply)}")
    tasks = reply.get("tasks", [])
    ids = [task["id"] for task in tasks]
    require(len(set(ids)) == len(ids) and all(each >= 1 for each in ids), f"ids of tasks are not 1 and up, once: {ids}")
    require(len(tasks) <= _MAX_TASKS, f"{len(tasks)} tasks are listed, {_MAX_TASKS} at the most")
    require(len(tasks) == _MAX_TASKS or not reply.get("truncated"), f"truncated is true at {len(tasks)} tasks")
    for task in tasks:
        unknown = set(task.get("awaited_by", [])) - set(ids)
        require(not unknown, f"task {task['name']!r} is awaited by tasks that the reply does not have: {unknown}")
        depth = len(task.get("awaits", []))
        require(depth <= _MAX_FRAMES, f"task {task['name']!r} has {depth} calls, {_MAX_FRAMES} at the most")


@rule("stacks")
def _(dial: Dialer) -> None:
    with dial.greeted() as line:
        _requires(line, "stacks")
        threads = line.ask("stacks", "stacks").get("threads", [])
    ids = [thread["thread_id"] for thread in threads]
    require(bool(ids), "no thread is listed, not even the one that answers")
    require(len(set(ids)) == len(ids), f"a thread is listed twice: {ids}")
    loops = [thread.get("loop", False) for thread in threads]
    require(loops == sorted(loops, reverse=True), f"a thread without a loop comes before the loop's: {loops}")
    for thread in threads:
        bound = thread.get("session_id") or thread.get("task_name")
        require(thread.get("loop", False) or not bound, f"{bound!r} runs on a thread without a loop: {brief(thread)}")
        depth = len(thread.get("frames", []))
        require(depth <= _MAX_FRAMES, f"thread {thread['name']!r} has {depth} frames, {_MAX_FRAMES} at the most")


@rule("waits")
def _(dial: Dialer) -> None:
    with dial.greeted() as line:
        _requires(line, "waits")
        reply = line.ask("waits", "waits")
    groups = reply.get("groups", [])
    require(len(groups) <= _MAX_GROUPS, f"{len(groups)} groups are listed, {_MAX_GROUPS} at the most")
    sizes = [group.get("sessions", 0) for group in groups]
    require(sizes == sorted(sizes, reverse=True), f"the groups with the most sessions do not come first: {sizes}")
    for group in groups:
        sessions, stuck, tasks = (group.get(name, 0) for name in ("sessions", "stuck", "tasks"))
        require(stuck <= sessions <= tasks, f"expected stuck <= sessions <= tasks, got {brief(group)}")
        for name in ("waiters", "holders"):
            named = group.get(name, [])
            require(len(named) <= _MAX_NAMED, f"a group has {len(named)} {name}, {_MAX_NAMED} at the most")
        since = [waiter["since"] for waiter in group.get("waiters", []) if waiter.get("since") is not None]
        require(since == sorted(since), f"those that have waited longest do not come first: {since}")


def _requires(line: Line, kind: str) -> None:
    if kind not in line.hello.get("capabilities", []):
        raise Unchecked(f"it does not list {kind}")


# --- snapshots ----------------------------------------------------------------------------------------


@rule("totals")
def _(dial: Dialer) -> None:
    with dial.greeted() as one, dial.greeted() as other:
        readings = [client.ask("snapshot", "snapshot", number) for number in range(4) for client in (one, other)]
    readings.sort(key=lambda reading: reading["seq"])
    for before, after in itertools.pairwise(readings):
        where = f"between seq {before['seq']} and {after['seq']}"
        require(after["taken_at"] >= before["taken_at"], f"taken_at goes back {where}")
        for name in _TOTALS:
            _rises(f"worker.{name} {where}", before["worker"].get(name), after["worker"].get(name))
        rows = {(row["session_id"], row.get("started_at")): row for row in before["sessions"]}
        for row in after["sessions"]:
            earlier = rows.get((row["session_id"], row.get("started_at")), {})
            for name in _ROW_TOTALS:
                _rises(f"{name} of session {row['session_id']!r} {where}", earlier.get(name), row.get(name))


def _rises(what: str, before: Any, after: Any) -> None:
    if before is not None and after is not None:
        require(after >= before, f"{what} falls from {before} to {after}: reading consumes it")


@rule("one-moment")
def _(dial: Dialer) -> None:
    taken = dial.snapshot()
    now, worker = taken["taken_at"], taken["worker"]
    _spans("worker.uptime_s", worker.get("uptime_s"), worker.get("started_at"), now)
    for row in filter(is_live, taken["sessions"]):
        _spans(f"duration_s of {row['session_id']!r}", row.get("duration_s"), row.get("started_at"), now)


def _spans(what: str, seconds: Any, start: Any, now: float) -> None:
    require(abs(now - start - seconds) <= _ROUNDING_S, f"{what} is {seconds}, but taken_at − started_at {now - start}")


@rule("in-progress")
def _(dial: Dialer) -> None:
    taken = dial.snapshot()
    blocks = taken["blocks_in_progress"]
    if not blocks:
        raise Unchecked("no block was in progress")
    for block in blocks:
        require(block.get("in_progress") is True, f"in_progress is not true: {brief(block)}")
        require(block.get("seq") == 0, f"a block in progress has a seq already: {brief(block)}")
        since = block.get("running_since")
        if since is None:
            raise Broken(f"running_since is null: {brief(block)}")
        _spans("duration_ms / 1000", block["duration_ms"] / 1000.0, since, taken["taken_at"])
