from collections import deque
from collections.abc import Callable, Coroutine
from contextvars import ContextVar
from types import CodeType
from typing import Any

VERSION: str
SOURCES: str

class AccountFields:
    session: Any
    busy: float
    last_step: float
    steps: int
    heap: int
    tasks: int
    label: bytes | None

class LedgerFields:
    clock: Callable[[], float]
    get: Callable[[None], Any]
    binding: ContextVar[Any]
    unsampled: Any
    untagged: Any
    holder: Any
    holder_since: float
    step_since: float | None
    parts: dict[Any, float]
    idle: float | None
    steps_until_sample: int
    slow_path: bool
    switched: bool
    heap: Any
    sampling: Any
    weight: int

class IterationsFields:
    ledger: Any
    after_block: Callable[[Any], None] | None
    sample: Any
    busy_since: float | None
    waiting_since: float
    count: int
    wakes_watchdog: bool

class CreationFields:
    known_factory: Any
    direct: bool

class SamplerFields:
    usage: Any
    interval: float
    awake: bool
    due: float | None
    when: float | None
    cpu_s: float | None
    run_delay_s: float | None
    process_s: float | None
    idle: float | None
    thread_id: int
    native_id: int
    def __init__(
        self, ledger: LedgerFields, iterations: IterationsFields, parked: Any, usage: Any, interval: float, /
    ) -> None: ...
    def take_mark(self, since: float, now: float, /) -> bool: ...
    def watch_without_gil(
        self,
        limit: float,
        folders: bytes,
        stall_log: int,
        box: int,
        offset: int,
        slot_bytes: int,
        /,
    ) -> None: ...
    def stop_watching(self) -> None: ...

class HeapFields:
    on: bool
    sampling_period: int

class HeapReaderFields:
    raw: Callable[[], int]
    times: deque[float]
    random: Callable[[], float]
    last: int
    given_back: int
    weight: int
    due: int
    untimed: int
    spent_s: float
    sampled: bool
    def draw(self) -> bool: ...
    def __call__(self) -> int: ...

class StepHeap:
    reader: Any
    exited_scope: Any
    at: int
    charged: int
    charged_elsewhere: int
    def open(self) -> None: ...
    def charge(self, holder: AccountFields) -> None: ...
    def close(self, holder: AccountFields) -> None: ...

class TrioSteps:
    stepping: Any
    began: float | None
    meters: bool
    stepped: bool
    def before_task_step(self, task: Any) -> None: ...
    def after_task_step(self, task: Any) -> None: ...
    def before_io_wait(self, timeout: float) -> None: ...
    def after_io_wait(self, timeout: float) -> None: ...

class TrioCalls:
    def call(self, name: str, *args: Any) -> None: ...
    def __contains__(self, name: object) -> bool: ...

class Collections:
    began: float | None
    thread_id: int
    def __init__(self, monitor: Any, clock: Callable[[], float]) -> None: ...
    def __call__(self, phase: str, info: dict[str, Any]) -> None: ...

class MeteredCoroutine:
    coro: Coroutine[Any, Any, Any]
    tag: Any
    stepped_at: float | None
    def __init__(self, coro: Coroutine[Any, Any, Any], ledger: LedgerFields, tag: AccountFields) -> None: ...
    def send(self, value: Any) -> Any: ...
    def throw(self, *error: Any) -> Any: ...
    def close(self) -> None: ...
    def unmeter(self) -> None: ...

class CreateTask:
    def __init__(
        self,
        creation: CreationFields,
        ledger: LedgerFields,
        loop_type: type,
        below: Callable[..., Any] | None,
        get_factory: Callable[[], Any] | None,
        slowly: Callable[..., Any],
    ) -> None: ...
    def __call__(self, loop: Any, coro: Any, **kwargs: Any) -> Any: ...

class Select:
    def __init__(
        self,
        iterations: IterationsFields,
        creation: CreationFields,
        loop: Any,
        adopted: dict[int, Any],
        steps: Any,
        limit: float,
        below: Callable[..., Any],
        takes_selector: bool,
    ) -> None: ...
    def __call__(self, selector: Any, timeout: float | None = None) -> Any: ...

class Poll:
    epoll: Any
    def __init__(
        self,
        iterations: IterationsFields,
        creation: CreationFields,
        loop: Any,
        adopted: dict[int, Any],
        steps: Any,
        limit: float,
        epoll: Any,
    ) -> None: ...

glibc_in_use: Callable[[], int] | None
jemalloc_in_use: Callable[[], int] | None
tcmalloc_in_use: Callable[[], int] | None

def traced_in_use() -> int: ...
def rebound() -> None: ...
def replace_coro(task: Any, driven: Any, by: Any, /) -> bool: ...
def ticks(wanted: bool | None) -> bool: ...
def now(ledger: LedgerFields) -> float: ...
def run_delay(schedstat: int) -> float | None: ...
def own_stack() -> tuple[tuple[str, int, str], ...] | None: ...
def suspended_at(suspended: Any, code: CodeType, /) -> int | None: ...
def gil_known() -> bool: ...
def samples_without_gil(
    sampler: SamplerFields, since: float, until: float, /
) -> list[tuple[float, float, int, tuple[tuple[str, int, str], ...]]]: ...
def stall_thread_cpu_s() -> float: ...
def watchdog_woken() -> None: ...
def watchdog_awake() -> None: ...
def watchdog_resting() -> None: ...
def pause_watchdog(seconds: float, own_schedstat: int | None, /) -> tuple[float, float, bool]: ...
def gil_wanted_s(since: float, /) -> float: ...
def had_gil_alone(thread_id: int, under_way: bool, /) -> bool: ...
def quiet_ticks(sampler: Any, own_schedstat: int | None, most: int, /) -> tuple[float, float, bool] | None: ...
def interrupt_ticks(wanted: bool, /) -> None: ...
