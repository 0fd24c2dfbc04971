"""anyio's threads on asyncio: the calls by `anyio.to_thread.run_sync`.

FastAPI's and Starlette's synchronous endpoints run so, anyio's files, and more. anyio has worker threads of its own for
each loop, and a limiter says how many calls may run. On Trio such a call is Trio's own (`trio_threads`).
"""

from __future__ import annotations

import weakref
from typing import Any

from .._accounting.thread_calls import ThreadCall, ThreadCalls
from .._accounting.thread_pools import ThreadPool
from .._base.interrupts import is_interrupt
from .._base.replaced_method import Method
from .process_seam import ProcessSeam, See, Watched


def _seeing_calls(see: See, before: Method) -> Method:
    # No coroutine of its own: it returns anyio's, so that await chains and tracebacks are as without it.
    def run_sync_in_worker_thread(cls: Any, func: Any, args: Any, *options: Any, **named: Any) -> Any:
        noted: list[ThreadCall | tuple[ThreadCalls, ThreadPool]] = []

        def note(watched: Watched, func: Any) -> Any:
            limiter = named.get("limiter", options[1] if len(options) > 1 else None)
            if limiter is None:
                limiter = cls.current_default_thread_limiter()
            ledger, calls = watched.ledger, watched.calls
            pool = calls.pools.of(limiter, "anyio", ledger)
            session = ledger.binding.get(None)
            if session is not None:
                noted.append(call := calls.submit(func, session, ledger, pool))
                return call
            if pool is not None:
                noted.append((calls, pool))
            return func

        coro = before(see(note, func), args, *options, **named)
        for each in noted:
            if isinstance(each, ThreadCall):
                each.awaited = weakref.ref(coro)
            else:
                calls, pool = each
                try:
                    calls.submit_unbound(coro, func, pool)
                except Exception as error:
                    if is_interrupt(error):
                        coro.close()  # nobody will await it
                        raise
                    calls.failed(error)
        return coro

    return run_sync_in_worker_thread


ANYIO_THREADS = ProcessSeam("anyio._backends._asyncio", "AsyncIOBackend", "run_sync_in_worker_thread", _seeing_calls)
"""The seam of this process."""
