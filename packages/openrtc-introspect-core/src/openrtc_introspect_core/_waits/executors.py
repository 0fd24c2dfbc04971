"""The pools of threads that loops hand calls to: how full they are, and with whose calls.

A session's calls are known from introspection's own records, exactly. Of the calls without a session, those that run
are read from the threads' stacks, and those that wait from the executor's queue or the limiter. All is read on demand.
"""

from __future__ import annotations

import concurrent.futures
import threading
from collections.abc import Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures.thread import _worker
from types import CodeType, CoroutineType
from typing import Any, Literal

from .._accounting.called_function import first_line_of, name_of
from .._accounting.thread_calls import ThreadCall, ThreadCalls
from .._accounting.thread_pools import ThreadPool
from .._base.gil import has_gil, yield_gil
from .._os.stacks import Call, Places, frames_now, take
from ..wire._messages import ExecutorInfo
from .call_groups import CallGroups
from .limiters import limiter_of, waiting_on_trio
from .locks import attribute
from .work_queue import queued_count, queued_functions

BEGINS: Collection[CodeType] = frozenset(
    {ThreadCall.__call__.__code__, concurrent.futures.thread._WorkItem.run.__code__}
)
"""The code whose frame is right outside of a call's own frames."""

_EXECUTOR_FILE = concurrent.futures.thread.__file__

_THREADS_PER_YIELD = 16
"""Threads whose stacks are read before another thread may have the GIL."""

_STATES: Mapping[str, Literal["queued", "running"]] = {"PENDING": "queued", "RUNNING": "running"}


def state_of(future: object) -> Literal["queued", "running"] | None:
    """Return the state of a call that an executor was given. From any thread, and cheap.

    future: what `Executor.submit` returned. None: it has ended, or is no such future. A future that was not made by an
    executor, as that of `asyncio.run_coroutine_threadsafe`, is "queued" until it has ended.
    """
    if not isinstance(future, concurrent.futures.Future):
        return None
    return _STATES.get(vars(future).get("_state", ""))


def executors(calls: ThreadCalls, loops: Mapping[int, str], places: Places) -> list[ExecutorInfo]:
    """Return the pools of threads, the loops' own executors first. From any thread, in slices.

    loops: the loops' names by the identity of their ledgers; empty if the worker has one loop only.
    """
    waiting, running = calls.waiting(), calls.running()
    _find_own(calls, (*waiting, *running))
    described = []
    for pool in sorted(calls.pools, key=lambda pool: (not pool.default, pool.kind)):
        ours = [call for call in waiting if call.pool is pool], [call for call in running if call.pool is pool]
        described.append(_describe(pool, *ours, calls, loops, places))
        yield_gil()
    return [each for each in described if each is not None]


def _describe(
    pool: ThreadPool,
    waiting: list[ThreadCall],
    running: list[ThreadCall],
    calls: ThreadCalls,
    loops: Mapping[int, str],
    places: Places,
) -> ExecutorInfo | None:
    target = pool.target
    if target is None and not waiting and not running:
        return None  # it is gone, or was never used
    groups = CallGroups(calls.clock(), places)
    seen = _stacks({call.thread_id for call in running})
    for call in running:
        groups.add_running(call.session, call.function, call.start, seen.get(call.thread_id, ()), first_line_of(call))
    for call in waiting:
        groups.add_queued(call.session, call.function, call.submitted, first_line_of(call))
    busy, queued, most = len(running), len(waiting), None
    if pool.kind == "executor" and isinstance(target, ThreadPoolExecutor):
        busy, queued, most = _of_executor(target, running, waiting, calls, groups)
    elif target is not None and (limiter := limiter_of(target)) is not None:
        most = limiter.total
        busy, queued = max(limiter.borrowed, busy), max(limiter.waiting, queued)
        _add_unbound(pool, target, calls, groups)
    return ExecutorInfo(
        name=_name_of(pool, target),
        kind=pool.kind,
        loop=loops.get(id(pool.ledger)),
        max_threads=most,
        busy=busy,
        queued=queued,
        longest_queued_s=groups.longest_queued_s,
        calls=groups.listed(),
    )


def _of_executor(
    executor: ThreadPoolExecutor,
    running: list[ThreadCall],
    waiting: list[ThreadCall],
    calls: ThreadCalls,
    groups: CallGroups,
) -> tuple[int, int, int | None]:
    """Return (busy threads, queued calls, most threads) of an executor. Add the calls that are no session's."""
    most = attribute(executor, "_max_workers")
    most = most if isinstance(most, int) else None
    threads = [thread.ident for thread in tuple(attribute(executor, "_threads") or ()) if thread.ident is not None]
    if not has_gil():
        queued = max(queued_count(executor), len(waiting))
        return max(len(running), len(threads) if queued else 0), queued, most
    ours = {call.thread_id for call in running}
    others = _stacks(set(threads) - ours)
    for seen in others.values():
        own = [call for call in seen if call.file != _EXECUTOR_FILE]
        groups.add_running(None, own[-1].function if own else "", None, own)
    unbound = 0
    for func in queued_functions(executor):
        if not _is_of(func, calls):
            unbound += 1
            groups.add_queued(None, name_of(func), None, first_line_of(func))
    return len(running) + len(others), len(waiting) + unbound, most


def _is_of(func: Any, calls: ThreadCalls) -> bool:
    """Return whether this is a session's call that these records know; another introspector's may be around it."""
    while type(func) is ThreadCall:
        if func._calls is calls:
            return True
        func = func._func
    return False


def _add_unbound(pool: ThreadPool, limiter: Any, calls: ThreadCalls, groups: CallGroups) -> None:
    """Add the calls without a session that a limiter lets wait, or run."""
    if pool.kind == "trio" and pool.ledger is not None:
        for waiting in waiting_on_trio(limiter, pool.ledger.binding):
            groups.add_queued(waiting.session, name_of(waiting.func), None, first_line_of(waiting.func))
    for owner, call in calls.unbound():
        if call.pool is pool:
            name, first_line = name_of(call.func), first_line_of(call.func)
            # anyio's coroutine awaits that of the limiter, or the future of a call that runs.
            if type(owner) is CoroutineType and type(owner.cr_await) is CoroutineType:
                groups.add_queued(None, name, call.submitted, first_line)
            else:
                groups.add_running(None, name, None, first_line=first_line)


def _stacks(thread_ids: Collection[int]) -> dict[int, list[Call]]:
    """Return the calls that run in these threads, the innermost first. Threads that run none are left out."""
    found: dict[int, list[Call]] = {}
    pending = list(thread_ids)
    while pending:
        some, pending = pending[:_THREADS_PER_YIELD], pending[_THREADS_PER_YIELD:]
        frames = frames_now()
        for thread_id in some:
            taken, end = take(frames.get(thread_id), BEGINS)
            if end is not None:
                found[thread_id] = taken
            del end
        del frames
        yield_gil()
    return found


def _name_of(pool: ThreadPool, target: Any) -> str:
    if pool.default:
        return "default"
    if pool.kind != "executor":
        return pool.kind
    prefix = attribute(target, "_thread_name_prefix") if target is not None else ""
    return prefix if isinstance(prefix, str) else ""


def _find_own(calls: ThreadCalls, known: Collection[ThreadCall]) -> None:
    """Find the loops' own executors on loops that do not show them: those which have a call that was given to one."""
    for pool in calls.pools:
        if not pool.default or pool.target is not None:
            continue
        given = [call for call in known if call.pool is pool]
        threads = {call.thread_id for call in given}
        for executor in _all_executors() if given else ():
            has_one = any(thread.ident in threads for thread in tuple(attribute(executor, "_threads") or ()))
            if has_one or any(func in given for func in queued_functions(executor) if type(func) is ThreadCall):
                pool.found(executor)
                break


def _all_executors() -> list[ThreadPoolExecutor]:
    """Return the executors of the process that have threads."""
    found: dict[int, ThreadPoolExecutor] = {}
    for thread in threading.enumerate():
        args = vars(thread).get("_args")
        if vars(thread).get("_target") is _worker and isinstance(args, tuple) and args:
            executor = args[0]()
            if isinstance(executor, ThreadPoolExecutor):
                found[id(executor)] = executor
    return list(found.values())
