"""A session's scope: the `with` block that registers a session and binds it to what runs inside."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from contextvars import Token
from types import TracebackType
from typing import TYPE_CHECKING, Any

from ._errors import StateError
from ._sessions import Session, innermost

if TYPE_CHECKING:
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
    )

    def __init__(
        self, introspector: Introspector, session_id: str, agent_name: str, metadata: Mapping[str, Any]
    ) -> None:
        self._introspector = introspector
        self._session_id = session_id
        self._agent_name = agent_name
        self._metadata = metadata
        self._session: Session | None = None

    def __enter__(self) -> Session:
        introspector = self._introspector
        self._hook = introspector._attached_hook()
        if self._session is not None:
            raise StateError(f"the scope of session {self._session_id!r} was entered already: make a new one")
        session = Session(self._session_id, self._agent_name, self._metadata, introspector._clock())
        sessions = introspector._sessions
        sessions.add(session)
        self._session = session
        if len(sessions.live) == 1:
            introspector._sessions_live(True)
        self._tokens: tuple[Token[Session], Token[Session]] = (
            introspector._binding.set(session),
            innermost.set(session),
        )
        self._entered = None
        try:
            self._entered = self._hook.enter_scope(session)
        except Exception as fault:
            introspector._fault("scopes", f"a session's scope could not be metered: {fault!r}")
        return session

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        session = self._session
        if session is None or session.ended:
            return
        introspector = self._introspector
        for variable, token in zip((introspector._binding, innermost), self._tokens, strict=True):
            # Left in another context than it was entered in, as generators do: nothing is bound here.
            with contextlib.suppress(ValueError):
                variable.reset(token)
        try:
            self._hook.leave_scope(session, self._entered)
        except Exception as fault:
            introspector._fault("scopes", f"a session's scope could not be metered: {fault!r}")
        failed = isinstance(error, Exception)  # a cancellation is none
        introspector._sessions.remove(session, errored=failed)
        if error is not None and failed:
            introspector._failures.add(session, introspector._clock(), error)
        if not introspector._sessions.live:
            introspector._sessions_live(False)
