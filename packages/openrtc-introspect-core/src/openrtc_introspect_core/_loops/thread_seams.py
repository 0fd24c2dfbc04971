"""The places at which a loop hands calls to threads, for each kind of loop."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack

from .._accounting.thread_calls import ThreadCalls
from .anyio_threads import ANYIO_THREADS
from .executor_calls import see_executor_calls
from .hook import LoopHook
from .process_seam import Watched
from .running_loop import Loop
from .trio_threads import TRIO_THREADS


def see_thread_calls(loop: Loop, hook: LoopHook, calls: ThreadCalls) -> Callable[[], None] | None:
    """See the calls in threads that `loop` makes from now on. Return the function that undoes it.

    None: this loop shows none.
    """
    watched = Watched(hook.ledger, calls, hook.runs_here)
    if hook.kind == "trio":
        undo = TRIO_THREADS.add(watched)
        if TRIO_THREADS.in_effect:
            return undo
        undo()
        return None
    in_executors = see_executor_calls(loop, hook.ledger, calls)
    if in_executors is None:
        return None
    undone = ExitStack()
    undone.callback(in_executors)
    undone.callback(ANYIO_THREADS.add(watched))
    return undone.close


def see_libraries_loaded_since() -> None:
    """See the threads of a library that was loaded after the loops were attached. Called once a second."""
    ANYIO_THREADS.replace_if_loaded()
