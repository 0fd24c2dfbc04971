"""The messages of the wire protocol, and at the same time the data that `Introspector` returns.

docs/wire-protocol.md is the contract; each field is documented here, where it is defined: its
unit, whether it is a total or a gauge, and what null means. Every field but the identifying ones
has a default, so that a reader of a later minor version still decodes an earlier one's messages;
fields it does not know are ignored. All are there since protocol 1.0.

Long, because it is one table, most of it docs: whoever looks a field up finds it in one place.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import Meta, Raw, Struct

PROTOCOL_MAJOR = 1
PROTOCOL_MINOR = 0

MAX_REQUEST_BYTES = 64 * 1024
"""The longest request line a server reads, newline included."""

MAX_MESSAGE_BYTES = 64 * 1024 * 1024
"""The longest line a client reads: a snapshot of some 150,000 sessions."""

MAX_CLIENTS = 32
MAX_WATCHES = 8
MIN_WATCH_INTERVAL_S = 0.1
MAX_WATCH_INTERVAL_S = 60.0

MAX_TASKS = 500
"""The most tasks of a session that one reply tells of."""
MAX_DELAYED = 100
"""The most sessions kept waiting that one block names."""

CAPABILITIES: tuple[str, ...] = ("snapshot", "watch", "cancel", "blocks", "tasks", "stacks", "bye")
"""The requests this version's server answers."""

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

CAUSES: tuple[str, ...] = (
    "sync-call", "cpu", "native", "import", "burst", "callback", "gc", "gil-contention", "descheduled",
)  # fmt: skip
"""What a block's cause can be today. A later minor version may add to them: readers take any text."""

Status = Literal["active", "slow", "blocked", "draining", "errored"]
TaskState = Literal["running", "waiting", "ready"]
CpuMethod = Literal["exact", "sampled", "off"]
MemoryMethod = Literal["share", "heap", "traced"]
LagMethod = Literal["iterations", "heartbeat"]
Isolation = Literal["coroutine", "process"]
RequestId = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)] | Annotated[str, Meta(max_length=64)]


# --- what a worker knows -------------------------------------------------------------------------


class Location(Struct, frozen=True):
    """A place in source code."""

    file: str
    line: int
    """1-based line number."""
    function: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line} in {self.function}"


class Delayed(Struct, frozen=True):
    """A session that a block kept waiting."""

    session_id: str
    delayed_ms: float
    """Milliseconds it was kept waiting."""
    exact: bool = True
    """False: at most that long; when it became ready is not known."""


class Block(Struct, frozen=True, kw_only=True):
    """One span in which the loop could run nothing else for longer than the threshold."""

    seq: int
    """1 for the worker's first block, rising by one each; 0 while it is in progress."""
    session_id: str | None = None
    """The session that held the loop. Null: no session did, or it cannot be known."""
    agent_name: str | None = None
    tenant: str | None = None
    loop: str | None = None
    """The loop that was held, as in the worker's `loops`. Null: the worker had one loop only."""
    task_name: str | None = None
    """The task that held the loop. Null: a callback, or unknown."""
    started_at: float = 0.0
    """Unix time, seconds."""
    duration_ms: float = 0.0
    """So far, while in progress. Measured by the step meter or the loop's own iteration."""
    in_progress: bool = False
    running_since: float | None = None
    """Unix time at which the blocking step began; null once it has ended."""
    cause: str | None = None
    """One of CAUSES, to which later versions may add. Null: not determined, or still in progress."""
    detail: str | None = None
    """What more there is to say of the cause: the module imported, who took part in a burst."""
    location: Location | None = None
    """The innermost frame of the user's own code. Null: not captured."""
    stack: list[Location] = []
    """The calls from the task's own coroutine to the innermost, which is last. Empty: not captured."""
    delayed: list[Delayed] | None = None
    """The sessions kept waiting, the longest first, MAX_DELAYED of them at the most. Null: this loop does not tell, or
    in progress."""


# gc=False: 10,000 of them a snapshot would set off collections of the host's whole heap. Text and numbers make no
# cycles.
class SessionRow(Struct, frozen=True, kw_only=True, gc=False):
    """One live session, or one that has just ended with an error."""

    session_id: str
    agent_name: str
    tenant: str | None = None
    """`metadata["tenant"]`. Null: none was given."""
    loop: str | None = None
    """The loop that its scope was entered on, as in the worker's `loops`. Null: the worker has one loop
    only, or it was entered on none."""
    started_at: float = 0.0
    """Unix time, seconds."""
    duration_s: float = 0.0
    """Seconds since it started; of an errored one, until it ended."""
    cpu_pct: float | None = None
    """Gauge: loop time over the last one to two seconds (since the start, if younger), percent of
    wall time; 100 is a whole loop, and a session that works on several may have more. The step in
    progress counts. Null: cpu is "off"."""
    cpu_s: float | None = None
    """Total: seconds its steps have held the loop. In "sampled" mode samples × interval.
    Null: cpu is "off"."""
    steps: int | None = None
    """Total: task steps run; in "sampled" mode the samples that hit it. Null: cpu is "off"."""
    tasks: int | None = 0
    """Gauge: live tasks: the one inside the scope and those created in its context. Null: isolation is "process"."""
    mem_mb: float = 0.0
    """Gauge: an equal share, process RSS / live sessions, MiB. Not the session's own allocations; but where
    isolation is "process", its own process's RSS. 0 of an errored one, which has ended."""
    peak_mb: float = 0.0
    """The highest share seen while it lived, MiB."""
    heap_mb: float | None = None
    """Gauge: what its steps have allocated, less what they freed, MiB; below 0 where it freed others'.
    An estimate while a note says so. Null: the memory method does not measure it, or for a time since the session's
    start nothing was read, as a note said."""
    heap_growth_mb_per_min: float | None = None
    """Gauge: how fast `heap_mb` rose over the last minute. Null: as `heap_mb`, or younger than ten seconds."""
    thread_cpu_s: float | None = None
    """Total: CPU seconds that its calls in threads (`asyncio.to_thread`, `run_in_executor`) have used. They
    compete with the loop for the GIL, and are not in `cpu_s`. Null: not measured on this loop."""
    status: Status = "active"
    """"blocked": it holds the loop past the threshold now; "slow": it did within the last seconds;
    "errored": it ended with an error within the last 30 s and is not counted as live any more."""
    error: str | None = None
    """What it ended with, in one line of at most 200 characters. Null: its status is not "errored"."""
    blocks: int = 0
    """Total: blocks it caused."""
    worst_block_ms: float = 0.0
    """Its longest block, milliseconds; 0 when it caused none."""
    delayed_s: float | None = None
    """Total: seconds it was kept waiting by others' blocks. Where only a bound was known, half of it
    counts. Null: this loop does not tell."""
    worst_delay_ms: float | None = None
    """The longest it was kept waiting by one block, milliseconds. Null: this loop does not tell."""


class LeftBehind(Struct, frozen=True, kw_only=True):
    """A session that has ended and had not given back what it allocated."""

    session_id: str
    agent_name: str
    tenant: str | None = None
    ended_at: float = 0.0
    """Unix time, seconds."""
    heap_mb: float = 0.0
    """What its steps had allocated and not freed, MiB, the steps of tasks that it left running included.
    What others have freed of it since is not seen."""
    at_least_mb: float = 0.0
    """What of it is held yet for certain, MiB: `heap_mb` less all that anyone else has given back since its end,
    whosever it was. 0 means that it may all have been given back."""
    tasks: int = 0
    """Its tasks that have not ended."""
    referenced: bool | None = None
    """Whether something that it made is referenced yet: a task, running or done, a callback, a timer, a copied
    context. False: what it left is in plain data, or was given back. Null: not known."""


class LoopTime(Struct, frozen=True, kw_only=True):
    """Where the loop's wall time went over the last one to two seconds, percent. Null: not to be had."""

    sessions_pct: float | None = None
    untagged_pct: float | None = None
    """Tasks that belong to no live session."""
    gc_pct: float | None = None
    """Garbage collections of more than 0.2 ms on the loop's thread; shorter ones are with whoever they fell to."""
    other_pct: float | None = None
    """Callbacks, the loop's own work, and tasks that were there before metering began."""
    idle_pct: float | None = None
    """Waiting for something to happen. Null on loops that do not tell (uvloop)."""


class LoopInfo(Struct, frozen=True, kw_only=True):
    """One of several event loops of a worker."""

    name: str
    """Unlike that of any other loop the worker has had, such as "asyncio-1"."""
    loop: str = ""
    """"asyncio", "uvloop" or "trio"."""
    thread: str = ""
    """The name of the thread that runs it."""
    sessions: int = 0
    """Gauge: live sessions whose scope was entered on it."""
    loop_time: LoopTime = LoopTime()
    """Where its time went."""
    lag_p99_ms: float | None = None
    """As the worker's, of this loop."""
    lag_max_ms: float | None = None
    lag_method: LagMethod | None = None


class Host(Struct, frozen=True, kw_only=True):
    """The machine and the process."""

    cpu_pct: float | None = None
    """All cores together, 0–100, over the last second. Null: not sampled yet."""
    cores: int = 1
    load_1m: float | None = None
    """One-minute load average. Null where the platform has none."""
    process_cpu_pct: float | None = None
    """This process, percent of one core, over the last second. Null: not sampled yet."""
    other_threads_pct: float | None = None
    """The process's threads beside the loop's and introspection's own, percent of one core: they compete
    with the loop for the GIL. Null: not sampled yet, or this platform has no clock of another thread."""
    threads: int = 0
    """Gauge: threads of this process."""


class WorkerInfo(Struct, frozen=True, kw_only=True):
    """The worker that the sessions live in."""

    name: str
    pid: int
    epoch: str = ""
    """Different for each start of a worker: totals and sequence numbers begin anew with it."""
    loop: str = ""
    """"asyncio", "uvloop" or "trio"; of several loops the first one's that is still attached."""
    python: str = ""
    isolation: Isolation = "coroutine"
    """"coroutine": sessions are tasks of one loop. "process": each is a process of its own; nothing inside is
    measured, and the numbers are the operating system's."""
    started_at: float = 0.0
    """Unix time at which the introspector was attached."""
    uptime_s: float = 0.0
    cpu: CpuMethod = "exact"
    memory: MemoryMethod = "share"
    slow_session_threshold_ms: float = 50.0
    sessions: int = 0
    """Gauge: live sessions."""
    max_sessions: int = 0
    """0: no limit."""
    started: int = 0
    """Total: sessions started."""
    errored: int = 0
    """Total: sessions whose scope ended with an error (a cancellation is none)."""
    blocks: int = 0
    """Total: blocks, whoever caused them."""
    draining: bool = False
    """No new sessions are taken; those running may finish."""
    rss_mb: float = 0.0
    """Process resident set, MiB, at the last memory sample."""
    rss_trend_mb_per_min: float | None = None
    """Slope of RSS over the last minute. Null: fewer than ten seconds of samples."""
    memory_limit_mb: float = 0.0
    """0: no limit."""
    loop_time: LoopTime = LoopTime()
    """Of several loops the mean."""
    lag_p99_ms: float | None = None
    """How long something that becomes ready at a random moment waits for the loop: 99 of 100 wait
    no longer, over the last minute. 0 below the resolution of 0.5 ms. Of several loops the worst
    one's. Null: nothing measured it."""
    lag_max_ms: float | None = None
    """The longest wait in the last minute, milliseconds. Null: nothing measured it."""
    lag_method: LagMethod | None = None
    """"iterations": each loop iteration is timed, exact. "heartbeat": a timer's lateness, only while
    sessions live."""
    timed_one_in: int = 1
    """One task step in so many is timed, drawn at random, and counts for as many. 1: each is. Above that shares of
    loop time, `cpu_s` and `steps` are estimates without bias, and blocks are found by the loop's iterations."""
    introspection_pct: float | None = None
    """An estimate of what introspection itself costs, percent of one core: the CPU time of its
    threads, and the steps times the cost of one step measured at the start."""
    left_behind: list[LeftBehind] = []
    """Sessions that ended in the last ten minutes with 1 MiB or more of their own still allocated, the most
    first, at most ten. Empty: none, or the memory method does not measure it."""
    host: Host = Host()
    notes: list[str] = []
    """What the reader of these numbers must know: a probe switched off, a replaced `create_task`."""
    loops: list[LoopInfo] = []
    """The event loops, where there are several, in the order in which they were attached. Empty: there
    is one at most, and the worker's own fields tell of it."""


class TaskInfo(Struct, frozen=True, kw_only=True):
    """One live task of a session."""

    id: int
    """1 and up; within its reply."""
    name: str
    coroutine: str = ""
    """The qualified name of the function that the task runs."""
    state: TaskState = "waiting"
    """"running": it holds the loop now; "waiting": for what is not there yet; "ready": it will run
    as soon as the loop gets to it."""
    awaits: list[Location] = []
    """The await chain, from the task's own coroutine inwards: the last is the line where it waits, or
    runs. The 64 outermost; of a running task the 64 innermost. Empty: it has not begun or has just ended."""
    waiting_on: str | None = None
    """What is known of the thing it waits for: a task, a gather, a sleep. Null: nothing more than the line."""
    awaited_by: list[int] = []
    """The ids of the tasks of this reply that go on when it is done, or are the host of its task group."""


class ThreadStack(Struct, frozen=True, kw_only=True):
    """Where one thread is."""

    name: str
    """Empty: Python has no name for it."""
    thread_id: int
    """Python's, as `threading.get_ident()` gives it."""
    loop: bool = False
    """Whether it is the event loop's."""
    session_id: str | None = None
    """The session whose step runs on it. Null: none's, or not the loop's thread."""
    task_name: str | None = None
    """The task that runs on it. Null: none does, or not the loop's thread."""
    frames: list[Location] = []
    """Innermost last; the 64 innermost."""


class Snapshot(Struct, frozen=True, kw_only=True, tag="snapshot"):
    """Everything at one moment. As a reply, `id` is the request's."""

    id: RequestId | None = None
    seq: int = 0
    """Rises with each snapshot the worker takes; gaps are other readers' snapshots."""
    taken_at: float = 0.0
    """Unix time, seconds: the one moment all of it speaks of."""
    worker: WorkerInfo
    sessions: list[SessionRow] = []
    blocks_in_progress: list[Block] = []


# --- server to client ----------------------------------------------------------------------------


class Limits(Struct, frozen=True, kw_only=True):
    """What the server holds its clients to."""

    request_bytes: int = MAX_REQUEST_BYTES
    """The longest request line, newline included."""
    clients: int = MAX_CLIENTS
    """Connections at a time."""
    watches: int = MAX_WATCHES
    """Watches of one connection at a time."""
    min_interval_s: float = MIN_WATCH_INTERVAL_S
    max_interval_s: float = MAX_WATCH_INTERVAL_S
    idle_timeout_s: float = 60.0
    """A connection that completes no request and watches nothing is closed after this many seconds."""
    write_timeout_s: float = 5.0
    """A client that does not take a message within this many seconds is closed."""


class Hello(Struct, frozen=True, kw_only=True, tag="hello"):
    """The server's first line."""

    protocol: str
    """"major.minor". A client that does not know the major goes no further."""
    worker: str
    """The worker's name."""
    pid: int
    epoch: str = ""
    """Different for each start of a worker."""
    version: str = ""
    """The version of openrtc-introspect-core that serves."""
    capabilities: list[str] = []
    """The request types it answers; anything else is "unsupported"."""
    limits: Limits = Limits()


class Blocks(Struct, frozen=True, kw_only=True, tag="blocks"):
    """The reply to a blocks request."""

    id: RequestId
    blocks: list[Block] = []
    """Oldest first; those still kept whose seq is above the request's `since`."""
    last_seq: int = 0
    """The newest block's seq, to ask on from; 0 when there was none."""


class Tasks(Struct, frozen=True, kw_only=True, tag="tasks"):
    """The reply to a tasks request."""

    id: RequestId
    session_id: str
    taken_at: float = 0.0
    """Unix time, seconds."""
    tasks: list[TaskInfo] = []
    """By name. Of a session without a task, whose scope is open outside of one, none."""
    truncated: bool = False
    """Whether there are more than the 500 that are told of."""


class Stacks(Struct, frozen=True, kw_only=True, tag="stacks"):
    """The reply to a stacks request."""

    id: RequestId
    taken_at: float = 0.0
    """Unix time, seconds."""
    threads: list[ThreadStack] = []
    """The event loop's first."""


class Done(Struct, frozen=True, kw_only=True, tag="done"):
    """A watch was cancelled (`id` is the watch's), or a bye was heard."""

    id: RequestId


class Error(Struct, frozen=True, kw_only=True, tag="error"):
    """A request that was not carried out. `id` is null when it could not be read."""

    id: RequestId | None = None
    code: ErrorCode
    message: str = ""


ServerMessage = Hello | Snapshot | Blocks | Tasks | Stacks | Done | Error


class SnapshotFrame(Struct, frozen=True, kw_only=True, tag="snapshot"):
    """A Snapshot whose rows are encoded already."""

    seq: int
    taken_at: float
    worker: WorkerInfo
    sessions: Raw
    blocks_in_progress: list[Block]


# --- client to server ----------------------------------------------------------------------------


class SnapshotRequest(Struct, frozen=True, kw_only=True, tag="snapshot"):
    """One snapshot, now."""

    id: RequestId


class WatchRequest(Struct, frozen=True, kw_only=True, tag="watch"):
    """A snapshot now and then one each interval, until cancelled or closed."""

    id: RequestId
    interval_s: Annotated[float, Meta(ge=MIN_WATCH_INTERVAL_S, le=MAX_WATCH_INTERVAL_S)] = 1.0


class CancelRequest(Struct, frozen=True, kw_only=True, tag="cancel"):
    """Ends the watch with this id."""

    id: RequestId


class BlocksRequest(Struct, frozen=True, kw_only=True, tag="blocks"):
    """The block history from one sequence number on."""

    id: RequestId
    since: Annotated[int, Meta(ge=0)] = 0
    """Only blocks whose seq is greater."""


class TasksRequest(Struct, frozen=True, kw_only=True, tag="tasks"):
    """A live session's tasks, now."""

    id: RequestId
    session_id: str


class StacksRequest(Struct, frozen=True, kw_only=True, tag="stacks"):
    """The stacks of all threads, now."""

    id: RequestId


class ByeRequest(Struct, frozen=True, kw_only=True, tag="bye"):
    """The client is leaving: the server answers "done" and closes."""

    id: RequestId


Request = SnapshotRequest | WatchRequest | CancelRequest | BlocksRequest | TasksRequest | StacksRequest | ByeRequest


class Envelope(Struct):
    """Just enough of a request that was refused to answer it."""

    type: Any = None
    id: Any = None
