"""The wait of one suspended task.

The innermost functions of its await chain decide, as far as they are in a table of rules. If none is, the future does
that the task waits on. A task that only wraps another wait, as `asyncio.wait_for` and `shield` do, is looked through.
"""

from __future__ import annotations

from typing import Any

from .._base.gil import has_gil
from .._loops.asyncio_names import coro_of, waiter_of
from .._loops.await_chain import code_of, is_future, suspended_in
from .._loops.suspended import SuspendedTask
from .._os.stacks import Places
from .anyio_rules import ANYIO
from .asyncio_rules import ASYNCIO
from .client_rules import CLIENTS
from .found import Looker, TaskWait
from .future_wait import wait_of_future
from .rules import Rules
from .tasks_waited import wait_for_task
from .trio_rules import TRIO

_RULES = Rules((ASYNCIO, ANYIO, TRIO, CLIENTS))


def wait_of(suspended: SuspendedTask) -> TaskWait:
    """Return what a suspended task waits for.

    From any thread; at once, before the GIL is given away.
    """
    if suspended.state == "ready":
        return TaskWait("ready", chain=_chain(suspended.coro, suspended.future))
    looker = Looker(suspended.session, suspended.binding, _follow)
    return _look(suspended.coro, suspended.future, looker)


def library_in(chain: tuple[Any, ...], places: Places) -> str:
    """Return the innermost function of a library that no table has, and that the user's code awaits; empty: none."""
    for suspended in reversed(chain):
        code = code_of(suspended)
        if code is None or places.is_users(code.co_filename):
            return ""
        if _RULES.of(code) is None and not code.co_filename.startswith(places.folders.stdlib):
            return code.co_qualname
    return ""


def _look(coro: Any, future: Any, looker: Looker) -> TaskWait:
    chain = _chain(coro, future)
    found: TaskWait | None = None
    for suspended in reversed(chain):
        rule = _RULES.of(code_of(suspended))
        if rule is None:
            break
        if found is None and rule.refines:
            found = _of_future(future, looker) or TaskWait("unknown")
        if (found is None and not rule.refines) or (found is not None and found.kind in rule.refines):
            found = rule.apply(suspended, found, looker) or found
        elif rule.kind:
            break
    found = found or _of_future(future, looker) or TaskWait("unknown", None, "")
    return TaskWait(found.kind, found.target, found.what, (*chain, *found.chain), found.through)


def _of_future(future: Any, looker: Looker) -> TaskWait | None:
    return wait_of_future(future, looker) if is_future(future) else None


def _follow(task: Any, looker: Looker) -> TaskWait:
    """Return what a task waits for that only wraps it for another task."""
    future = waiter_of(task)
    if future is None:
        return wait_for_task(task, looker)
    found = _look(coro_of(task), future, looker)
    return found._replace(through=(task, *found.through))


def _chain(coro: Any, future: Any) -> tuple[Any, ...]:
    """Return the await chain of a coroutine; empty without a GIL, as the coroutine may go on meanwhile."""
    return tuple(suspended_in(coro, future)[0]) if has_gil() else ()
