"""The adapter for livekit-agents, in which each job is a session.

    from openrtc_introspect_core.adapters.livekit import introspected

    @server.rtc_session(agent_name="restaurant")
    @introspected(name="voice", slow_session_threshold_ms=50)
    async def entrypoint(ctx: JobContext) -> None: ...

The session has the job's id and agent name (if the job has none, the worker's name). `tenant` comes from the metadata
of the job, else of the room, if that is a JSON object with such a key.

Each process that runs jobs makes an introspector at its first job. If jobs are threads with an event loop each
(`JobExecutorType.THREAD`), the loop of each job is attached to the one introspector of the process while the job lasts.
If each job is a process, each is a worker of its own in `openrtc top`.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, Never, Protocol

from .._base.interrupts import is_interrupt
from .._base.log import QueuedLogger
from .._base.validation import MAX_NAME
from .._introspector import Introspector
from .._sessions.scope import SessionScope
from .._sessions.session import Session
from ._decorators import check_callable, check_called
from ._process import ProcessIntrospector

logger = QueuedLogger("openrtc.introspect")


class Job(Protocol):
    """The part of a livekit `JobContext` that the adapter reads."""

    @property
    def job(self) -> Any: ...

    def add_shutdown_callback(self, callback: Any) -> None: ...


Entrypoint = Callable[[Any], Awaitable[None]]


def introspected(*positional: Never, **options: Any) -> Callable[[Entrypoint], Entrypoint]:
    """Return a decorator for a job's entrypoint.

    options: the arguments of the Introspector.

    The session lasts until the job shuts down, as an entrypoint returns as soon as its AgentSession has started. If the
    entrypoint fails, or leaves no task behind, the session ends with it.

    Raises ArgumentError for a wrong option. Later errors are logged, and the job runs unmeasured.
    """
    check_called("introspected", positional)
    return Jobs(ProcessIntrospector(options)).introspected


class Measuring(Protocol):
    """Where the introspector of the process comes from."""

    @property
    def name(self) -> str:
        """Return the worker's name."""

    @property
    def introspector(self) -> Introspector | None:
        """Return the introspector; None: no loop has used it so far."""

    def attached(self) -> Introspector:
        """Return the introspector, attached to the running loop."""


class Jobs:
    """The jobs of one process, and the introspector that measures them."""

    def __init__(self, process: Measuring) -> None:
        self.process = process

    def introspected(self, entrypoint: Entrypoint) -> Entrypoint:
        """Return the entrypoint whose jobs are sessions. Raises ArgumentTypeError if it cannot be called."""
        check_callable("an entrypoint", entrypoint)

        @functools.wraps(entrypoint)
        async def job(ctx: Job) -> None:
            running = self.begin(ctx)
            try:
                await entrypoint(ctx)
            except BaseException as error:
                error.__traceback__ = error.__traceback__.tb_next  # type: ignore[union-attr]  # this frame is not theirs
                running.end(error)
                raise
            running.returned()

        return job

    def begin(self, ctx: Job) -> RunningJob:
        """Begin a job on the running loop, and bind its session to the calling task."""
        try:
            scope = self.process.attached().session(
                ctx.job.id,
                agent_name=(ctx.job.agent_name or self.process.name)[:MAX_NAME],
                metadata=metadata_of(ctx),
            )
            running = RunningJob(scope, scope.__enter__())
        except Exception as fault:
            if is_interrupt(fault):
                raise
            logger.warning(
                "introspection of %s: job %s runs unmeasured: %s", self.process.name, ctx.job.id, fault, exc_info=fault
            )
            return RunningJob(None, None)

        async def shut_down() -> None:
            running.end(None)

        ctx.add_shutdown_callback(shut_down)
        return running


class RunningJob:
    """The session of one job, which ends once. None, None: the job runs unmeasured."""

    def __init__(self, scope: SessionScope | None, session: Session | None) -> None:
        self._scope = scope
        self._session = session

    def end(self, error: BaseException | None) -> None:
        """End the session. error: the one that ended the job; None: it ended without."""
        scope, self._scope = self._scope, None
        if scope is not None:
            scope.__exit__(type(error) if error is not None else None, error, None)

    def returned(self) -> None:
        """End the session if the entrypoint has returned and left no task running."""
        if self._session is not None and self._session.tasks <= 1:  # the entrypoint's own task
            self.end(None)


def metadata_of(ctx: Job) -> dict[str, str]:
    """Return `{"tenant": …}` from the metadata of the job or the room.

    {} if neither has a tenant.
    """
    for text in (ctx.job.metadata, getattr(getattr(ctx.job, "room", None), "metadata", "")):
        with suppress(ValueError):
            found = json.loads(text or "null")
            if isinstance(found, dict) and isinstance(tenant := found.get("tenant"), str) and tenant:
                return {"tenant": tenant[:MAX_NAME]}
    return {}
