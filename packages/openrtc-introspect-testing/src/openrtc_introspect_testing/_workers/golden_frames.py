"""The golden frames: each message of the wire protocol with its bytes.

Tests hold the encoder, the decoder, the examples in docs/wire-protocol.md and the JSON Schema to this one table. The
bytes are written out, not computed: if they change, the protocol changes.

A message that a minor version adds gets its frames at the end of its direction's, and its place in
docs/wire-protocol.md. Every test that reads this table then covers the message, and tests fail until it is there.
A field that a minor version adds needs no change here: the lines stay valid without it, and tests allow that.

The module is long because it is one table of data.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from msgspec.structs import replace

from openrtc_introspect_core.wire import (
    Block,
    Blocks,
    BlocksRequest,
    ByeRequest,
    CallbackGroup,
    CancelRequest,
    Cgroup,
    Counts,
    Creation,
    Delayed,
    Done,
    Error,
    ExecutorInfo,
    Frame,
    Hello,
    Holder,
    Host,
    Limits,
    Location,
    LoopActivity,
    LoopInfo,
    LoopTime,
    Outlived,
    Request,
    ServerMessage,
    SessionRow,
    Snapshot,
    SnapshotRequest,
    Stacks,
    StacksRequest,
    TaskInfo,
    Tasks,
    TasksRequest,
    ThreadCallGroup,
    ThreadStack,
    WaitedFor,
    Waiter,
    WaitGroup,
    Waits,
    WaitsRequest,
    WallTime,
    WatchRequest,
    WorkerInfo,
)


@dataclass(frozen=True, slots=True)
class GoldenFrame:
    """One message, as an object and as a line."""

    name: str
    direction: Literal["to worker", "to client"]
    message: Request | ServerMessage
    line: bytes
    """The line with its newline, as the encoder writes it."""


@dataclass(frozen=True, slots=True)
class RefusedLine:
    """A line that a server must refuse, and the code of the refusal."""

    name: str
    line: bytes
    """The line without its newline."""
    code: str
    id: int | str | None
    """The `id` that the error message must carry."""


_BLOCK = Block(
    seq=3,
    session_id="job-c1d550",
    agent_name="restaurant",
    tenant="acme",
    task_name="Task-12",
    started_at=1760000060.25,
    duration_ms=320.5,
    cause="sync-call",
    location=Location("agents/restaurant.py", 42, "lookup_menu"),
    stack=[
        Location("agents/restaurant.py", 17, "on_user_turn"),
        Location("agents/restaurant.py", 42, "lookup_menu"),
    ],
    delayed=[Delayed("job-77aa01", 305.25)],
)

_HOLDER = Holder(
    session_id="job-77aa01",
    agent_name="frontdesk",
    task_name="Task-9",
    since=1760000088.5,
    location=Location("agents/frontdesk.py", 31, "answer"),
    taken_at=Location("agents/frontdesk.py", 30, "answer"),
    waits="timer",
)

_HELD_UP = Block(
    seq=5,
    session_id="job-c1d550",
    agent_name="restaurant",
    tenant="acme",
    task_name="Task-12",
    started_at=1760000090.0,
    duration_ms=2500.0,
    cause="sync-call",
    location=Location("agents/restaurant.py", 57, "book"),
    waiting_on="threading.Lock",
    holder=_HOLDER,
    delayed=[],
)

_IN_PROGRESS = Block(
    seq=0,
    session_id="job-c1d550",
    agent_name="restaurant",
    tenant="acme",
    started_at=1760000099.5,
    duration_ms=500.0,
    in_progress=True,
    running_since=1760000099.5,
)

_BUSY_WORKER = WorkerInfo(
    name="worker-1",
    pid=4242,
    epoch="5f0c9a3e1b7d4e62",
    loop="asyncio",
    python="3.13.9",
    meter="C",
    started_at=1760000000.0,
    uptime_s=100.0,
    sessions=2,
    max_sessions=50,
    started=7,
    errored=1,
    blocks=4,
    rss_mb=184.5,
    rss_trend_mb_per_min=1.25,
    memory_limit_mb=1024.0,
    loop_time=LoopTime(sessions_pct=51.5, untagged_pct=0.5, gc_pct=0.5, other_pct=1.5, idle_pct=46.0),
    lag_p99_ms=410.0,
    lag_max_ms=500.0,
    lag_method="iterations",
    introspection_pct=0.25,
    host=Host(cpu_pct=12.5, cores=8, load_1m=0.75, process_cpu_pct=54.0, other_threads_pct=1.5, threads=6),
)

_BUSY_ROWS = [
    SessionRow(
        session_id="job-c1d550",
        agent_name="restaurant",
        tenant="acme",
        started_at=1760000010.0,
        duration_s=90.0,
        cpu_pct=50.25,
        cpu_s=1.5,
        steps=2400,
        tasks=3,
        mem_mb=92.25,
        peak_mb=120.0,
        status="blocked",
        blocks=3,
        worst_block_ms=320.5,
        delayed_s=0.0,
        worst_delay_ms=0.0,
    ),
    SessionRow(
        session_id="job-77aa01",
        agent_name="frontdesk",
        started_at=1760000070.0,
        duration_s=30.0,
        cpu_pct=1.25,
        cpu_s=0.375,
        steps=900,
        tasks=1,
        mem_mb=92.25,
        peak_mb=92.25,
        delayed_s=0.30525,
        worst_delay_ms=305.25,
    ),
]

_TWO_LOOPS = WorkerInfo(
    name="worker-3",
    pid=4400,
    epoch="7c3b5a1908f6e4d2",
    loop="uvloop",
    python="3.13.9",
    meter="C",
    started_at=1760000000.0,
    uptime_s=100.0,
    sessions=1,
    started=1,
    blocks=1,
    rss_mb=96.0,
    loop_time=LoopTime(sessions_pct=20.0, untagged_pct=0.5, gc_pct=0.0),
    lag_p99_ms=80.0,
    lag_max_ms=120.0,
    lag_method="iterations",
    loops=[
        LoopInfo(
            name="uvloop-1",
            loop="uvloop",
            thread="MainThread",
            loop_time=LoopTime(sessions_pct=0.0, untagged_pct=1.0, gc_pct=0.0),
        ),
        LoopInfo(
            name="asyncio-2",
            loop="asyncio",
            thread="calls",
            sessions=1,
            loop_time=LoopTime(sessions_pct=40.0, untagged_pct=0.0, gc_pct=0.0, other_pct=2.0, idle_pct=58.0),
            lag_p99_ms=80.0,
            lag_max_ms=120.0,
            lag_method="iterations",
        ),
    ],
)

_UNMETERED_WORKER = WorkerInfo(
    name="worker-2",
    pid=4300,
    epoch="0b1d2f3a4c5e6f70",
    loop="uvloop",
    python="3.11.14",
    meter="Python",
    started_at=1760000000.0,
    uptime_s=0.5,
    cpu="off",
    draining=True,
    rss_mb=64.0,
    notes=["sampler is switched off: OSError(24, 'Too many open files')"],
)

_TASKS = [
    TaskInfo(
        id=1,
        name="Task-12",
        coroutine="entrypoint",
        awaits=[Location("agents/restaurant.py", 18, "entrypoint")],
        waiting_on="task render",
    ),
    TaskInfo(
        id=2,
        name="render",
        coroutine="AgentSession.render",
        awaits=[
            Location("agents/session.py", 210, "AgentSession.render"),
            Location("asyncio/queues.py", 186, "Queue.get"),
        ],
        awaited_by=[1],
    ),
]

_WALL_TIME = WallTime(
    total_s=90.5,
    running_s=1.5,
    delayed_s=0.25,
    queued_s=2.0,
    in_threads_s=10.0,
    waited=[WaitedFor(kind="lock", seconds=54.5), WaitedFor(kind="timer", seconds=21.25)],
    unknown_s=1.0,
)

_WAITS = Waits(
    id=10,
    taken_at=1760000100.5,
    sessions=40,
    tasks=96,
    took_ms=12.5,
    groups=[
        WaitGroup(
            kind="lock",
            what="asyncio.Lock",
            shared=True,
            location=Location("agents/restaurant.py", 57, "book"),
            sessions=37,
            tasks=38,
            stuck=36,
            since=1760000089.0,
            waiters=[
                Waiter(
                    session_id="job-c1d550",
                    agent_name="restaurant",
                    tenant="acme",
                    task_name="Task-12",
                    since=1760000089.0,
                    location=Location("agents/restaurant.py", 57, "book"),
                )
            ],
            holders=[_HOLDER],
        )
    ],
    executors=[
        ExecutorInfo(
            name="default",
            kind="executor",
            max_threads=8,
            busy=8,
            queued=5,
            longest_queued_s=4.25,
            calls=[
                ThreadCallGroup(
                    session_id="job-c1d550",
                    agent_name="restaurant",
                    tenant="acme",
                    function="render_menu",
                    location=Location("agents/menu.py", 12, "render_menu"),
                    running=8,
                    queued=5,
                    longest_running_s=9.5,
                    longest_queued_s=4.25,
                )
            ],
        )
    ],
    loops=[
        LoopActivity(
            name="asyncio",
            iterations_per_s=52000.0,
            steps_per_s=0.0,
            ready=1,
            sampled=400,
            callbacks=[
                CallbackGroup(
                    source="reader",
                    function="Feed._on_readable",
                    location=Location("agents/feed.py", 88, "_on_readable"),
                    fd=21,
                    count=400,
                )
            ],
        )
    ],
    creations=[
        Creation(
            kind="thread",
            location=Location("agents/menu.py", 40, "watch"),
            function="watch_prices",
            session_id="job-c1d550",
            agent_name="restaurant",
            tenant="acme",
            alive=120,
            started=130,
        )
    ],
)

_THREADS = [
    ThreadStack(
        name="MainThread",
        thread_id=139872045,
        loop=True,
        session_id="job-c1d550",
        task_name="Task-12",
        frames=_BLOCK.stack,
    ),
    ThreadStack(
        name="asyncio_0",
        thread_id=139872301,
        frames=[Location("concurrent/futures/thread.py", 90, "_worker")],
    ),
]

_PROCESS_WORKER = WorkerInfo(
    name="worker-4",
    pid=4500,
    epoch="77d20a1f5b3c4e91",
    loop="asyncio",
    python="3.14.1",
    isolation="process",
    started_at=1760000000.0,
    uptime_s=20.0,
    cpu="off",
    sessions=1,
    started=2,
    errored=1,
    rss_mb=92.5,
    host=Host(cpu_pct=12.5, cores=8, load_1m=0.75, process_cpu_pct=0.5, threads=3),
    notes=["process mode"],
)

_PROCESS_ROWS = [
    SessionRow(
        session_id="job-1c33aa",
        agent_name="support",
        tenant="acme",
        started_at=1760000005.0,
        duration_s=15.0,
        cpu_pct=2.5,
        cpu_s=0.75,
        tasks=None,
        mem_mb=48.5,
        peak_mb=50.0,
    ),
    SessionRow(
        session_id="job-9f00e1",
        agent_name="restaurant",
        started_at=1760000004.0,
        duration_s=8.0,
        cpu_pct=0.0,
        cpu_s=0.5,
        tasks=None,
        peak_mb=44.0,
        status="errored",
        error="KeyError: 'menu'",
    ),
]

_EVERYTHING = Frame(
    id="w",
    seq=58,
    taken_at=1760000100.0,
    worker=_BUSY_WORKER,
    share_mb=92.25,
    window_s=1.5,
    rows=_BUSY_ROWS,
)

_CHANGES = Frame(
    id="w",
    seq=60,
    base=58,
    taken_at=1760000101.0,
    worker=replace(
        _BUSY_WORKER,
        outlived=[
            Outlived(
                session_id="job-5b21de",
                agent_name="restaurant",
                tenant="acme",
                ended_at=1760000086.5,
                tasks=1,
                cpu_pct=12.5,
                cpu_s=4.0,
                task_name="prefetch",
                coroutine="Menu.prefetch",
            )
        ],
        iterations_per_s=240.0,
        host=replace(_BUSY_WORKER.host, memory_mb=32768.0, memory_available_mb=20480.5),
        cgroup=Cgroup(
            cpu_limit=2.0,
            cpu_limit_file="/sys/fs/cgroup/cpu.max",
            cpu_throttled_pct=12.5,
            cpu_throttled_s=3.25,
            cpu_pressure_pct=4.75,
            memory_limit_mb=1024.0,
            memory_limit_file="/sys/fs/cgroup/memory.max",
            memory_used_mb=210.5,
            memory_working_set_mb=250.25,
            memory_current_mb=480.0,
            anon_mb=190.0,
            file_mb=260.0,
            kernel_mb=30.0,
            memory_pressure_pct=0.0,
            oom_kills=1,
        ),
    ),
    share_mb=92.25,
    peak_share_mb=92.5,
    window_s=1.5,
    gone=["job-77aa01"],
    counts=[Counts("job-c1d550", 2250000000, 2500, 750000000, 1760000100990000000)],
    rows=[
        SessionRow(
            session_id="job-80b3c2",
            agent_name="frontdesk",
            started_at=1760000100.5,
            duration_s=0.5,
            cpu_pct=12.5,
            cpu_s=0.0625,
            steps=60,
            tasks=1,
            mem_mb=92.25,
            peak_mb=92.25,
            delayed_s=0.0,
            worst_delay_ms=0.0,
            last_step_at=1760000100.75,
            waits="socket",
        )
    ],
)

golden_frames: tuple[GoldenFrame, ...] = (
    GoldenFrame(
        "snapshot request",
        "to worker",
        SnapshotRequest(id=1),
        b'{"type":"snapshot","id":1}\n',
    ),
    GoldenFrame(
        "watch request",
        "to worker",
        WatchRequest(id=2, interval_s=0.5),
        b'{"type":"watch","id":2,"interval_s":0.5}\n',
    ),
    GoldenFrame(
        "cancel request",
        "to worker",
        CancelRequest(id=2),
        b'{"type":"cancel","id":2}\n',
    ),
    GoldenFrame(
        "blocks request",
        "to worker",
        BlocksRequest(id="history", since=2),
        b'{"type":"blocks","id":"history","since":2}\n',
    ),
    GoldenFrame(
        "tasks request",
        "to worker",
        TasksRequest(id=5, session_id="job-c1d550"),
        b'{"type":"tasks","id":5,"session_id":"job-c1d550"}\n',
    ),
    GoldenFrame(
        "stacks request",
        "to worker",
        StacksRequest(id=6),
        b'{"type":"stacks","id":6}\n',
    ),
    GoldenFrame(
        "bye request",
        "to worker",
        ByeRequest(id=4),
        b'{"type":"bye","id":4}\n',
    ),
    GoldenFrame(
        "snapshot request, for changes",
        "to worker",
        SnapshotRequest(id=9, base=58),
        b'{"type":"snapshot","id":9,"base":58}\n',
    ),
    GoldenFrame(
        "watch request, for changes",
        "to worker",
        WatchRequest(id="w", interval_s=1.0, deltas=True),
        b'{"type":"watch","id":"w","interval_s":1.0,"deltas":true}\n',
    ),
    GoldenFrame(
        "waits request",
        "to worker",
        WaitsRequest(id=10),
        b'{"type":"waits","id":10}\n',
    ),
    GoldenFrame(
        "hello",
        "to client",
        Hello(
            protocol="1.3",
            worker="worker-1",
            pid=4242,
            epoch="5f0c9a3e1b7d4e62",
            version="0.1.0",
            capabilities=["snapshot", "watch", "cancel", "blocks", "tasks", "stacks", "waits", "bye", "deltas"],
            limits=Limits(),
        ),
        b'{"type":"hello","protocol":"1.3","worker":"worker-1","pid":4242,"epoch":"5f0c9a3e1b7d4e62",'
        b'"version":"0.1.0","capabilities":["snapshot","watch","cancel","blocks","tasks","stacks","waits","bye","deltas"],'
        b'"limits":{"request_bytes":65536,"clients":32,"watches":8,"min_interval_s":0.1,'
        b'"max_interval_s":60.0,"idle_timeout_s":60.0,"write_timeout_s":5.0}}\n',
    ),
    GoldenFrame(
        "snapshot",
        "to client",
        Snapshot(
            id=1,
            seq=58,
            taken_at=1760000100.0,
            worker=_BUSY_WORKER,
            sessions=_BUSY_ROWS,
            blocks_in_progress=[_IN_PROGRESS],
        ),
        b'{"type":"snapshot","id":1,"seq":58,"taken_at":1760000100.0,"worker":{"name":"worker-1","pid":4242,'
        b'"epoch":"5f0c9a3e1b7d4e62","loop":"asyncio","python":"3.13.9","meter":"C","isolation":"coroutine","started_at":1760000000.0,'
        b'"uptime_s":100.0,"cpu":"exact","memory":"share","slow_session_threshold_ms":50.0,"sessions":2,'
        b'"max_sessions":50,"started":7,"errored":1,"blocks":4,"draining":false,"rss_mb":184.5,'
        b'"rss_trend_mb_per_min":1.25,"memory_limit_mb":1024.0,"loop_time":{"sessions_pct":51.5,'
        b'"untagged_pct":0.5,"gc_pct":0.5,"other_pct":1.5,"idle_pct":46.0},"lag_p99_ms":410.0,'
        b'"lag_max_ms":500.0,"lag_method":"iterations","timed_one_in":1,"introspection_pct":0.25,"left_behind":[],"host":{"cpu_pct":12.5,'
        b'"cores":8,"load_1m":0.75,"process_cpu_pct":54.0,"other_threads_pct":1.5,"threads":6},"notes":[],'
        b'"loops":[]},"sessions":[{"session_id":"job-c1d550","agent_name":"restaurant","tenant":"acme",'
        b'"loop":null,"started_at":1760000010.0,"duration_s":90.0,"cpu_pct":50.25,"cpu_s":1.5,"steps":2400,'
        b'"tasks":3,"mem_mb":92.25,"peak_mb":120.0,"heap_mb":null,"heap_growth_mb_per_min":null,"thread_cpu_s":null,"status":"blocked","error":null,"blocks":3,'
        b'"worst_block_ms":320.5,"delayed_s":0.0,"worst_delay_ms":0.0},{"session_id":"job-77aa01",'
        b'"agent_name":"frontdesk","tenant":null,"loop":null,"started_at":1760000070.0,"duration_s":30.0,'
        b'"cpu_pct":1.25,"cpu_s":0.375,"steps":900,"tasks":1,"mem_mb":92.25,"peak_mb":92.25,"heap_mb":null,"heap_growth_mb_per_min":null,"thread_cpu_s":null,'
        b'"status":"active","error":null,"blocks":0,"worst_block_ms":0.0,"delayed_s":0.30525,"worst_delay_ms":305.25}],'
        b'"blocks_in_progress":[{"seq":0,"session_id":"job-c1d550","agent_name":"restaurant","tenant":"acme",'
        b'"loop":null,"task_name":null,"started_at":1760000099.5,"duration_ms":500.0,"in_progress":true,'
        b'"running_since":1760000099.5,"cause":null,"detail":null,"location":null,"stack":[],"delayed":null}]}\n',
    ),
    GoldenFrame(
        "snapshot of two loops",
        "to client",
        Snapshot(
            id=8,
            seq=12,
            taken_at=1760000100.0,
            worker=_TWO_LOOPS,
            sessions=[
                SessionRow(
                    session_id="call-7",
                    agent_name="frontdesk",
                    loop="asyncio-2",
                    started_at=1760000090.0,
                    duration_s=10.0,
                    cpu_pct=40.0,
                    cpu_s=4.5,
                    steps=1200,
                    tasks=2,
                    mem_mb=96.0,
                    peak_mb=96.0,
                    blocks=1,
                    worst_block_ms=120.0,
                    delayed_s=0.0,
                    worst_delay_ms=0.0,
                )
            ],
        ),
        b'{"type":"snapshot","id":8,"seq":12,"taken_at":1760000100.0,"worker":{"name":"worker-3","pid":4400,'
        b'"epoch":"7c3b5a1908f6e4d2","loop":"uvloop","python":"3.13.9","meter":"C","isolation":"coroutine","started_at":1760000000.0,'
        b'"uptime_s":100.0,"cpu":"exact","memory":"share","slow_session_threshold_ms":50.0,"sessions":1,'
        b'"max_sessions":0,"started":1,"errored":0,"blocks":1,"draining":false,"rss_mb":96.0,'
        b'"rss_trend_mb_per_min":null,"memory_limit_mb":0.0,"loop_time":{"sessions_pct":20.0,"untagged_pct":0.5,'
        b'"gc_pct":0.0,"other_pct":null,"idle_pct":null},"lag_p99_ms":80.0,"lag_max_ms":120.0,'
        b'"lag_method":"iterations","timed_one_in":1,"introspection_pct":null,"left_behind":[],"host":{"cpu_pct":null,"cores":1,"load_1m":null,'
        b'"process_cpu_pct":null,"other_threads_pct":null,"threads":0},"notes":[],"loops":[{"name":"uvloop-1",'
        b'"loop":"uvloop","thread":"MainThread","sessions":0,"loop_time":{"sessions_pct":0.0,"untagged_pct":1.0,'
        b'"gc_pct":0.0,"other_pct":null,"idle_pct":null},"lag_p99_ms":null,"lag_max_ms":null,"lag_method":null},'
        b'{"name":"asyncio-2","loop":"asyncio","thread":"calls","sessions":1,"loop_time":{"sessions_pct":40.0,'
        b'"untagged_pct":0.0,"gc_pct":0.0,"other_pct":2.0,"idle_pct":58.0},"lag_p99_ms":80.0,"lag_max_ms":120.0,'
        b'"lag_method":"iterations"}]},"sessions":[{"session_id":"call-7","agent_name":"frontdesk",'
        b'"tenant":null,"loop":"asyncio-2","started_at":1760000090.0,"duration_s":10.0,"cpu_pct":40.0,'
        b'"cpu_s":4.5,"steps":1200,"tasks":2,"mem_mb":96.0,"peak_mb":96.0,"heap_mb":null,"heap_growth_mb_per_min":null,"thread_cpu_s":null,"status":"active","error":null,'
        b'"blocks":1,"worst_block_ms":120.0,"delayed_s":0.0,"worst_delay_ms":0.0}],"blocks_in_progress":[]}\n',
    ),
    GoldenFrame(
        "snapshot of a watch, without sessions",
        "to client",
        Snapshot(id=2, seq=1, taken_at=1760000000.5, worker=_UNMETERED_WORKER),
        b'{"type":"snapshot","id":2,"seq":1,"taken_at":1760000000.5,"worker":{"name":"worker-2","pid":4300,'
        b'"epoch":"0b1d2f3a4c5e6f70","loop":"uvloop","python":"3.11.14","meter":"Python","isolation":"coroutine","started_at":1760000000.0,'
        b'"uptime_s":0.5,"cpu":"off","memory":"share","slow_session_threshold_ms":50.0,"sessions":0,'
        b'"max_sessions":0,"started":0,"errored":0,"blocks":0,"draining":true,"rss_mb":64.0,'
        b'"rss_trend_mb_per_min":null,"memory_limit_mb":0.0,"loop_time":{"sessions_pct":null,'
        b'"untagged_pct":null,"gc_pct":null,"other_pct":null,"idle_pct":null},"lag_p99_ms":null,'
        b'"lag_max_ms":null,"lag_method":null,"timed_one_in":1,"introspection_pct":null,"left_behind":[],"host":{"cpu_pct":null,"cores":1,'
        b'"load_1m":null,"process_cpu_pct":null,"other_threads_pct":null,"threads":0},'
        b'"notes":["sampler is switched off: OSError(24, \'Too many open files\')"],"loops":[]},"sessions":[],'
        b'"blocks_in_progress":[]}\n',
    ),
    GoldenFrame(
        "snapshot in process mode, with an errored session",
        "to client",
        Snapshot(id=3, seq=12, taken_at=1760000020.0, worker=_PROCESS_WORKER, sessions=_PROCESS_ROWS),
        b'{"type":"snapshot","id":3,"seq":12,"taken_at":1760000020.0,"worker":{"name":"worker-4","pid":4500,'
        b'"epoch":"77d20a1f5b3c4e91","loop":"asyncio","python":"3.14.1","meter":null,"isolation":"process",'
        b'"started_at":1760000000.0,"uptime_s":20.0,"cpu":"off","memory":"share",'
        b'"slow_session_threshold_ms":50.0,"sessions":1,"max_sessions":0,"started":2,"errored":1,"blocks":0,'
        b'"draining":false,"rss_mb":92.5,"rss_trend_mb_per_min":null,"memory_limit_mb":0.0,'
        b'"loop_time":{"sessions_pct":null,"untagged_pct":null,"gc_pct":null,"other_pct":null,'
        b'"idle_pct":null},"lag_p99_ms":null,"lag_max_ms":null,"lag_method":null,"timed_one_in":1,"introspection_pct":null,'
        b'"left_behind":[],"host":{"cpu_pct":12.5,"cores":8,"load_1m":0.75,"process_cpu_pct":0.5,'
        b'"other_threads_pct":null,"threads":3},"notes":["process mode"],"loops":[]},'
        b'"sessions":[{"session_id":"job-1c33aa","agent_name":"support","tenant":"acme","loop":null,'
        b'"started_at":1760000005.0,"duration_s":15.0,"cpu_pct":2.5,"cpu_s":0.75,"steps":null,"tasks":null,'
        b'"mem_mb":48.5,"peak_mb":50.0,"heap_mb":null,"heap_growth_mb_per_min":null,"thread_cpu_s":null,'
        b'"status":"active","error":null,"blocks":0,"worst_block_ms":0.0,"delayed_s":null,'
        b'"worst_delay_ms":null},{"session_id":"job-9f00e1","agent_name":"restaurant","tenant":null,'
        b'"loop":null,"started_at":1760000004.0,"duration_s":8.0,"cpu_pct":0.0,"cpu_s":0.5,"steps":null,'
        b'"tasks":null,"mem_mb":0.0,"peak_mb":44.0,"heap_mb":null,"heap_growth_mb_per_min":null,'
        b'"thread_cpu_s":null,"status":"errored","error":"KeyError: \'menu\'","blocks":0,"worst_block_ms":0.0,'
        b'"delayed_s":null,"worst_delay_ms":null}],"blocks_in_progress":[]}\n',
    ),
    GoldenFrame(
        "frame of everything",
        "to client",
        _EVERYTHING,
        b'{"type":"frame","id":"w","seq":58,"base":null,"taken_at":1760000100.0,"worker":{"name":"worker-1",'
        b'"pid":4242,"epoch":"5f0c9a3e1b7d4e62","loop":"asyncio","python":"3.13.9","meter":"C","isolation":"coroutine",'
        b'"started_at":1760000000.0,"uptime_s":100.0,"cpu":"exact","memory":"share",'
        b'"slow_session_threshold_ms":50.0,"sessions":2,"max_sessions":50,"started":7,"errored":1,"blocks":4,'
        b'"draining":false,"rss_mb":184.5,"rss_trend_mb_per_min":1.25,"memory_limit_mb":1024.0,'
        b'"loop_time":{"sessions_pct":51.5,"untagged_pct":0.5,"gc_pct":0.5,"other_pct":1.5,"idle_pct":46.0},'
        b'"lag_p99_ms":410.0,"lag_max_ms":500.0,"lag_method":"iterations","timed_one_in":1,'
        b'"introspection_pct":0.25,"left_behind":[],"host":{"cpu_pct":12.5,"cores":8,"load_1m":0.75,'
        b'"process_cpu_pct":54.0,"other_threads_pct":1.5,"threads":6},"notes":[],"loops":[]},'
        b'"blocks_in_progress":[],"share_mb":92.25,"peak_share_mb":null,"window_s":1.5,"gone":[],"counts":[],'
        b'"rows":[{"session_id":"job-c1d550","agent_name":"restaurant","tenant":"acme","loop":null,'
        b'"started_at":1760000010.0,"duration_s":90.0,"cpu_pct":50.25,"cpu_s":1.5,"steps":2400,"tasks":3,'
        b'"mem_mb":92.25,"peak_mb":120.0,"heap_mb":null,"heap_growth_mb_per_min":null,"thread_cpu_s":null,'
        b'"status":"blocked","error":null,"blocks":3,"worst_block_ms":320.5,"delayed_s":0.0,"worst_delay_ms":0.0},'
        b'{"session_id":"job-77aa01","agent_name":"frontdesk","tenant":null,"loop":null,"started_at":1760000070.0,'
        b'"duration_s":30.0,"cpu_pct":1.25,"cpu_s":0.375,"steps":900,"tasks":1,"mem_mb":92.25,"peak_mb":92.25,'
        b'"heap_mb":null,"heap_growth_mb_per_min":null,"thread_cpu_s":null,"status":"active","error":null,'
        b'"blocks":0,"worst_block_ms":0.0,"delayed_s":0.30525,"worst_delay_ms":305.25}]}\n',
    ),
    GoldenFrame(
        "frame of changes",
        "to client",
        _CHANGES,
        b'{"type":"frame","id":"w","seq":60,"base":58,"taken_at":1760000101.0,"worker":{"name":"worker-1",'
        b'"pid":4242,"epoch":"5f0c9a3e1b7d4e62","loop":"asyncio","python":"3.13.9","meter":"C",'
        b'"isolation":"coroutine","started_at":1760000000.0,"uptime_s":100.0,"cpu":"exact","memory":"share",'
        b'"slow_session_threshold_ms":50.0,"sessions":2,"max_sessions":50,"started":7,"errored":1,"blocks":4,'
        b'"draining":false,"rss_mb":184.5,"rss_trend_mb_per_min":1.25,"memory_limit_mb":1024.0,'
        b'"loop_time":{"sessions_pct":51.5,"untagged_pct":0.5,"gc_pct":0.5,"other_pct":1.5,"idle_pct":46.0},'
        b'"lag_p99_ms":410.0,"lag_max_ms":500.0,"lag_method":"iterations","timed_one_in":1,'
        b'"introspection_pct":0.25,"left_behind":[],"outlived":[{"session_id":"job-5b21de",'
        b'"agent_name":"restaurant","tenant":"acme","ended_at":1760000086.5,"tasks":1,"cpu_pct":12.5,'
        b'"cpu_s":4.0,"task_name":"prefetch","coroutine":"Menu.prefetch"}],"iterations_per_s":240.0,'
        b'"host":{"cpu_pct":12.5,"cores":8,"load_1m":0.75,"process_cpu_pct":54.0,"other_threads_pct":1.5,'
        b'"threads":6,"memory_mb":32768.0,"memory_available_mb":20480.5},"cgroup":{"cpu_limit":2.0,'
        b'"cpu_limit_file":"/sys/fs/cgroup/cpu.max","cpu_throttled_pct":12.5,"cpu_throttled_s":3.25,'
        b'"cpu_pressure_pct":4.75,"memory_limit_mb":1024.0,"memory_limit_file":"/sys/fs/cgroup/memory.max",'
        b'"memory_used_mb":210.5,"memory_working_set_mb":250.25,"memory_current_mb":480.0,"anon_mb":190.0,'
        b'"file_mb":260.0,"kernel_mb":30.0,"memory_pressure_pct":0.0,"oom_kills":1},"notes":[],"loops":[]},'
        b'"blocks_in_progress":[],"share_mb":92.25,"peak_share_mb":92.5,'
        b'"window_s":1.5,"gone":["job-77aa01"],"counts":[["job-c1d550",2250000000,2500,750000000,'
        b'1760000100990000000]],"rows":[{"session_id":"job-80b3c2","agent_name":"frontdesk","tenant":null,'
        b'"loop":null,"started_at":1760000100.5,"duration_s":0.5,"cpu_pct":12.5,"cpu_s":0.0625,"steps":60,'
        b'"tasks":1,"mem_mb":92.25,"peak_mb":92.25,"heap_mb":null,"heap_growth_mb_per_min":null,'
        b'"thread_cpu_s":null,"status":"active","error":null,"blocks":0,"worst_block_ms":0.0,"delayed_s":0.0,'
        b'"worst_delay_ms":0.0,"last_step_at":1760000100.75,"waits":"socket"}]}\n',
    ),
    GoldenFrame(
        "blocks",
        "to client",
        Blocks(
            id="history", blocks=[_BLOCK, Block(seq=4, started_at=1760000080.0, duration_ms=75.0), _HELD_UP], last_seq=5
        ),
        b'{"type":"blocks","id":"history","blocks":[{"seq":3,"session_id":"job-c1d550",'
        b'"agent_name":"restaurant","tenant":"acme","loop":null,"task_name":"Task-12",'
        b'"started_at":1760000060.25,"duration_ms":320.5,"in_progress":false,"running_since":null,'
        b'"cause":"sync-call","detail":null,"location":{"file":"agents/restaurant.py","line":42,'
        b'"function":"lookup_menu"},"stack":[{"file":"agents/restaurant.py","line":17,'
        b'"function":"on_user_turn"},{"file":"agents/restaurant.py","line":42,"function":"lookup_menu"}],'
        b'"waiting_on":null,"holder":null,"delayed":[{"session_id":"job-77aa01","delayed_ms":305.25,'
        b'"exact":true}]},{"seq":4,"session_id":null,"agent_name":null,"tenant":null,"loop":null,'
        b'"task_name":null,"started_at":1760000080.0,"duration_ms":75.0,"in_progress":false,'
        b'"running_since":null,"cause":null,"detail":null,"location":null,"stack":[],"waiting_on":null,'
        b'"holder":null,"delayed":null},{"seq":5,"session_id":"job-c1d550","agent_name":"restaurant",'
        b'"tenant":"acme","loop":null,"task_name":"Task-12","started_at":1760000090.0,"duration_ms":2500.0,'
        b'"in_progress":false,"running_since":null,"cause":"sync-call","detail":null,'
        b'"location":{"file":"agents/restaurant.py","line":57,"function":"book"},"stack":[],'
        b'"waiting_on":"threading.Lock","holder":{"session_id":"job-77aa01","agent_name":"frontdesk",'
        b'"tenant":null,"task_name":"Task-9","thread":null,"since":1760000088.5,'
        b'"location":{"file":"agents/frontdesk.py","line":31,"function":"answer"},'
        b'"taken_at":{"file":"agents/frontdesk.py","line":30,"function":"answer"},"waits":"timer",'
        b'"certain":true},"delayed":[]}],"last_seq":5}\n',
    ),
    GoldenFrame(
        "blocks, none",
        "to client",
        Blocks(id=3),
        b'{"type":"blocks","id":3,"blocks":[],"last_seq":0}\n',
    ),
    GoldenFrame(
        "tasks",
        "to client",
        Tasks(id=5, session_id="job-c1d550", taken_at=1760000100.5, tasks=_TASKS, wall_time=_WALL_TIME),
        b'{"type":"tasks","id":5,"session_id":"job-c1d550","taken_at":1760000100.5,"tasks":[{"id":1,'
        b'"name":"Task-12","coroutine":"entrypoint","state":"waiting",'
        b'"awaits":[{"file":"agents/restaurant.py","line":18,"function":"entrypoint"}],'
        b'"waiting_on":"task render","awaited_by":[]},{"id":2,"name":"render",'
        b'"coroutine":"AgentSession.render","state":"waiting","awaits":[{"file":"agents/session.py",'
        b'"line":210,"function":"AgentSession.render"},{"file":"asyncio/queues.py","line":186,'
        b'"function":"Queue.get"}],"waiting_on":null,"awaited_by":[1]}],"truncated":false,'
        b'"wall_time":{"total_s":90.5,"running_s":1.5,"delayed_s":0.25,"queued_s":2.0,"in_threads_s":10.0,'
        b'"waited":[{"kind":"lock","seconds":54.5},{"kind":"timer","seconds":21.25}],"unknown_s":1.0}}\n',
    ),
    GoldenFrame(
        "stacks",
        "to client",
        Stacks(id=6, taken_at=1760000100.75, threads=_THREADS),
        b'{"type":"stacks","id":6,"taken_at":1760000100.75,"threads":[{"name":"MainThread","thread_id":139872045,'
        b'"loop":true,"session_id":"job-c1d550","task_name":"Task-12","frames":[{"file":"agents/restaurant.py",'
        b'"line":17,"function":"on_user_turn"},{"file":"agents/restaurant.py","line":42,"function":"lookup_menu"}]},'
        b'{"name":"asyncio_0","thread_id":139872301,"loop":false,"session_id":null,"task_name":null,'
        b'"frames":[{"file":"concurrent/futures/thread.py","line":90,"function":"_worker"}]}]}\n',
    ),
    GoldenFrame(
        "done",
        "to client",
        Done(id=2),
        b'{"type":"done","id":2}\n',
    ),
    GoldenFrame(
        "bad-json",
        "to client",
        Error(code="bad-json", message="not a JSON object on one line: Input data was truncated"),
        b'{"type":"error","id":null,"code":"bad-json",'
        b'"message":"not a JSON object on one line: Input data was truncated"}\n',
    ),
    GoldenFrame(
        "bad-request",
        "to client",
        Error(id=5, code="bad-request", message="Expected `float` >= 0.1 - at `$.interval_s`"),
        b'{"type":"error","id":5,"code":"bad-request","message":"Expected `float` >= 0.1 - at `$.interval_s`"}\n',
    ),
    GoldenFrame(
        "unsupported",
        "to client",
        Error(
            id=6,
            code="unsupported",
            message="request type 'profile' is not one of blocks, bye, cancel, snapshot, stacks, tasks, waits, watch",
        ),
        b'{"type":"error","id":6,"code":"unsupported",'
        b'"message":"request type \'profile\' is not one of blocks,'
        b' bye, cancel, snapshot, stacks, tasks, waits, watch"}\n',
    ),
    GoldenFrame(
        "not-found",
        "to client",
        Error(id=8, code="not-found", message="no live session has the id 'job-gone'"),
        b'{"type":"error","id":8,"code":"not-found","message":"no live session has the id \'job-gone\'"}\n',
    ),
    GoldenFrame(
        "line-too-long",
        "to client",
        Error(code="line-too-long", message="a line of more than 65536 bytes, the longest that is read"),
        b'{"type":"error","id":null,"code":"line-too-long","message":"a line of more than 65536 bytes,'
        b' the longest that is read"}\n',
    ),
    GoldenFrame(
        "too-many-clients",
        "to client",
        Error(code="too-many-clients", message="32 clients are connected already: close one, then connect again"),
        b'{"type":"error","id":null,"code":"too-many-clients",'
        b'"message":"32 clients are connected already: close one, then connect again"}\n',
    ),
    GoldenFrame(
        "too-many-watches",
        "to client",
        Error(id=9, code="too-many-watches", message="this connection has 8 watches already: cancel one first"),
        b'{"type":"error","id":9,"code":"too-many-watches",'
        b'"message":"this connection has 8 watches already: cancel one first"}\n',
    ),
    GoldenFrame(
        "internal",
        "to client",
        Error(id=7, code="internal", message="RuntimeError: the worker is closing"),
        b'{"type":"error","id":7,"code":"internal","message":"RuntimeError: the worker is closing"}\n',
    ),
    GoldenFrame(
        "waits",
        "to client",
        _WAITS,
        b'{"type":"waits","id":10,"taken_at":1760000100.5,"sessions":40,"tasks":96,"not_looked_at":0,'
        b'"took_ms":12.5,"groups":[{"kind":"lock","what":"asyncio.Lock","shared":true,'
        b'"location":{"file":"agents/restaurant.py","line":57,"function":"book"},"sessions":37,"tasks":38,'
        b'"stuck":36,"since":1760000089.0,"waiters":[{"session_id":"job-c1d550","agent_name":"restaurant",'
        b'"tenant":"acme","task_name":"Task-12","since":1760000089.0,'
        b'"location":{"file":"agents/restaurant.py","line":57,"function":"book"}}],'
        b'"holders":[{"session_id":"job-77aa01","agent_name":"frontdesk","tenant":null,"task_name":"Task-9",'
        b'"thread":null,"since":1760000088.5,"location":{"file":"agents/frontdesk.py","line":31,'
        b'"function":"answer"},"taken_at":{"file":"agents/frontdesk.py","line":30,"function":"answer"},'
        b'"waits":"timer","certain":true}]}],"executors":[{"name":"default","kind":"executor","loop":null,'
        b'"max_threads":8,"busy":8,"queued":5,"longest_queued_s":4.25,"calls":[{"session_id":"job-c1d550",'
        b'"agent_name":"restaurant","tenant":"acme","function":"render_menu",'
        b'"location":{"file":"agents/menu.py","line":12,"function":"render_menu"},"running":8,"queued":5,'
        b'"longest_running_s":9.5,"longest_queued_s":4.25}]}],"loops":[{"name":"asyncio",'
        b'"iterations_per_s":52000.0,"steps_per_s":0.0,"ready":1,"asleep_since":null,"sampled":400,'
        b'"callbacks":[{"source":"reader","function":"Feed._on_readable","location":{"file":"agents/feed.py",'
        b'"line":88,"function":"_on_readable"},"session_id":null,"agent_name":null,"tenant":null,"fd":21,'
        b'"peer":null,"thread":null,"count":400}]}],"creations":[{"kind":"thread",'
        b'"location":{"file":"agents/menu.py","line":40,"function":"watch"},"function":"watch_prices",'
        b'"session_id":"job-c1d550","agent_name":"restaurant","tenant":"acme","alive":120,"started":130}]}\n',
    ),
)

refused_lines: tuple[RefusedLine, ...] = (
    RefusedLine("no JSON", b"hello", "bad-json", None),
    RefusedLine("half an object", b'{"type":"snapshot","id":1', "bad-json", None),
    RefusedLine("two objects", b'{"type":"snapshot","id":1}{"type":"bye","id":2}', "bad-json", None),
    RefusedLine("invalid UTF-8", b'{"type":"snapshot","id":"\xff"}', "bad-json", None),
    RefusedLine("half a surrogate pair", b'{"type":"snapshot","id":"\\ud800"}', "bad-json", None),
    RefusedLine("NaN", b'{"type":"watch","id":1,"interval_s":NaN}', "bad-json", None),
    RefusedLine("no object", b"[1]", "bad-request", None),
    RefusedLine("no id", b'{"type":"snapshot"}', "bad-request", None),
    RefusedLine("null as id", b'{"type":"snapshot","id":null}', "bad-request", None),
    RefusedLine("a fraction as id", b'{"type":"snapshot","id":1.5}', "bad-request", None),
    RefusedLine("a boolean as id", b'{"type":"snapshot","id":true}', "bad-request", None),
    RefusedLine("an id of 65 characters", b'{"type":"snapshot","id":"' + 65 * b"x" + b'"}', "bad-request", None),
    RefusedLine("an id of 64 bits", b'{"type":"snapshot","id":9223372036854775808}', "bad-request", None),
    RefusedLine("an id of 5,000 digits", b'{"type":"snapshot","id":' + 5000 * b"9" + b"}", "bad-request", None),
    RefusedLine("no type", b'{"id":3}', "bad-request", 3),
    RefusedLine("a number as type", b'{"type":3,"id":"x"}', "bad-request", "x"),
    RefusedLine("a reply as request", b'{"type":"hello","id":4}', "unsupported", 4),
    RefusedLine("an unknown type", b'{"type":"profile","id":5,"session_id":"job-1"}', "unsupported", 5),
    RefusedLine("tasks of no session", b'{"type":"tasks","id":12}', "bad-request", 12),
    RefusedLine("text as interval", b'{"type":"watch","id":6,"interval_s":"1"}', "bad-request", 6),
    RefusedLine("too short an interval", b'{"type":"watch","id":7,"interval_s":0.09}', "bad-request", 7),
    RefusedLine("too long an interval", b'{"type":"watch","id":8,"interval_s":61}', "bad-request", 8),
    RefusedLine("an endless interval", b'{"type":"watch","id":9,"interval_s":1e999}', "bad-request", 9),
    RefusedLine("a negative since", b'{"type":"blocks","id":10,"since":-1}', "bad-request", 10),
    RefusedLine("a fraction as since", b'{"type":"blocks","id":11,"since":0.5}', "bad-request", 11),
)
