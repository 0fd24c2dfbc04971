"""The adapter for pipecat-ai, in which each bot, runner or pipeline is a session.

    from openrtc_introspect_core.adapters.pipecat import introspected

    @introspected(name="voice", slow_session_threshold_ms=50)
    async def bot(runner_args: RunnerArguments) -> None:
        worker = PipelineWorker(Pipeline([...]))
        runner = WorkerRunner()
        await runner.add_workers(worker)
        await runner.run()

The session lasts as long as the call of `bot`. What is made inside belongs to it: the runner, the tasks of each
processor, the observers, the transports' tasks and callbacks. It has the id of the runner's session if there is one,
and the tenant that the body of the request names.

A runner that hosts the pipelines of several callers is told apart by pipeline:

    introspect = introspected(name="voice")
    await runner.add_workers(introspect.bind(worker, session_id=call_id, agent_name="restaurant"))

Each process makes an introspector at its first session; it is closed when the interpreter exits. A signal that kills
the process leaves the socket's file and the black box; a later worker removes them.
"""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import ExitStack
from typing import Any, Never, ParamSpec, Protocol, TypeVar

from .._base.errors import ArgumentTypeError
from ._decorators import check_callable, check_called
from ._guarded_sessions import GuardedSessions
from ._identity import Identity, unique_id

__all__ = ["Identity", "introspected"]

Parameters = ParamSpec("Parameters")
Returned = TypeVar("Returned")
Identify = Callable[..., Identity | None]


class Runnable(Protocol):
    """The part of a `PipelineWorker` or `WorkerRunner` that the adapter uses."""

    def run(self, *arguments: Any, **options: Any) -> Awaitable[Any]: ...


Run = TypeVar("Run", bound=Runnable)


class introspected:  # a decorator
    """A decorator for a bot: each call of it is a session.

    identify: returns the Identity of a call, by the bot's arguments; None: the call is no session. If it fails, the
        call runs unmeasured. The first such failure is logged, and the snapshot's notes count them. By default the
        session has the `session_id` of pipecat's RunnerArguments, or else a unique id; the worker's name as its
        agent's; and the tenant that the body of RunnerArguments names, if it is a dict with such a key.
    options: the arguments of the Introspector.

    Raises ArgumentError for a wrong option. Later errors are logged, and bots run unmeasured.
    """

    def __init__(self, *positional: Never, identify: Identify | None = None, **options: Any) -> None:
        check_called("introspected", positional)
        if identify is not None and not callable(identify):
            raise ArgumentTypeError(f"identify must be a function of the bot's arguments, got {identify!r}")
        self.sessions = GuardedSessions("bots", options)
        self._identify: Identify = identify if identify is not None else identity_of

    def __call__(
        self, bot: Callable[Parameters, Awaitable[Returned]]
    ) -> Callable[Parameters, Coroutine[Any, Any, Returned]]:
        """Return the bot, each call of which is a session. Raises ArgumentTypeError if it cannot be called."""
        check_callable("a bot", bot)

        @functools.wraps(bot)
        async def in_session(*arguments: Parameters.args, **options: Parameters.kwargs) -> Returned:
            with ExitStack() as stack:
                self.sessions.enter(stack, lambda: self._identify(*arguments, **options), self._default)
                return await bot(*arguments, **options)

        return in_session

    def bind(
        self, runnable: Run, *, session_id: str | None = None, agent_name: str | None = None, tenant: str | None = None
    ) -> Run:
        """Make the run of a PipelineWorker or WorkerRunner a session, and return it. Call this before it runs.

        What is left out has the default: a unique id, the worker's name, no tenant. Raises ArgumentTypeError for a
        value that is no str, and for an object without the method `run`.
        """
        if not callable(getattr(runnable, "run", None)):
            raise ArgumentTypeError(f"bind takes a PipelineWorker or WorkerRunner, got {runnable!r:.200}")
        identity, run = Identity(session_id, agent_name, tenant), runnable.run

        @functools.wraps(run)
        async def in_session(*arguments: Any, **options: Any) -> Any:
            with ExitStack() as stack:
                self.sessions.enter(stack, lambda: identity, self._default)
                return await run(*arguments, **options)

        runnable.run = in_session  # type: ignore[method-assign]  # of this object alone
        return runnable

    def _default(self) -> Identity:
        return Identity(unique_id("bot"), self.sessions.process.name)


def identity_of(*arguments: Any, **options: Any) -> Identity:
    """Return what pipecat's RunnerArguments say, if they are among a bot's arguments."""
    for each in (*arguments, *options.values()):
        body = getattr(each, "body", None)
        if isinstance(session_id := getattr(each, "session_id", None), str) or isinstance(body, dict):
            tenant = body.get("tenant") if isinstance(body, dict) else None
            return Identity(session_id, tenant=tenant if isinstance(tenant, str) else None)
    return Identity()
