"""The advice for each finding: the likely fix, and a runbook's section.

A key is a finding's code, or `slow-session/` and a cause. The advice for blocks is part of the table of causes.
"""

from __future__ import annotations

from typing import NamedTuple

from .cause import CAUSES


class Advice(NamedTuple):
    """A fix in one line, and a runbook's name and heading."""

    fix: str
    runbook: str
    section: str


ADVICE: dict[str, Advice] = {
    **{cause.advice_key: Advice(cause.fix, cause.runbook, cause.section) for cause in CAUSES.values()},
    "lock-held-across-await": Advice(
        "let go of the lock before the await, or use an asyncio.Lock; a threading lock is for threads alone",
        "loop-blocked",
        "A threading lock held across an await",
    ),
    "blocked-now": Advice(
        "find what it waits for or computes in the stack: `openrtc blocks --stacks`; if it does not end, "
        "restart the worker",
        "loop-blocked",
        "Blocked now",
    ),
    "slow-session/unknown": Advice(
        "look at the line, and at the stacks of several of these blocks: `openrtc blocks --stacks`",
        "loop-blocked",
        "Cause unknown",
    ),
    "long-block": Advice(
        "look at its stack and its detail: `openrtc blocks --stacks`; what else did the host do at that moment?",
        "loop-blocked",
        "Cause unknown",
    ),
    "loop-full": Advice(
        "fewer sessions for each worker (`max_sessions`), more workers; move what computes to other processes",
        "cpu-hot",
        "The loop is full",
    ),
    "callback-flood": Advice(
        "add one callback for many items: a queue that a task empties, woken once by call_soon_threadsafe",
        "cpu-hot",
        "Too many callbacks",
    ),
    "spinning-loop": Advice(
        "remove the reader at the end of the file (`loop.remove_reader`), the writer when all is sent",
        "cpu-hot",
        "The loop spins",
    ),
    "spinning-loop/callback": Advice(
        "have the callback wait for what happens: add it again with a delay (`call_later`), not at once",
        "cpu-hot",
        "The loop spins",
    ),
    "lost-wakeup": Advice(
        "use call_soon_threadsafe, or run_coroutine_threadsafe, from other threads: call_soon does not wake the loop",
        "nothing-moves",
        "A wake-up is lost",
    ),
    "executor-full": Advice(
        "give slow calls an executor of their own: `run_in_executor(uploads, ...)`, and bound how many run at a time",
        "nothing-moves",
        "The executor is full",
    ),
    "deadlock": Advice(
        "take the locks in the same order everywhere; call nothing inside a lock that takes it again",
        "nothing-moves",
        "Tasks wait for each other",
    ),
    "lock-convoy": Advice(
        "await nothing slow inside the lock: take what it guards, let go, then await; or use a lock for each session",
        "nothing-moves",
        "Many wait for one lock",
    ),
    "waiting-together": Advice(
        "find what should end the wait, and give it a timeout: `async with asyncio.timeout(10)`",
        "nothing-moves",
        "Sessions wait at one place",
    ),
    "waiting-together/leak": Advice(
        "give it back on every path, also when the call fails or is cancelled: `async with`, `finally`",
        "nothing-moves",
        "Sessions wait at one place",
    ),
    "stale-sessions": Advice(
        "end the session when its caller is gone: cancel what waits there, or give the wait a timeout",
        "sessions-only-grow",
        "Sessions that take no step",
    ),
    "threads-grow": Advice(
        "end each thread, or hand the work to one bounded pool: `asyncio.to_thread`, a ThreadPoolExecutor",
        "sessions-only-grow",
        "Threads only grow",
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
        "fewer sessions for each worker (`max_sessions`), more workers; move what computes to other processes",
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
        "see whether its call still goes on; end sessions on disconnect, and after a maximum time",
        "memory-pressure",
        "A session that does not end",
    ),
    "tagging-lost": Advice(
        "make the new create_task call the one that it replaced",
        "tagging-lost",
        "create_task was replaced",
    ),
    "first-caller-pays": Advice(
        "create it outside of any session: at the worker's start, or inside `with introspector.no_session():`",
        "tagging-lost",
        "A task outlives its session",
    ),
    "untagged-work": Advice(
        "create these tasks inside `with introspector.session(...)`, or find what runs beside the sessions",
        "tagging-lost",
        "Work of no session",
    ),
}
