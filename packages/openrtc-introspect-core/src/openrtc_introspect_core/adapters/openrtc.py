"""The adapter for the public openrtc package, by its session observers.

    from openrtc import AgentPool
    from openrtc_introspect_core.adapters.openrtc import Observer

    pool = AgentPool(agents=..., enable_introspection=False, observers=[Observer(name="voice")])

Switch the pool's own introspection off: two detectors on one loop blame each other's work. A session is reported after
it has started, when it already has tasks. Tasks that carry its id are bound to it then, and so are all tasks that they
create later. What they did before is untagged.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

from .._base.interrupts import is_interrupt
from .._base.log import QueuedLogger
from .._base.validation import MAX_NAME
from .._loops.asyncio_names import context_of
from .._sessions.scope import SessionScope
from ._process import ProcessIntrospector

logger = QueuedLogger("openrtc.introspect")


class Observer:
    """A `SessionObserver` for an openrtc AgentPool.

    options: the arguments of the Introspector.

    It can be pickled before its first session, as pools need whose sessions are processes; each process is then a
    worker of its own. Raises ArgumentError for a wrong option. Later errors are logged, and the session runs
    unmeasured.
    """

    def __init__(self, **options: Any) -> None:
        self.process = ProcessIntrospector(options)
        self._scopes: dict[str, SessionScope] = {}

    async def on_session_start(self, info: Any, session: Any) -> None:
        """Begin to measure a session that has started."""
        try:
            self._begin(info)
        except Exception as fault:
            if is_interrupt(fault):
                raise
            logger.warning("introspection of session %s: it runs unmeasured: %s", info.job_id, fault, exc_info=fault)

    async def on_session_end(self, info: Any, outcome: Any) -> None:
        """End the session. It may never have started."""
        scope = self._scopes.pop(info.job_id, None)
        if scope is not None:
            error = outcome.error
            scope.__exit__(type(error) if error is not None else None, error, None)

    def _begin(self, info: Any) -> None:
        scope = self.process.attached().session(
            info.job_id, agent_name=info.agent_name[:MAX_NAME], metadata={"tenant": info.tenant[:MAX_NAME]}
        )
        scope.begin()
        self._scopes[info.job_id] = scope
        for task in _tasks_of(info.job_id):
            context = context_of(task)
            if context is not None:
                scope.bind_to(context, task)
        # The running task may be the session's own, in mid-step: it is bound before its next step.
        running = asyncio.current_task()
        if running is not None and (context := context_of(running)) is not None:
            asyncio.get_running_loop().call_soon(scope.bind_to, context, running)


def _tasks_of(job_id: str) -> Iterator[asyncio.Task[Any]]:
    """Yield the loop's tasks of this openrtc session, except the running one."""
    from openrtc.observability.session_context import current_session_id

    of_context: Callable[[], str | None] = current_session_id
    running = asyncio.current_task()
    for task in asyncio.all_tasks():
        context = context_of(task)
        if task is not running and context is not None and context.run(of_context) == job_id:
            yield task
