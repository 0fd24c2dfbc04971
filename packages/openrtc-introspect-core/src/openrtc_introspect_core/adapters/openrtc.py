"""The public openrtc package: each of its sessions is a session, by its observers.

    from openrtc import AgentPool
    from openrtc_introspect_core.adapters.openrtc import Observer

    pool = AgentPool(agents=..., enable_introspection=False, observers=[Observer(name="voice")])

Switch its own introspection off: two detectors on one loop blame each other's work. A session is observed
once it has started, when its tasks are there already: those that carry its id are bound to it then, and
everything they create later is bound with them. What they did before that is of no session.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

from .._log import QueuedLogger
from .._scope import SessionScope
from .._sessions import MAX_NAME
from .._tasks import context_of
from ._process import ProcessIntrospector

logger = QueuedLogger("openrtc.introspect")


class Observer:
    """A `SessionObserver` for an openrtc AgentPool. `options` are the Introspector's.

    It can be pickled before its first session, so that pools whose sessions are processes take it as
    well: each process is a worker of its own then.
    Raises ArgumentError for a wrong option, at once. What goes wrong later is logged, and the session runs
    unmeasured.
    """

    def __init__(self, **options: Any) -> None:
        self.process = ProcessIntrospector(options)
        self._scopes: dict[str, SessionScope] = {}

    async def on_session_start(self, info: Any, session: Any) -> None:
        """The session is live."""
        try:
            self._begin(info)
        except Exception as fault:
            logger.warning("introspection of session %s: it runs unmeasured: %s", info.job_id, fault)

    async def on_session_end(self, info: Any, outcome: Any) -> None:
        """The session has ended, which may come without its having been live."""
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
        # This one runs now, where observers are called in the session's own task: from its next step on.
        running = asyncio.current_task()
        if running is not None and (context := context_of(running)) is not None:
            asyncio.get_running_loop().call_soon(scope.bind_to, context, running)


def _tasks_of(job_id: str) -> Iterator[asyncio.Task[Any]]:
    """The loop's tasks that carry this session id of openrtc's, but for the running one."""
    from openrtc.observability.session_context import current_session_id

    of_context: Callable[[], str | None] = current_session_id
    running = asyncio.current_task()
    for task in asyncio.all_tasks():
        context = context_of(task)
        if task is not running and context is not None and context.run(of_context) == job_id:
            yield task
