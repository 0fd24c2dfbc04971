"""A session's scope: the `with` block that registers and binds the session."""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Mapping
from contextvars import Context, ContextVar, Token
from types import TracebackType
from typing import Any

from .._base.errors import IntrospectError, StateError
from .._base.interrupts import is_interrupt
from .._native import rebound
from .registry import ScopeHook, SessionRegistry
from .session import ContextMarker, Session, context_marker, innermost, unmeasured_session


class SessionScope:
    """One session's `with` block; entered once."""

    __slots__ = (
        "_agent_name",
        "_context_marker",
        "_entered",
        "_hook",
        "_metadata",
        "_registry",
        "_session",
        "_session_id",
        "_tokens",
    )

    def __init__(
        self, registry: SessionRegistry, session_id: str, agent_name: str, metadata: Mapping[str, Any]
    ) -> None:
        self._registry = registry
        self._session_id = session_id
        self._agent_name = agent_name
        self._metadata = metadata
        self._session: Session | None = None
        """None: not entered so far, or not measured."""
        self._hook: ScopeHook | None = None
        self._entered: Any = None
        self._context_marker: ContextMarker | None = None
        self._tokens: tuple[Token[Any], ...] = ()
        """Empty if the scope was begun by `begin`, and not entered."""

    # For the pytest plugin, which enters a second scope of the same session.

    @property
    def registry(self) -> SessionRegistry:
        """Return the sessions of its introspector."""
        return self._registry

    @property
    def session_id(self) -> str:
        """Return the id of its session."""
        return self._session_id

    @property
    def agent_name(self) -> str:
        """Return the name of the session's agent."""
        return self._agent_name

    @property
    def metadata(self) -> Mapping[str, Any]:
        """Return the mapping that was given."""
        return self._metadata

    @property
    def session(self) -> Session | None:
        """Return its session. None: not entered so far, or not measured."""
        return self._session

    def __enter__(self) -> Session:
        try:
            self._register()
        except IntrospectError:
            raise
        except BaseException as fault:
            self._not_entered(fault)
        session = self._session
        if session is None:
            return unmeasured_session(self._session_id, self._agent_name, self._metadata)
        try:
            self._bind(session)
        except BaseException as fault:
            self._not_entered(fault)
        return session

    def _not_entered(self, fault: BaseException) -> None:
        """Note a fault of ours. Raise an interrupt again, and end the session: no `with` block will end it."""
        if is_interrupt(fault):
            self.__exit__(type(fault), fault, fault.__traceback__)
            raise fault
        self._failed(fault)

    def begin(self) -> Session:
        """Register the session without binding it.

        For adapters, which call `bind_to` and `__exit__` afterwards.
        """
        self._register()
        assert self._session is not None
        return self._session

    def _register(self) -> None:
        registry = self._registry
        registry.check_open()
        if self._session is not None:
            raise StateError(f"the scope of session {self._session_id!r} was entered already: make a new one")
        session = Session(self._session_id, self._agent_name, self._metadata, registry.clock())
        if registry.given_back is not None:
            self._context_marker = ContextMarker()
            session.context_marker = weakref.ref(self._context_marker)
        loop = registry.loop_here()
        session.loop = loop.name if loop is not None else None
        self._hook = loop.hook if loop is not None else None
        with registry.lock:
            registry.add(session)
            self._session = session
            if len(registry.live) == 1:
                registry.on_live(True)

    def _bind(self, session: Session) -> None:
        outer = self._registry.binding.get(None)
        self._tokens = (self._registry.binding.set(session), innermost.set(session))
        rebound()
        if self._context_marker is not None:
            self._tokens = (*self._tokens, context_marker.set(self._context_marker))
        if self._hook is not None:
            self._entered = self._hook.enter_scope(session, outer)

    def _failed(self, fault: BaseException) -> None:
        """Note a fault of ours: a part of the scope is not measured."""
        self._registry.notes.add("scopes", f"a session's scope could not be metered: {fault!r}", fault)

    def bind_to(self, context: Context, task: Any) -> None:
        """Bind the session to a task older than the scope, which runs in `context`.

        Raises RuntimeError if the task is in the middle of a step.
        """
        session = self._session
        if session is None or session.ended:
            return
        context.run(self._registry.binding.set, session)
        context.run(innermost.set, session)
        rebound()
        if self._context_marker is not None:
            context.run(context_marker.set, self._context_marker)
        try:
            if self._hook is not None:
                self._hook.adopt_task(task, session)
        except Exception as fault:
            if is_interrupt(fault):
                raise
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
                    interrupt = fault  # the host gets it once the session has ended
                else:
                    self._failed(fault)
        self._context_marker = None
        session.ended = True
        if interrupt is not None:
            raise interrupt

    def _unbind(self, session: Session, error: BaseException | None) -> None:
        variables: tuple[ContextVar[Any], ...] = (self._registry.binding, innermost, context_marker)
        for variable, token in zip(variables, self._tokens, strict=False):
            # A scope left in another context than it was entered in, as in generators, has nothing bound here.
            with contextlib.suppress(ValueError):
                variable.reset(token)
        rebound()

    def _stop_metering(self, session: Session, error: BaseException | None) -> None:
        session.ended_at = self._registry.clock()
        if self._hook is not None:
            self._hook.leave_scope(session, self._entered)

    def _mark_memory(self, session: Session, error: BaseException | None) -> None:
        given_back = self._registry.given_back
        if given_back is not None:
            session.held_at_end, session.given_back_at_end = session.held, given_back()

    def _unregister(self, session: Session, error: BaseException | None) -> None:
        self._registry.remove(session, error=error)
