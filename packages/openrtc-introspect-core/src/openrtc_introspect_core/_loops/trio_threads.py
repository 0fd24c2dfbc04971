"""Trio's threads: the calls by `trio.to_thread.run_sync`, and by anyio's on Trio.

Trio hands a call to a thread once its limiter allows that. The function that does so is replaced where
`to_thread.run_sync` looks it up. Calls that wait for the limiter are read from it when asked for.
"""

from __future__ import annotations

from types import FunctionType
from typing import Any

from .._accounting.called_function import called, free_variables
from .._base.replaced_method import Method
from .process_seam import ProcessSeam, See, Watched


def _seeing_calls(see: See, before: Method) -> Method:
    def start_thread_soon(module: Any, fn: Any, deliver: Any, *name: Any, **named: Any) -> Any:
        def note(watched: Watched, func: Any) -> Any:
            ledger, calls = watched.ledger, watched.calls
            limiter = _limiter_behind(deliver)
            pool = calls.pools.of(limiter, "trio", ledger)
            session = ledger.binding.get(None)
            if session is not None:
                return calls.submit(func, session, ledger, pool)
            if pool is not None and type(func) is FunctionType:
                calls.submit_unbound(func, called(func), pool)  # Trio's own function lives as long as the call
            return func

        return before(see(note, fn), deliver, *name, **named)

    return start_thread_soon


def _limiter_behind(deliver: Any) -> Any:
    """Return the limiter that is released once the call has ended; None: it is not where it is looked for."""
    if type(deliver) is not FunctionType:
        return None
    report = free_variables(deliver).get("report_back_in_trio_thread_fn")
    limiter = free_variables(report).get("limiter") if type(report) is FunctionType else None
    is_anyio = type(limiter).__module__ == "anyio._backends._trio"
    return getattr(limiter, "_CapacityLimiter__original", limiter) if is_anyio else limiter


TRIO_THREADS = ProcessSeam("trio._threads", None, "start_thread_soon", _seeing_calls)
"""The seam of this process."""
