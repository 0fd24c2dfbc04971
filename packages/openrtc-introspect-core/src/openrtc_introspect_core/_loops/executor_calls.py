"""A loop's calls in executors: `asyncio.to_thread` and `run_in_executor`.

`run_in_executor` of the loop's instance wraps each call that is given to a pool of threads while a session is bound.
Others are handed on as they were given, and their pool is noted.
"""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from inspect import iscoroutinefunction
from types import MethodType
from typing import Any

from .._accounting.ledger import Ledger
from .._accounting.thread_calls import ThreadCall, ThreadCalls
from .._accounting.thread_pools import ThreadPool
from .._base.interrupts import is_interrupt
from .._base.replaced_method import Replaced


def see_executor_calls(loop: Any, ledger: Ledger, calls: ThreadCalls) -> Callable[[], None] | None:
    """See the calls of `loop` from now on. Return the function that undoes it.

    None: this kind of loop does not allow it.
    """
    if getattr(loop, "run_in_executor", None) is None:
        return None
    bound = ledger.binding.get
    own = _own_executor(loop)
    wrapped = True

    def pool_of(executor: Executor | None) -> ThreadPool | None:
        return calls.pools.own_of(ledger, own) if executor is None else calls.pools.of(executor, "executor", ledger)

    def seeing_calls(before: Callable[..., Any] | None) -> Callable[..., Any]:
        def run_in_executor(loop: Any, executor: Executor | None, func: Callable[..., Any], *args: Any) -> Any:
            call: ThreadCall | None = None
            try:
                if wrapped and calls.on and _can_wrap(executor, func):
                    pool = pool_of(executor)
                    session = bound(None)
                    if session is not None:
                        func = call = calls.submit(func, session, ledger, pool)
            except Exception as error:
                if is_interrupt(error):
                    raise
                calls.failed(error)
            run = before or MethodType(type(loop).run_in_executor, loop)
            if call is None:
                return run(executor, func, *args)
            future = run(executor, func, *args)
            if type(future) is asyncio.Future:
                call.awaited = weakref.ref(future)
            return future

        return run_in_executor

    def unwrap() -> None:
        nonlocal wrapped
        wrapped = False
        calls.pools.forget_own_of(ledger)
        replaced.put_back()

    try:
        replaced = Replaced(loop, "run_in_executor", seeing_calls)
    except AttributeError:  # a loop that is all C
        return None
    return unwrap


def _own_executor(loop: Any) -> Callable[[], Any]:
    """Return the function that returns the loop's own executor; None: it has none so far, or does not show it."""
    try:
        observed = weakref.ref(loop)
    except TypeError:
        return lambda: None
    return lambda: getattr(observed(), "_default_executor", None)


def _can_wrap(executor: Executor | None, func: Callable[..., Any]) -> bool:
    in_threads = executor is None or isinstance(executor, ThreadPoolExecutor)
    # The loop itself refuses coroutine functions, in its own words.
    return in_threads and not iscoroutinefunction(func)
