"""Code and tasks inside of a session's scope that belong to no session: what serves all sessions."""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Callable, Iterable
from contextvars import ContextVar, Token
from types import TracebackType
from typing import Any

from .._base.interrupts import is_interrupt
from .._native import rebound
from .registry import SessionRegistry
from .session import context_marker, innermost

open_registries: weakref.WeakSet[SessionRegistry] = weakref.WeakSet()
"""Those of all introspectors of the process."""


class NoSession:
    """One `with` block outside of every session; entered once at a time.

    registries: returns the introspectors' sessions that the block is outside of.
    """

    __slots__ = ("_registries", "_tokens")

    def __init__(self, registries: Callable[[], Iterable[SessionRegistry]]) -> None:
        self._registries = registries
        self._tokens: list[tuple[SessionRegistry | None, ContextVar[Any], Token[Any]]] = []

    def __enter__(self) -> None:
        for variable in (innermost, context_marker):
            self._unbind(None, variable)
        for registry in self._registries():
            self._unbind(registry, registry.binding)
        self._take_note(entered=True)

    def _unbind(self, registry: SessionRegistry | None, variable: ContextVar[Any]) -> None:
        if variable.get(None) is not None:
            self._tokens.append((registry, variable, variable.set(None)))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for _, variable, token in reversed(self._tokens):
            # A block left in another context than it was entered in, as in generators, has nothing unbound here.
            with contextlib.suppress(ValueError):
                variable.reset(token)
        self._take_note(entered=False)
        self._tokens.clear()

    def _take_note(self, *, entered: bool) -> None:
        """Have the rest of this step charged to who is bound now."""
        if not self._tokens:
            return
        rebound()
        for registry, _, token in self._tokens:
            if registry is None:
                continue
            try:
                loop = registry.loop_here()
                if loop is not None:
                    loop.hook.rebind(token.old_value if entered else None)
            except Exception as fault:
                if is_interrupt(fault):
                    raise
                registry.notes.add("scopes", f"code outside of sessions could not be metered: {fault!r}", fault)


def no_session() -> NoSession:
    """Return a context manager: the code inside, and every task created inside, belongs to no session.

    For what serves all sessions and is begun by the first one that needs it, such as the worker task of a shared
    client: a task that is created in a session's context is the session's for as long as it lives. It has no effect
    outside of sessions. It counts for all introspectors of the process, and may be entered inside of any scope.
    """
    return NoSession(lambda: list(open_registries))
