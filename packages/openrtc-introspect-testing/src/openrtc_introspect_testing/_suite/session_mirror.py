"""Sessions of the program's own introspectors, opened with the plugin's as well.

The code under test may have introspectors of its own, and those know its sessions. While a test is observed, the scope
of a session that is opened on a monitored loop opens a second scope, of the same session, with that loop's monitor.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import pytest

from openrtc_introspect_core import Introspector, StateError
from openrtc_introspect_core._introspector import parts_of
from openrtc_introspect_core._sessions.scope import SessionScope

from .loop_monitor import LoopMonitor


class SessionMirror:
    """A second scope, with the monitor, for each scope of a session.

    monitor_here: returns the monitor of the loop that runs the calling code, None if there is none.

    guarded: makes a context manager that keeps the plugin's own errors from the code under test.
    """

    def __init__(
        self, monitor_here: Callable[[], LoopMonitor | None], guarded: Callable[[str], AbstractContextManager[None]]
    ) -> None:
        self._monitor_here = monitor_here
        self._guarded = guarded
        self._mirrors: dict[SessionScope, SessionScope] = {}

    def install(self, patch: pytest.MonkeyPatch) -> None:
        """Mirror every scope that is entered, until `patch` is undone."""
        enter, leave = SessionScope.__enter__, SessionScope.__exit__

        def entered(scope: SessionScope) -> Any:
            mirror = None
            with self._guarded("a session's scope"):
                mirror = self._mirror_of(scope)
                if mirror is not None:
                    mirror.__enter__()
            try:
                session = enter(scope)
            except BaseException:
                if mirror is not None:
                    mirror.__exit__(None, None, None)
                raise
            if mirror is not None:
                self._mirrors[scope] = mirror
            return session

        def left(scope: SessionScope, *error: Any) -> None:
            leave(scope, *error)
            mirror = self._mirrors.pop(scope, None)
            if mirror is not None:
                with self._guarded("a session's scope"):
                    mirror.__exit__(*error)

        patch.setattr(SessionScope, "__enter__", entered)
        patch.setattr(SessionScope, "__exit__", left)

    def _mirror_of(self, scope: SessionScope) -> SessionScope | None:
        """Return the same session's scope with the monitor of this loop, or None."""
        monitor = self._monitor_here()
        if monitor is None or scope.registry is parts_of(monitor).shared.sessions or scope.session is not None:
            return None
        try:
            return Introspector.session(monitor, scope.session_id, agent_name=scope.agent_name, metadata=scope.metadata)
        except StateError:  # two introspectors have a session of one name: blocks of either would be ambiguous
            return None
