"""livekit-agents: each job is a session.

    from openrtc_introspect_core.adapters.livekit import introspected

    @server.rtc_session(agent_name="restaurant")
    @introspected(name="voice", slow_session_threshold_ms=50)
    async def entrypoint(ctx: JobContext) -> None: ...

The job's id is the session's, its agent name the agent's (without one, the worker's name), and `tenant` is
taken from the job's metadata, else the room's, where that is a JSON object with such a key.

An introspector is made in each process that runs jobs, when the first one comes. Where jobs are
threads with an event loop each (`JobExecutorType.THREAD`), each job's loop is attached to the
process's one introspector while the job lasts. Where each job is a process of its own, each is a
worker of its own in `openrtc top`: the operating system accounts for it anyway.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Any, Protocol

from .._log import QueuedLogger
from .._scope import SessionScope
from .._sessions import MAX_NAME, Session
from ._process import ProcessIntrospector

logger = QueuedLogger("openrtc.introspect")


class Job(Protocol):
    """What is read of a livekit `JobContext`."""

    @property
    def job(self) -> Any: ...

    def add_shutdown_callback(self, callback: Any) -> None: ...


Entrypoint = Callable[[Any], Awaitable[None]]


def introspected(**options: Any) -> Callable[[Entrypoint], Entrypoint]:
    """A decorator for a job's entrypoint. `options` are the Introspector's.

    The session lasts until the job shuts down, for an entrypoint returns as soon as its AgentSession
    has started; it ends with the entrypoint if that fails, or leaves no task behind.

    Raises ArgumentError for a wrong option, at once. What goes wrong later is logged, and the job runs
    unmeasured.
    """
    jobs = Jobs(options)

    def decorate(entrypoint: Entrypoint) -> Entrypoint:
        @functools.wraps(entrypoint)
        async def job(ctx: Job) -> None:
            running = jobs.begin(ctx)
            try:
                await entrypoint(ctx)
            except BaseException as error:
                running.end(error)
                raise
            running.returned()

        return job

    return decorate


class Jobs:
    """The jobs of one process, and the introspector that measures them."""

    def __init__(self, options: Mapping[str, Any]) -> None:
        self.process = ProcessIntrospector(options)

    def begin(self, ctx: Job) -> RunningJob:
        """A job begins, on the running loop. Its session is bound here."""
        try:
            scope = self.process.attached().session(
                ctx.job.id,
                agent_name=(ctx.job.agent_name or self.process.name)[:MAX_NAME],
                metadata=metadata_of(ctx),
            )
            running = RunningJob(scope, scope.__enter__())
        except Exception as fault:
            logger.warning("introspection of %s: job %s runs unmeasured: %s", self.process.name, ctx.job.id, fault)
            return RunningJob(None, None)

        async def shut_down() -> None:
            running.end(None)

        ctx.add_shutdown_callback(shut_down)
        return running


class RunningJob:
    """One job's session, to be ended once. Of nothing, where the job runs unmeasured."""

    def __init__(self, scope: SessionScope | None, session: Session | None) -> None:
        self._scope = scope
        self._session = session

    def end(self, error: BaseException | None) -> None:
        """The job has ended, by an error or not."""
        scope, self._scope = self._scope, None
        if scope is not None:
            scope.__exit__(type(error) if error is not None else None, error, None)

    def returned(self) -> None:
        """The entrypoint has returned; what it left running goes on being the session's."""
        if self._session is not None and self._session.tasks <= 1:  # its own
            self.end(None)


def metadata_of(ctx: Job) -> dict[str, str]:
    """`{"tenant": …}` of the job's metadata, or the room's; empty where neither names one."""
    for text in (ctx.job.metadata, getattr(getattr(ctx.job, "room", None), "metadata", "")):
        with suppress(ValueError):
            found = json.loads(text or "null")
            if isinstance(found, dict) and isinstance(tenant := found.get("tenant"), str) and tenant:
                return {"tenant": tenant[:MAX_NAME]}
    return {}
