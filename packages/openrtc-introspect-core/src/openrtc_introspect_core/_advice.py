"""What to do about each finding: the likely fix, and where the runbooks tell more.

A key is a finding's code; for blocks it is `slow-session/` and the cause.
"""

from __future__ import annotations

from typing import NamedTuple


class Advice(NamedTuple):
    """A fix in one line, and the runbook's name and heading."""

    fix: str
    runbook: str
    section: str


ADVICE: dict[str, Advice] = {
    "blocked-now": Advice(
        "find what it waits for or computes in the stack: `openrtc blocks --stacks`; if it does not end, "
        "restart the worker",
        "loop-blocked",
        "Blocked now",
    ),
    "slow-session/sync-call": Advice(
        "use an async client, or move the call to a thread: `await asyncio.to_thread(...)`",
        "loop-blocked",
        "A synchronous call",
    ),
    "slow-session/cpu": Advice(
        "compute in a process pool, do it once for all sessions, or yield in between: `await asyncio.sleep(0)`",
        "loop-blocked",
        "Python code that computes",
    ),
    "slow-session/native": Advice(
        "move it to a thread if the library lets go of the GIL, else to a process pool; or give it smaller pieces",
        "loop-blocked",
        "C code that computes",
    ),
    "slow-session/import": Advice(
        "import it when the worker starts, before the first session",
        "loop-blocked",
        "An import",
    ),
    "slow-session/callback": Advice(
        "a callback of the loop (call_soon, call_later, a protocol's method) must be as short as a task's step",
        "loop-blocked",
        "A callback",
    ),
    "slow-session/unknown": Advice(
        "look at the line, and at the stacks of several of these blocks: `openrtc blocks --stacks`",
        "loop-blocked",
        "Cause unknown",
    ),
    "bursts": Advice(
        "spread what the sessions do over time: not all timers at the same moment, queues emptied in portions",
        "loop-blocked",
        "Many short steps at once",
    ),
    "gc-pauses": Advice(
        "call `gc.freeze()` once all is loaded, and raise the thresholds of `gc.set_threshold`",
        "loop-blocked",
        "Garbage collections",
    ),
    "gil-contention": Advice(
        "move what other threads compute to a process of its own: a thread shares the GIL with the loop",
        "loop-blocked",
        "Another thread has the GIL",
    ),
    "hot-session": Advice(
        "look at what this session computes; give it a worker of its own, or move the work to a process pool",
        "cpu-hot",
        "One session has most of the loop",
    ),
    "many-small-steps": Advice(
        "wait for what happens (an Event, a Queue, a timer) instead of asking again and again with sleep(0)",
        "cpu-hot",
        "Many small steps",
    ),
    "saturated-loop": Advice(
        "fewer sessions for each worker (`max_sessions`), more workers; what computes belongs into other processes",
        "cpu-hot",
        "The loop is full",
    ),
    "memory-limit": Advice(
        "stop giving it sessions and restart it when they have ended; then find what grows",
        "memory-pressure",
        "Near the limit",
    ),
    "memory-trend": Advice(
        "find what is kept: caches without a bound, lists of what was said, tasks that never end",
        "memory-pressure",
        "Memory grows",
    ),
    "left-behind": Advice(
        "find who keeps it: a list or cache of the worker's, a callback never removed, a task never awaited",
        "memory-pressure",
        "An ended session holds on",
    ),
    "tasks-grow": Advice(
        "end what the session begins: a TaskGroup, or cancel and await each task that it creates",
        "memory-pressure",
        "A session's tasks only grow",
    ),
    "old-session": Advice(
        "see whether its call still goes on; end sessions on disconnect, and after a longest time",
        "memory-pressure",
        "A session that does not end",
    ),
    "host-throttled": Advice(
        "give the worker more CPU: its cgroup's limit, fewer neighbours on the host, or a higher priority",
        "host-throttled",
        "The worker is not let run",
    ),
    "tagging-lost": Advice(
        "have the new create_task call the one that stood there before",
        "tagging-lost",
        "create_task was replaced",
    ),
    "untagged-work": Advice(
        "create these tasks inside of `with introspector.session(...)`, or find what runs beside the sessions",
        "tagging-lost",
        "Work of no session",
    ),
}
