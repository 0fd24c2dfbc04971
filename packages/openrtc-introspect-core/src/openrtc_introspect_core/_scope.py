"""A session's scope: the `with` block that registers a session and binds it to what runs inside."""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Mapping
from contextvars import Context, ContextVar, Token
from types import TracebackType
from typing import TYPE_CHECKING, Any

from ._errors import IntrospectError, StateError
from ._interrupts import is_interrupt
from ._sessions import Session, Trace, innermost, traces, unmeasured

if TYPE_CHECKING:
    from ._hook import LoopHook
    from ._introspector import Introspector


class SessionScope:
    """One session's `with` block. Enter it once."""

    __slots__ = (
        "_agent_name",
        "_entered",
        "_hook",
        "_introspector",
        "_metadata",
        "_session",
        "_session_id",
        "_tokens",
        "_trace",
    )

    def __init__(
        self, introspector: Introspector, session_id: str, agent_name: str, metadata: Mapping[str, Any]
    ) -> None:
        self._introspector = introspector
        self._session_id = session_id
        self._agent_name = agent_name
        self._metadata = metadata
        self._session: Session | None = None
        """None: not entered yet, or not measured."""
        self._hook: LoopHook | None = None
        self._entered: Any = None
        self._trace: Trace | None = None
        self._tokens: tuple[Token[Any], ...] = ()
        """Empty where the scope was begun, and never entered."""

    def __enter__(self) -> Session:
        try:
            self._register()
        except IntrospectError:
            raise
        except Exception as fault:
            if is_interrupt(fault):
                raise
            self._failed(fault)
        session = self._session
        if session is None:
            return unmeasured(self._session_id, self._agent_name, self._metadata)
        try:
            self._bind(session)
        except Exception as fault:
            if is_interrupt(fault):
                raise
            self._failed(fault)
        return session

    def begin(self) -> Session:
        """Registers the session and binds it to nothing yet: for adapters, with `bind_to` and `__exit__`."""
        self._register()
        assert self._session is not None
        return self._session

    def _register(self) -> None:
        introspector = self._introspector
        introspector._check_started()
        if self._session is not None:
            raise StateError(f"the scope of session {self._session_id!r} was entered already: make a new one")
        session = Session(self._session_id, self._agent_name, self._metadata, introspector._clock())
        if introspector._heap is not None:
            self._trace = Trace()
            session.trace = weakref.ref(self._trace)
        loop = introspector._loop_here()
        session.loop = loop.name if loop is not None else None
        self._hook = loop.hook if loop is not None else None
        sessions = introspector._sessions
        with sessions.lock:
            sessions.add(session)
            self._session = session
            if len(sessions.live) == 1:
                introspector._sessions_live(True)

    def _bind(self, session: Session) -> None:
        self._tokens = (self._introspector._binding.set(session), innermost.set(session))
        if self._trace is not None:
            self._tokens = (*self._tokens, traces.set(self._trace))
        if self._hook is not None:
            self._entered = self._hook.enter_scope(session)

    def _failed(self, fault: Exception) -> None:
        """The host's code goes on whatever of a scope is not measured."""
        self._introspector._notes.add("scopes", f"a session's scope could not be metered: {fault!r}", fault)

    def bind_to(self, context: Context, task: Any) -> None:
        """A task of the loop that was there before the scope, and runs in `context`, is the session's from now on.

        Raises RuntimeError where the task is in the middle of a step.
        """
        session = self._session
        if session is None or session.ended:
            return
        context.run(self._introspector._binding.set, session)
        context.run(innermost.set, session)
        if self._trace is not None:
            context.run(traces.set, self._trace)
        try:
            if self._hook is not None:
                self._hook.adopt_task(task, session)
        except Exception as fault:
            self._failed(fault)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        session = self._session
        if session is None or session.ended:
            return
        interrupt = None
        for part in (self._unbind, self._stop_metering, self._mark_memory, self._unregister):
            try:
                part(session, error)
            except Exception as fault:
                if is_interrupt(fault):
                    interrupt = fault  # it is the host's, which gets it once the session has ended
                else:
                    self._failed(fault)
        self._trace = None
        session.ended = True
        if interrupt is not None:
            raise interrupt

    def _unbind(self, session: Session, error: BaseException | None) -> None:
        variables: tuple[ContextVar[Any], ...] = (self._introspector._binding, innermost, traces)
        for variable, token in zip(variables, self._tokens, strict=False):
            # Left in another context than it was entered in, as generators do: nothing is bound here.
            with contextlib.suppress(ValueError):
                variable.reset(token)

    def _stop_metering(self, session: Session, error: BaseException | None) -> None:
        session.ended_at = self._introspector._clock()
        if self._hook is not None:
            self._hook.leave_scope(session, self._entered)

    def _mark_memory(self, session: Session, error: BaseException | None) -> None:
        heap = self._introspector._heap
        if heap is not None:
            session.held_at_end, session.given_back_at_end = session.held, heap.given_back()

    def _unregister(self, session: Session, error: BaseException | None) -> None:
        introspector = self._introspector
        failed = isinstance(error, Exception)  # a cancellation is none
        with introspector._sessions.lock:
            introspector._sessions.remove(session, errored=failed)
            if not introspector._sessions.live:
                introspector._sessions_live(False)
        if failed:
            assert error is not None
            introspector._failures.add(session, session.ended_at, error)
