"""The messages of the wire protocol, which `Introspector` returns as well.

docs/wire-protocol.md is the contract. Its tables of fields are made from the docstrings below by `fields`,
so each field is documented once, where it is defined:
- the unit; in a name, _s is seconds, _ms milliseconds, _pct percent, _mb MB (1 MB here is 1024 × 1024 bytes);
- the range, if it is not obvious;
- "Total" for what only rises from the start of the session or worker, "Gauge" for the value at `taken_at`;
- "Null" and what it means: the value was not measured, or cannot be known; it never means 0;
- "Since 1.x" for a field that is not there since protocol 1.0.

A docstring is one paragraph of Markdown: the page shows it as it is. Every field but the identifying ones has a
default, so that a reader of a later minor version still decodes an earlier one's messages; unknown fields are ignored.

This module is long because it is one table, most of it documentation: a field is found in one place.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

PROTOCOL_MAJOR = 1
PROTOCOL_MINOR = 3

MAX_REQUEST_BYTES = 64 * 1024
"""The longest request line that a server reads, newline included."""

MAX_MESSAGE_BYTES = 64 * 1024 * 1024
"""The longest line that a client reads: a snapshot of some 150,000 sessions."""

MAX_CLIENTS = 32
MAX_WATCHES = 8
MIN_WATCH_INTERVAL_S = 0.1
MAX_WATCH_INTERVAL_S = 60.0

MAX_TASKS = 500
"""The most tasks of a session that one reply describes."""
MAX_DELAYED = 100
"""The most delayed sessions that one block names."""
MAX_WAITERS = 20
"""The most waiting tasks that one group names."""
MAX_GROUPS = 200
"""The most groups of waiting tasks that one reply has."""

CAPABILITIES: tuple[str, ...] = ("snapshot", "watch", "cancel", "blocks", "tasks", "stacks", "waits", "bye", "deltas")
"""The requests that this version's server answers, and `deltas`: it sends changes to who asks for them."""

ErrorCode = Literal[
    "bad-json",
    "bad-request",
    "unsupported",
    "not-found",
    "line-too-long",
    "too-many-clients",
    "too-many-watches",
    "internal",
]
ERROR_CODES: tuple[str, ...] = ErrorCode.__args__  # type: ignore[attr-defined]

Status = Literal["active", "slow", "blocked", "draining", "errored"]
TaskState = Literal["running", "waiting", "ready"]
CpuMethod = Literal["exact", "sampled", "off"]
MemoryMethod = Literal["share", "heap", "traced"]
LagMethod = Literal["iterations", "heartbeat"]
Isolation = Literal["coroutine", "process"]
Meter = Literal["C", "Python"]
RequestId = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)] | Annotated[str, Meta(max_length=64)]


# --- what a worker knows -------------------------------------------------------------------------


class Location(Struct, frozen=True):
    """A place in source code."""

    file: str
    """The source file."""
    line: int
    """The line number, counted from 1."""
    function: str
    """The function's name."""

    def __str__(self) -> str:
        return f"{self.file}:{self.line} in {self.function}"


class Holder(Struct, frozen=True, kw_only=True):
    """The task or thread that has what others wait for."""

    session_id: str | None = None
    """The session of the task. Null: it is no session's, or a thread is the holder."""
    agent_name: str | None = None
    """That session's agent. Null: as `session_id`."""
    tenant: str | None = None
    """That session's tenant. Null: as `session_id`, or the session has none."""
    task_name: str | None = None
    """The task. Null: a thread is the holder."""
    thread: str | None = None
    """The thread's name. Null: a task is the holder."""
    since: float | None = None
    """The time of the task's last step, Unix time in seconds: it has waited since. Null: it runs now, or it is not
    known."""
    location: Location | None = None
    """The innermost frame of the user's own code that the holder is in: the line at which it waits, or runs. Null: not
    known."""
    taken_at: Location | None = None
    """The line of the `with` or `async with` whose body the holder is in. Null: it was taken in another way, or the
    line is not known."""
    waits: str | None = None
    """The kind of what the holder itself waits for, as a group's `kind`. Null: it does not wait, or it is not known."""
    certain: bool = True
    """False: the holder is likely, but another may be it."""


class Delayed(Struct, frozen=True):
    """A session that a block delayed."""

    session_id: str
    """The delayed session."""
    delayed_ms: float
    """The time for which the session was ready and waited, milliseconds."""
    exact: bool = True
    """False: `delayed_ms` is an upper bound, because the moment at which the session became ready is not known."""


class Block(Struct, frozen=True, kw_only=True):
    """One span in which the loop could run nothing else for longer than the threshold."""

    seq: int
    """1 for the worker's first block and one more for each; 0 while it is in progress."""
    session_id: str | None = None
    """The session that held the loop. Null: no session did, or it cannot be known. It is never a guess."""
    agent_name: str | None = None
    """That session's agent. Null: as `session_id`."""
    tenant: str | None = None
    """That session's tenant. Null: as `session_id`, or the session has none."""
    loop: str | None = None
    """The loop that was held, by its name in the worker's `loops`. Null: the worker had one loop only."""
    task_name: str | None = None
    """The task that held the loop. Null: a callback did, or the task is unknown."""
    started_at: float = 0.0
    """The time at which the block began, Unix time in seconds."""
    duration_ms: float = 0.0
    """The length of the block, milliseconds; so far, while the block is in progress. It is the length of the step, or
    of the loop's own iteration."""
    in_progress: bool = False
    """True: the block goes on at `taken_at`. False: it has ended."""
    running_since: float | None = None
    """The time at which the blocking step began, Unix time in seconds. Null: the block has ended."""
    cause: str | None = None
    """The reason why the loop was held: a name from [the table of causes](measuring.md#blocks), or one that a later
    minor version adds. While the block is in progress: the cause that it has by now. Null: not determined."""
    detail: str | None = None
    """More about the cause, in English: the module imported, the sessions that took part in a burst. Null: there is
    no more to say."""
    location: Location | None = None
    """The innermost frame of the user's own code; of compiled code, which has none, where the function begins. Null:
    not captured, or not known."""
    stack: list[Location] = []
    """The calls from the task's own coroutine to the innermost, which is last. Empty: not captured."""
    waiting_on: str | None = None
    """What the loop's thread waited for in the call that held it, in English: a threading lock, a future of another
    thread's loop. Null: it waited for nothing, or no more is known than the line. Since 1.2."""
    holder: Holder | None = None
    """Who had what the loop's thread waited for. Null: nobody, or it is not known. Since 1.2."""
    delayed: list[Delayed] | None = None
    """The delayed sessions, the longest delay first, at most 100; if there are 100, there may have been more. Null:
    this loop cannot tell, or the block is in progress."""


# gc=False: 10,000 of them a snapshot would set off collections of the host's whole heap. Text and numbers make no
# cycles.
class SessionRow(Struct, frozen=True, kw_only=True, gc=False):
    """One live session, or one that has just ended with an error."""

    session_id: str
    """The session's id: 1 to 256 characters, different from that of any other live session."""
    agent_name: str
    """The name of its agent: 1 to 256 characters."""
    tenant: str | None = None
    """The tenant, from `metadata["tenant"]`. Null: none was given."""
    loop: str | None = None
    """The loop that its scope was entered on, by its name in the worker's `loops`. Null: the worker has one loop
    only, or the scope was entered on none."""
    started_at: float = 0.0
    """The time at which the session started, Unix time in seconds."""
    duration_s: float = 0.0
    """Seconds since it started; of an errored session, until it ended."""
    cpu_pct: float | None = None
    """Gauge: loop time, the share of the last one to two seconds (since its start, if it is younger) in which its
    steps held the loop. 100 is a whole loop; a session that works on several loops may have more. The step in
    progress counts. Null: `cpu` is `"off"`."""
    cpu_s: float | None = None
    """Total: seconds for which its steps have held the loop; in `"sampled"` mode samples × interval. Null: `cpu` is
    `"off"`."""
    steps: int | None = None
    """Total: task steps run; in `"sampled"` mode the samples that hit it. Null: `cpu` is `"off"`."""
    tasks: int | None = 0
    """Gauge: its live tasks, which are the task inside the scope and those created in its context. Null:
    `isolation` is `"process"`."""
    mem_mb: float = 0.0
    """Gauge: an equal share, the process's RSS / live sessions, MB. It is not what the session itself has allocated;
    but if `isolation` is `"process"`, it is the RSS of the session's own process. 0 of an errored session, which has
    ended."""
    peak_mb: float = 0.0
    """The highest `mem_mb` seen while the session lived, MB."""
    heap_mb: float | None = None
    """Gauge: the memory that its steps and its calls in threads have allocated less what they freed, MB; below 0 if
    they freed what others had allocated. An estimate while a note says so. Null: `memory` is `"share"`, or no step was
    read for some time since the session began, and a note said so then."""
    heap_growth_mb_per_min: float | None = None
    """Gauge: the rise of `heap_mb` over the last minute, MB per minute. Null: as `heap_mb`, or the session is younger
    than ten seconds."""
    thread_cpu_s: float | None = None
    """Total: CPU seconds that its calls in threads (`asyncio.to_thread`, `run_in_executor`, anyio's and Trio's) have
    used. Such calls compete with the loop for the GIL; `cpu_s` does not include them. Null: not measured on this
    loop."""
    status: Status = "active"
    """`"blocked"`: it holds the loop past the threshold now; `"slow"`: it did within the last seconds; `"draining"`:
    the worker drains; `"errored"`: it ended with an error within the last 30 seconds and no longer counts as live;
    else `"active"`."""
    error: str | None = None
    """The error that it ended with, in one line of at most 200 characters. Null: its status is not `"errored"`."""
    blocks: int = 0
    """Total: blocks that it caused."""
    worst_block_ms: float = 0.0
    """The longest of those blocks, milliseconds. 0: it caused none."""
    delayed_s: float | None = None
    """Total: seconds for which others' blocks delayed it; if only an upper bound was known, half of that counts.
    Null: this loop cannot tell."""
    worst_delay_ms: float | None = None
    """The longest delay of the session by one block, milliseconds. Null: this loop cannot tell."""
    last_step_at: float | None = None
    """The time at which the last of its steps ended, Unix time in seconds; of a session without a step, its start. The
    session's tasks have waited since then. While only one step in `timed_one_in` is timed, it may be earlier by some
    steps of the loop; on Trio it is then the end of its last step that was timed. Null: one of its steps runs now, or
    steps are not timed. Since 1.2."""
    waits: str | None = None
    """Gauge: the kind of what the session waits for, as a group's `kind`: that of the task that stepped last. It is
    looked at about once a second, and less often in workers with many sessions, and is set once the session has taken
    no step for a second. A session that steps again keeps it at first. Null: it was busy whenever it was looked at,
    five times in a row or since its start; or no sample was taken, or steps are not timed. Since 1.2."""


class Outlived(Struct, frozen=True, kw_only=True):
    """A session that has ended, and whose tasks go on."""

    session_id: str
    """The session's id."""
    agent_name: str
    """The name of its agent."""
    tenant: str | None = None
    """The tenant. Null: none was given."""
    ended_at: float = 0.0
    """The time at which the session ended, Unix time in seconds."""
    tasks: int = 0
    """Gauge: its tasks that have not ended."""
    cpu_pct: float | None = None
    """Gauge: loop time of those tasks, as a live session's `cpu_pct`. Null: steps are not timed."""
    cpu_s: float | None = None
    """Total: seconds for which its steps have held the loop, those before its end included. Null: steps are not
    timed."""
    task_name: str | None = None
    """The name of one of the tasks: the one that stepped last. Null: not known."""
    coroutine: str | None = None
    """The qualified name of the function that this task runs. Null: not known."""


class LeftBehind(Struct, frozen=True, kw_only=True):
    """A session that has ended and had not given back what it allocated."""

    session_id: str
    """The session's id."""
    agent_name: str
    """The name of its agent."""
    tenant: str | None = None
    """The tenant. Null: none was given."""
    ended_at: float = 0.0
    """The time at which the session ended, Unix time in seconds."""
    heap_mb: float = 0.0
    """The memory that its steps had allocated and not freed when the last of them ran, MB; steps of tasks that it left
    running count. Later frees of that memory by others are not seen."""
    at_least_mb: float = 0.0
    """The part of `heap_mb` that is still held for certain, MB: `heap_mb` less all that anyone else has given back
    since the session's end, whoever had allocated it. 0: all of it may have been given back."""
    tasks: int = 0
    """Its tasks that have not ended."""
    referenced: bool | None = None
    """True: something that it made (a task, running or done, a callback, a timer or a copied context) is still
    referenced. False: the memory that it left is in plain data, or was given back. Null: not known."""


class LoopTime(Struct, frozen=True, kw_only=True):
    """The division of a loop's wall time, percent of the last one to two seconds.

    Null: not measured.
    """

    sessions_pct: float | None = None
    """Gauge: sessions' task steps."""
    untagged_pct: float | None = None
    """Gauge: steps of tasks that belong to no live session."""
    gc_pct: float | None = None
    """Gauge: garbage collections of more than 0.2 ms on the loop's thread; shorter ones are charged to what ran."""
    other_pct: float | None = None
    """Gauge: callbacks, the loop's own work, and tasks that are older than the metering."""
    idle_pct: float | None = None
    """Gauge: waiting for something to happen. Null also on loops that do not report it, such as
    uvloop."""


class LoopInfo(Struct, frozen=True, kw_only=True):
    """One of several event loops of a worker."""

    name: str
    """The loop's name, different from that of any other loop the worker has had, such as `"asyncio-1"`."""
    loop: str = ""
    """`"asyncio"`, `"uvloop"`, `"trio"`, or the package that runs another loop, such as `"rloop"` or `"qasync"`."""
    thread: str = ""
    """The name of the thread that runs the loop."""
    sessions: int = 0
    """Gauge: live sessions whose scope was entered on it."""
    loop_time: LoopTime = LoopTime()
    """Gauge: the division of the loop's time."""
    lag_p99_ms: float | None = None
    """Gauge: the worker's field of the same name, for this loop alone, milliseconds. Null: not measured."""
    lag_max_ms: float | None = None
    """Gauge: the worker's field of the same name, for this loop alone, milliseconds. Null: not measured."""
    lag_method: LagMethod | None = None
    """The worker's field of the same name, for this loop alone. Null: not measured."""
    iterations_per_s: float | None = None
    """Gauge: the worker's field of the same name, for this loop alone. Null: not measured. Since 1.2."""


class Host(Struct, frozen=True, kw_only=True):
    """The machine and the process."""

    cpu_pct: float | None = None
    """Gauge: all cores together over the last second, percent, 0 to 100. Null: not sampled so far."""
    cores: int = 1
    """The number of processors."""
    load_1m: float | None = None
    """Gauge: the one-minute load average. Null: the platform has none."""
    process_cpu_pct: float | None = None
    """Gauge: this process over the last second, percent of one core. Null: not sampled so far."""
    other_threads_pct: float | None = None
    """Gauge: the process's threads beside the loop's and introspection's own, percent of one core: those that Python
    started, which compete with the loop for the GIL, and those of libraries that Python does not know. Null: not
    sampled so far, or the platform has no clock of another thread."""
    threads: int = 0
    """Gauge: threads of this process."""
    memory_mb: float | None = None
    """The memory of the machine, MB. Null: not sampled so far. Since 1.3."""
    memory_available_mb: float | None = None
    """Gauge: the part of it that programs can have without swapping, MB: what is free, and what the kernel can take
    back. Null: not sampled so far. Since 1.3."""


class Cgroup(Struct, frozen=True, kw_only=True):
    """The limits of the control group (cgroup) that the process is in, and what counts towards them.

    A limit may be that of a group above. Limits above the root of the process's cgroup namespace are not seen.
    """

    cpu_limit: float | None = None
    """The processors that the group may use at a time: the smallest quota of the group and those above it, or the size
    of its set of processors if that is smaller. Null: it may use all."""
    cpu_limit_file: str | None = None
    """The file that has this limit, as the process sees it. Null: there is no limit."""
    cpu_throttled_pct: float | None = None
    """Gauge: the periods of the last second in which a quota was used up, percent of those in which the group ran;
    of several quotas the highest. Null: no quota is seen, or it was not sampled twice so far."""
    cpu_throttled_s: float | None = None
    """Total: seconds for which quotas kept the group from running, all processors added up, so it may rise by more than
    a second each second. From Linux 6.6 on it includes quotas above the cgroup namespace. Null: no quota is seen."""
    cpu_pressure_pct: float | None = None
    """Gauge: the time in which some thread of the group waited for a processor, percent of the last ten seconds.
    Null: the kernel does not report it for this group."""
    memory_limit_mb: float | None = None
    """The limit that is nearest: of those of the group and the groups above it the one with the least left, MB. Above
    `memory.max` the kernel kills a process of the group, above `memory.high` it slows them down. Null: there is
    none."""
    memory_limit_file: str | None = None
    """The file that has this limit, as the process sees it. Null: there is no limit, or version 1 reports one that is
    set above the cgroup namespace."""
    memory_used_mb: float | None = None
    """Gauge: the memory of the limited group, or of the process's own if there is no limit, that the kernel cannot take
    back without swapping, MB: `memory_current_mb` less file cache and reclaimable kernel memory. At the limit the
    kernel takes back the others first. Version 1 does not show which kernel memory is reclaimable: all of it counts.
    Null: memory of this group is not counted."""
    memory_working_set_mb: float | None = None
    """Gauge: the same memory with the file cache that was used lately, MB, as `kubectl top` and `docker stats` show it.
    Null: as `memory_used_mb`."""
    memory_current_mb: float | None = None
    """Gauge: all memory that counts towards the limit, file cache too, MB. Null: as `memory_used_mb`."""
    anon_mb: float | None = None
    """Gauge: the part of `memory_current_mb` that the programs have allocated, MB. Null: as `memory_used_mb`."""
    file_mb: float | None = None
    """Gauge: the part that caches files, MB; shared memory and tmpfs count, which cannot be taken back. Null: as
    `memory_used_mb`."""
    kernel_mb: float | None = None
    """Gauge: the part that the kernel needs for the group, MB: stacks, page tables, sockets, caches of file names.
    Null: as `memory_used_mb`."""
    memory_pressure_pct: float | None = None
    """Gauge: the time in which some thread of the group waited for memory, percent of the last ten seconds. Null: the
    kernel does not report it for this group."""
    oom_kills: int | None = None
    """Total, since the group was made: its processes that the kernel killed for want of memory. Null: the kernel does
    not report it for this group."""


class WorkerInfo(Struct, frozen=True, kw_only=True):
    """The worker that the sessions live in."""

    name: str
    """The worker's name, as in the hello."""
    pid: int
    """Its process id, as in the hello."""
    epoch: str = ""
    """A text that is different for each start of a worker, as in the hello; totals and sequence numbers begin anew with
    it."""
    loop: str = ""
    """The event loop: `"asyncio"`, `"uvloop"`, `"trio"`, or the package that runs another loop, such as `"rloop"` or
    `"qasync"`; of several loops the first one that is still attached."""
    python: str = ""
    """The version of the interpreter."""
    meter: Meter | None = None
    """The language of the meter: `"C"`, or `"Python"`, which does the same at a higher cost, if the one in C is not
    installed, cannot be used, or is switched off. Null: not known, or nothing is metered (process mode)."""
    isolation: Isolation = "coroutine"
    """`"coroutine"`: sessions are tasks of event loops. `"process"`: each session is a process of its own, nothing
    inside it is measured, and the numbers are the operating system's; see Process mode."""
    started_at: float = 0.0
    """The time at which the introspector was attached, Unix time in seconds."""
    uptime_s: float = 0.0
    """Seconds since `started_at`."""
    cpu: CpuMethod = "exact"
    """The method by which loop time is measured: `"exact"` times every task step, `"sampled"` takes samples of the step
    that runs, `"off"` does neither."""
    memory: MemoryMethod = "share"
    """The method by which memory is measured: `"share"` only divides the process's, `"heap"` and `"traced"` measure
    each session's."""
    slow_session_threshold_ms: float = 50.0
    """A block is longer than this, milliseconds."""
    sessions: int = 0
    """Gauge: live sessions."""
    max_sessions: int = 0
    """The most sessions that may live at a time. 0: no limit."""
    started: int = 0
    """Total: sessions started."""
    errored: int = 0
    """Total: sessions whose scope ended with an error; a cancellation is none."""
    blocks: int = 0
    """Total: blocks, whoever caused them."""
    draining: bool = False
    """Gauge: true while the worker drains, so that it takes no new sessions and those running may finish."""
    rss_mb: float = 0.0
    """Gauge: the process's resident memory at the last memory sample, MB."""
    rss_trend_mb_per_min: float | None = None
    """Gauge: the slope of `rss_mb` over the last minute, MB per minute. Null: fewer than ten seconds of samples."""
    memory_limit_mb: float = 0.0
    """The worker drains above this much resident memory, MB. 0: no limit."""
    loop_time: LoopTime = LoopTime()
    """Gauge: the division of the loop's time; of several loops the mean."""
    lag_p99_ms: float | None = None
    """Gauge: the time for which something that becomes ready at a random moment waits for the loop: 99 of 100 wait no
    longer, over the last minute, milliseconds. 0: less than the resolution of 0.5 ms. Of several loops the worst one's.
    Null: nothing measured it."""
    lag_max_ms: float | None = None
    """Gauge: the longest wait of the last minute, milliseconds. Null: nothing measured it."""
    lag_method: LagMethod | None = None
    """`"iterations"`: each iteration of the loop is timed, exactly. `"heartbeat"`: lag is the lateness of a timer, only
    while tasks step. Null: nothing measures it."""
    timed_one_in: int = 1
    """One task step in so many is timed, drawn at random, and counts for as many. 1: each is. Above 1, shares of loop
    time, `cpu_s` and `steps` are estimates without bias, and blocks are found by the loop's iterations."""
    introspection_pct: float | None = None
    """Gauge: an estimate of the cost of introspection itself, percent of one core: the CPU time of its threads, and the
    steps times the cost of one step, which is measured at the start. Null: not measured."""
    left_behind: list[LeftBehind] = []
    """Sessions that ended in the last ten minutes with 1 MB or more of their own still allocated, the most first, at
    most ten. Empty: there are none, or the memory method does not measure it."""
    outlived: list[Outlived] = []
    """Sessions that have ended and whose tasks go on, those with the most loop time first, at most ten. Empty: there
    are none. Since 1.2."""
    iterations_per_s: float | None = None
    """Gauge: iterations of the loop a second, over the last one to two seconds; of several loops their sum. Null: this
    loop's iterations are not seen. Since 1.2."""
    host: Host = Host()
    """The machine and the process."""
    cgroup: Cgroup | None = None
    """The control group that the process is in. Null: not known, or the platform has none. Since 1.3."""
    notes: list[str] = []
    """Facts that the reader of these numbers must know, in English: a probe that is switched off, a replaced
    `create_task`."""
    loops: list[LoopInfo] = []
    """The event loops, if there are several, in the order in which they were attached. Empty: there is one at most,
    and the worker's own fields describe it."""


class TaskInfo(Struct, frozen=True, kw_only=True):
    """One live task of a session."""

    id: int
    """The task's number within this reply, 1 and up."""
    name: str
    """The task's name."""
    coroutine: str = ""
    """The qualified name of the function that the task runs; if that is not known, the name of its coroutine's type."""
    state: TaskState = "waiting"
    """`"running"`: it holds the loop now; `"waiting"`: for something that has not happened; `"ready"`: it will run as
    soon as the loop gets to it."""
    awaits: list[Location] = []
    """The await chain, from the task's own coroutine inwards: the last is the line where the task waits, or runs. The
    64 outermost; of a running task the 64 innermost. Empty: the task has not begun, or has just ended."""
    waiting_on: str | None = None
    """A description of the thing that the task waits for, in English: a task, a gather, a sleep. Null: no more is known
    than the line."""
    awaited_by: list[int] = []
    """The ids of the tasks of this reply that go on when this one is done, or that are the host of its task group."""


class WaitedFor(Struct, frozen=True, kw_only=True):
    """Seconds that a session has waited for things of one kind."""

    kind: str
    """The kind, as a group's `kind`."""
    seconds: float
    """The seconds, sampled: what a session waits for is looked at about once a second, and less often in workers with
    many sessions. While several tasks wait, each has an equal share of the time. They may fall a little, when a block
    ends that was sampled as waiting."""


class WallTime(Struct, frozen=True, kw_only=True):
    """The division of a session's wall time since its start: the parts add up to `total_s`."""

    total_s: float = 0.0
    """Seconds since the session started."""
    running_s: float = 0.0
    """Seconds for which its steps held a loop, exact: `cpu_s`, but at most `total_s`, if its steps ran on several loops
    at the same time."""
    delayed_s: float | None = None
    """Seconds for which it was ready and others held the loop: the row's `delayed_s`. Null: this loop cannot tell, and
    such time is in `unknown_s`."""
    queued_s: float = 0.0
    """Seconds for which it waited for calls that were queued for a thread, and for nothing else that is known; sampled,
    as those below."""
    in_threads_s: float = 0.0
    """Seconds for which it waited for calls that ran in threads."""
    waited: list[WaitedFor] = []
    """The seconds of its other waits, the most first, by what it waited for."""
    unknown_s: float = 0.0
    """The rest: no sample was taken, or no task waited then."""


class Waiter(Struct, frozen=True, kw_only=True):
    """A task that waits."""

    session_id: str | None = None
    """Its session. Null: it belongs to no live session."""
    agent_name: str | None = None
    """That session's agent. Null: as `session_id`."""
    tenant: str | None = None
    """That session's tenant. Null: as `session_id`, or the session has none."""
    task_name: str = ""
    """The task's name."""
    since: float | None = None
    """The time since which it has waited, Unix time in seconds: that of its last step, or of its session's if only that
    is known (Trio, tasks older than the introspector). Null: not known."""
    location: Location | None = None
    """The innermost frame of the user's own code: the line at which it waits. Null: not known."""


class WaitGroup(Struct, frozen=True, kw_only=True):
    """Tasks that wait for the same thing: the same object, or things of one kind at the same line."""

    kind: str
    """What they wait for: a name from [the table of kinds](waits.md#kinds), or one that a later minor version
    adds."""
    what: str = ""
    """A description of what they wait for, in English: `asyncio.Lock`, `asyncio.Queue, empty`, `sleep`."""
    shared: bool = False
    """True: all wait for one and the same object. False: for things of one kind at the same line, each for its own."""
    location: Location | None = None
    """The user's line at which most of them wait. Null: not known."""
    sessions: int = 0
    """Sessions that have a task in the group."""
    tasks: int = 0
    """Tasks in the group, those of no session included."""
    stuck: int = 0
    """Sessions in the group that came to rest there: none of their tasks has stepped for nine tenths of the time for
    which they have waited in the group."""
    since: float | None = None
    """The time since which the one that waits longest has waited, Unix time in seconds. Null: not known."""
    waiters: list[Waiter] = []
    """Those that have waited longest, the longest first, at most 20."""
    holders: list[Holder] = []
    """Who has what they wait for: one for a lock, up to all slots of a semaphore, at most 20. Empty: nobody, or it
    cannot be seen."""


class ThreadCallGroup(Struct, frozen=True, kw_only=True):
    """Calls in threads of one session and one function."""

    session_id: str | None = None
    """The session. Null: they belong to no session."""
    agent_name: str | None = None
    """That session's agent. Null: as `session_id`."""
    tenant: str | None = None
    """That session's tenant. Null: as `session_id`, or the session has none."""
    function: str = ""
    """The qualified name of the function that is called. Empty: not known, as of a function in C that runs for no
    session."""
    location: Location | None = None
    """The line of the user's code that a running call is at, or the function's first. Null: not known."""
    running: int = 0
    """Calls that have a thread."""
    queued: int = 0
    """Calls that wait for a thread."""
    longest_running_s: float | None = None
    """Seconds for which the oldest of those that run has run. Null: none runs, or it is not known."""
    longest_queued_s: float | None = None
    """Seconds for which the oldest of those that wait has waited. Null: none waits, or it is not known."""


class ExecutorInfo(Struct, frozen=True, kw_only=True):
    """A pool of threads that loops hand calls to."""

    name: str
    """`"default"`: the loop's own executor; else the prefix of its threads' names, `"anyio"` or `"trio"` with a
    limiter."""
    kind: str = ""
    """`"executor"`: a `ThreadPoolExecutor`; `"anyio"` or `"trio"`: the threads that one limiter allows."""
    loop: str | None = None
    """The loop, by its name in the worker's `loops`. Null: the worker has one loop only, or several share it."""
    max_threads: int | None = None
    """Threads that it may have. Null: no limit, or not known."""
    busy: int = 0
    """Threads that run a call."""
    queued: int = 0
    """Calls that wait for a thread."""
    longest_queued_s: float | None = None
    """Seconds for which the oldest of them has waited. Null: none waits, or it is not known."""
    calls: list[ThreadCallGroup] = []
    """The calls, by session and function, the most first, at most 20."""


class CallbackGroup(Struct, frozen=True, kw_only=True):
    """Callbacks of one function that a loop runs, outside of tasks' steps."""

    source: str = ""
    """`"reader"` or `"writer"`: the selector found the file ready; `"ready"`: in the loop's queue, by `call_soon` and
    the like; `"lost"`: in the loop's queue, or a timer that is due, while the loop sleeps; `"running"`: seen to run, on
    a loop that does not show its queue."""
    function: str = ""
    """The qualified name of the function that is called."""
    location: Location | None = None
    """The function's first line. Null: it is not written in Python."""
    session_id: str | None = None
    """The session. Null: it is no session's."""
    agent_name: str | None = None
    """That session's agent. Null: as `session_id`."""
    tenant: str | None = None
    """That session's tenant. Null: as `session_id`, or the session has none."""
    fd: int | None = None
    """The file descriptor. Null: `source` is neither `"reader"` nor `"writer"`, or not known."""
    peer: str | None = None
    """The other end of the connection, and its protocol's class. Null: it is no connection's."""
    thread: str | None = None
    """The thread that was seen to add one, by its name. Null: the loop's own, or not known."""
    count: int = 0
    """Of a reader or writer: the sampled iterations in which it was ready. Lost: how many there are. Else the mean
    number in the queue, at least 1; of a long queue, estimated from its two ends."""


class LoopActivity(Struct, frozen=True, kw_only=True):
    """The activity of one loop beside steps, sampled while the request was answered."""

    name: str = ""
    """The loop, by its name in the worker's `loops`, or its kind if there is one only."""
    iterations_per_s: float | None = None
    """Iterations a second meanwhile. Null: not seen."""
    steps_per_s: float | None = None
    """Task steps a second meanwhile. Null: steps are not timed."""
    ready: int | None = None
    """Callbacks in the loop's queue. Null: this loop does not show it."""
    asleep_since: float | None = None
    """The time since which the loop waits for events, Unix time in seconds. Null: it does not, or it is not known."""
    sampled: int | None = None
    """Iterations in which no task stepped, of those that were sampled: in so many could a reader or a writer be found
    ready. Null: this loop does not show what its selector finds."""
    callbacks: list[CallbackGroup] = []
    """The callbacks, lost ones first and then the most, at most 20."""


class Creation(Struct, frozen=True, kw_only=True):
    """Live tasks, or threads, that were started at one line."""

    kind: str = ""
    """`"task"` or `"thread"`."""
    location: Location | None = None
    """The user's line that started them; of a pool's threads, the one that started most. Null: not known, as of what is
    older than the introspector, and of tasks that were created while nobody counted."""
    function: str = ""
    """The qualified name of the function that they run; of a pool's threads, the pool, with a space in its name."""
    session_id: str | None = None
    """The session with the most of them. Null: they belong to no session."""
    agent_name: str | None = None
    """That session's agent. Null: as `session_id`."""
    tenant: str | None = None
    """That session's tenant. Null: as `session_id`, or the session has none."""
    alive: int = 0
    """How many of them live. Of a loop with more than 5,000 tasks, estimated of so many, taken at random."""
    started: int | None = None
    """Total: how many have been started there since the worker began to count. Null: not counted."""


class ThreadStack(Struct, frozen=True, kw_only=True):
    """The stack of one thread, and the session and task that run on it."""

    name: str
    """The thread's name. Empty: Python has none for it."""
    thread_id: int
    """Python's identifier of it, as `threading.get_ident()` gives it."""
    loop: bool = False
    """True: an event loop runs on the thread."""
    session_id: str | None = None
    """The session whose step runs on it. Null: no session's, or no loop runs on the thread."""
    task_name: str | None = None
    """The task that runs on it. Null: none does, or no loop runs on the thread."""
    frames: list[Location] = []
    """The stack, innermost last; the 64 innermost."""


class Snapshot(Struct, frozen=True, kw_only=True, tag="snapshot"):
    """Everything at one moment. As a reply, `id` is the request's."""

    id: RequestId | None = None
    """The request's id. Null: the snapshot is no reply."""
    seq: int = 0
    """A number that rises with each snapshot that the worker takes. Gaps are other readers' snapshots; clients that ask
    at the same time may get the same one."""
    taken_at: float = 0.0
    """The one moment that all of it describes, Unix time in seconds."""
    worker: WorkerInfo
    """The worker."""
    sessions: list[SessionRow] = []
    """The live sessions, and those that ended with an error a short while ago, in no order to rely on."""
    blocks_in_progress: list[Block] = []
    """The blocks that hold a loop right now, for longer than the threshold: at most one for each loop."""


class Counts(Struct, frozen=True, array_like=True, gc=False):
    """A row in which only the step counts have changed: an array of these values, in this order."""

    session_id: str
    """The row's session."""
    cpu_ns: int
    """The row's `cpu_s`, nanoseconds."""
    steps: int
    """The row's `steps`."""
    recent_ns: int
    """The part of `cpu_s` within the last `window_s` seconds, or since the session's start, nanoseconds."""
    last_step_ns: int | None = None
    """The row's `last_step_at`, nanoseconds. Null: as there. Since 1.2."""


class Frame(Struct, frozen=True, kw_only=True, tag="frame"):
    """A snapshot for a client that asked for changes: all of it, or what has changed since another frame. Since 1.1."""

    id: RequestId
    """The request's id."""
    seq: int
    """The snapshot's `seq`."""
    base: int | None = None
    """The `seq` of the frame that this one builds on. Null: it builds on none, and its `rows` are all rows."""
    taken_at: float = 0.0
    """The one moment that all of it describes, Unix time in seconds."""
    worker: WorkerInfo
    """The worker."""
    blocks_in_progress: list[Block] = []
    """The snapshot's `blocks_in_progress`, all of them."""
    share_mb: float | None = None
    """The `mem_mb` of each live row. Null: `mem_mb` changes only in a row that comes anew."""
    peak_share_mb: float | None = None
    """The highest `mem_mb` that each live row of `base` has had since: its `peak_mb` is at least that. Null: `peak_mb`
    changes only in a row that comes anew."""
    window_s: float | None = None
    """The seconds up to `taken_at` that `cpu_pct` covers, in rows of sessions that are older. Null: `cpu_pct` changes
    only in a row that comes anew."""
    gone: list[str] = []
    """The ids of rows of `base` that are gone."""
    counts: list[Counts] = []
    """The rows of `base` in which only `cpu_s`, `steps` and the time within the window have changed."""
    rows: list[SessionRow] = []
    """The rows that are new, or in which anything else has changed."""


# --- server to client ----------------------------------------------------------------------------


class Limits(Struct, frozen=True, kw_only=True):
    """The limits that the server holds its clients to."""

    request_bytes: int = MAX_REQUEST_BYTES
    """The longest request, bytes, line feed included."""
    clients: int = MAX_CLIENTS
    """Connections at a time."""
    watches: int = MAX_WATCHES
    """Watches of one connection at a time."""
    min_interval_s: float = MIN_WATCH_INTERVAL_S
    """The shortest interval of a watch, seconds."""
    max_interval_s: float = MAX_WATCH_INTERVAL_S
    """The longest interval of a watch, seconds."""
    idle_timeout_s: float = 60.0
    """A connection that completes no request and watches nothing is closed after this many seconds."""
    write_timeout_s: float = 5.0
    """A client that does not read a message within this many seconds is closed."""


class Hello(Struct, frozen=True, kw_only=True, tag="hello"):
    """The server's first line."""

    protocol: str
    """`"major.minor"`. A client that does not know the major version goes no further."""
    worker: str
    """The worker's name."""
    pid: int
    """The worker's process id, as the worker itself sees it."""
    epoch: str = ""
    """A text that is different for each start of a worker."""
    version: str = ""
    """The version of openrtc-introspect-core that serves."""
    capabilities: list[str] = []
    """The request types that are answered; any other is `unsupported`. Beside them `"deltas"`: changes are sent to who
    asks for them (since 1.1)."""
    limits: Limits = Limits()
    """The limits that clients are held to."""


class Blocks(Struct, frozen=True, kw_only=True, tag="blocks"):
    """The reply to a blocks request."""

    id: RequestId
    """The request's id."""
    blocks: list[Block] = []
    """The blocks that are still kept and whose `seq` is above the request's `since`, oldest first."""
    last_seq: int = 0
    """The newest block's `seq`, whether or not it is in this reply; ask on from it. 0: there has been no block."""


class Tasks(Struct, frozen=True, kw_only=True, tag="tasks"):
    """The reply to a tasks request."""

    id: RequestId
    """The request's id."""
    session_id: str
    """The session that the tasks belong to."""
    taken_at: float = 0.0
    """The time at which the tasks were read, Unix time in seconds."""
    tasks: list[TaskInfo] = []
    """The tasks, by name. Empty: the session has none, since its scope was entered outside of a task."""
    truncated: bool = False
    """True: there are more tasks than the 500 that are described."""
    wall_time: WallTime | None = None
    """The division of the session's wall time. Null: steps are not timed. Since 1.2."""


class Waits(Struct, frozen=True, kw_only=True, tag="waits"):
    """The reply to a waits request. Since 1.2."""

    id: RequestId
    """The request's id."""
    taken_at: float = 0.0
    """The time at which the tasks were read, Unix time in seconds."""
    sessions: int = 0
    """Live sessions whose tasks were looked at."""
    tasks: int = 0
    """Tasks that were looked at, those of no session included."""
    not_looked_at: int = 0
    """Tasks that there was no time to look at: those that stepped last."""
    took_ms: float = 0.0
    """The time that it took, milliseconds."""
    groups: list[WaitGroup] = []
    """The groups, those with the most sessions first, at most 200."""
    executors: list[ExecutorInfo] = []
    """The pools of threads that have been used."""
    loops: list[LoopActivity] = []
    """The activity of the loops beside steps."""
    creations: list[Creation] = []
    """Where the live threads and tasks were started, the most first, at most 20 of each kind. Tasks are counted only
    while their number grows."""


class Stacks(Struct, frozen=True, kw_only=True, tag="stacks"):
    """The reply to a stacks request."""

    id: RequestId
    """The request's id."""
    taken_at: float = 0.0
    """The time at which the stacks were read, Unix time in seconds."""
    threads: list[ThreadStack] = []
    """All threads, those of event loops first."""


class Done(Struct, frozen=True, kw_only=True, tag="done"):
    """A watch was cancelled, or a bye was heard."""

    id: RequestId
    """The request's id; of a cancelled watch the watch's."""


class Error(Struct, frozen=True, kw_only=True, tag="error"):
    """A request that was not carried out."""

    id: RequestId | None = None
    """The request's id. Null: it could not be read, or no request was at fault."""
    code: ErrorCode
    """One of the codes below."""
    message: str = ""
    """One line for people, in English. Its wording is not part of the contract."""


ServerMessage = Hello | Snapshot | Frame | Blocks | Tasks | Stacks | Waits | Done | Error


class SnapshotHead(Struct, frozen=True, kw_only=True, tag="snapshot"):
    """A Snapshot up to its rows, without its id."""

    seq: int
    taken_at: float
    worker: WorkerInfo


class FrameHead(Struct, frozen=True, kw_only=True, tag="frame"):
    """A Frame up to its rows, without its id."""

    seq: int
    base: int | None
    taken_at: float
    worker: WorkerInfo
    blocks_in_progress: list[Block]
    share_mb: float | None
    peak_share_mb: float | None
    window_s: float | None
    gone: list[str]


# --- client to server ----------------------------------------------------------------------------


class SnapshotRequest(Struct, frozen=True, kw_only=True, tag="snapshot"):
    """One snapshot, now."""

    id: RequestId
    """An id that the reply repeats."""
    base: Annotated[int, Meta(ge=0, le=2**63 - 1)] | None = None
    """The `seq` of the frame that the client has: the reply is a Frame, of what has changed since if the worker still
    knows. 0: the client has none, and the reply is a Frame of everything. Null: the reply is a Snapshot. Since 1.1."""


class WatchRequest(Struct, frozen=True, kw_only=True, tag="watch"):
    """A snapshot now and then one each interval, until cancelled or closed."""

    id: RequestId
    """An id that each frame repeats; no other watch of this connection may have it at the time."""
    interval_s: Annotated[float, Meta(ge=MIN_WATCH_INTERVAL_S, le=MAX_WATCH_INTERVAL_S)] = 1.0
    """Seconds between frames, 0.1 to 60 (`limits.min_interval_s`, `limits.max_interval_s`)."""
    deltas: bool = False
    """True: each frame is a Frame, the first one of everything, the others of what has changed since the frame before.
    False: each is a Snapshot. Since 1.1."""


class CancelRequest(Struct, frozen=True, kw_only=True, tag="cancel"):
    """The end of the watch with this id."""

    id: RequestId
    """The watch's id."""


class BlocksRequest(Struct, frozen=True, kw_only=True, tag="blocks"):
    """The block history from one sequence number on."""

    id: RequestId
    """An id that the reply repeats."""
    since: Annotated[int, Meta(ge=0)] = 0
    """Only blocks with a greater `seq`, 0 or more. 0: all."""


class TasksRequest(Struct, frozen=True, kw_only=True, tag="tasks"):
    """A live session's tasks, now."""

    id: RequestId
    """An id that the reply repeats."""
    session_id: str
    """The session whose tasks are asked for."""


class StacksRequest(Struct, frozen=True, kw_only=True, tag="stacks"):
    """The stacks of all threads, now."""

    id: RequestId
    """An id that the reply repeats."""


class WaitsRequest(Struct, frozen=True, kw_only=True, tag="waits"):
    """The waits of all sessions' tasks, now. Since 1.2."""

    id: RequestId
    """An id that the reply repeats."""


class ByeRequest(Struct, frozen=True, kw_only=True, tag="bye"):
    """The client is leaving: the server answers "done" and closes."""

    id: RequestId
    """An id that the reply repeats."""


Request = (
    SnapshotRequest
    | WatchRequest
    | CancelRequest
    | BlocksRequest
    | TasksRequest
    | StacksRequest
    | WaitsRequest
    | ByeRequest
)


class Envelope(Struct):
    """Just enough of a refused request to answer it."""

    type: Any = None
    id: Any = None
