"""Sessions that an adapter begins for a framework: whatever fails is logged, and the framework's code goes on."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Any
from weakref import WeakSet

from .._base.errors import ArgumentError, ArgumentTypeError
from .._base.interrupts import is_interrupt
from .._base.log import QueuedLogger
from .._base.validation import MAX_NAME
from .._introspector import Introspector
from .._loops.running_loop import Loop, running_loop
from ._identity import Identity
from ._process import ProcessIntrospector

logger = QueuedLogger("openrtc.introspect")


class GuardedSessions:
    """The sessions of one adapter in one process.

    what: what a session is to the framework, in the plural, such as "connections"; for messages.
    options: the arguments of the Introspector. Raises ArgumentError for a wrong one, and nothing later.
    """

    def __init__(self, what: str, options: Mapping[str, Any]) -> None:
        self.process = ProcessIntrospector(options)
        self._what = what
        self._taken = itertools.count(2)
        """The numbers behind ids that were live already."""
        self._unmeasured = 0
        self._left_alone: WeakSet[Loop] = WeakSet()
        """Loops that could not be attached to, or were detached from."""

    def attached(self, *, anew: bool = False) -> Introspector | None:
        """Return the introspector, attached to the running loop. None: what runs on this loop is unmeasured.

        A loop that could not be attached to, or was given to `detached`, is tried again only if `anew` is true.
        """
        loop = running_loop()
        if loop is None or (loop in self._left_alone and not anew):
            return None
        try:
            introspector = self.process.attached()
        except Exception as fault:
            if is_interrupt(fault):
                raise
            self._left_alone.add(loop)
            self._log("%s run unmeasured: %s", self._what, fault, fault=fault)
            return None
        self._left_alone.discard(loop)
        return introspector

    async def detached(self) -> None:
        """Detach from the running loop, and close the introspector if no other loop uses it. Idempotent."""
        loop = running_loop()
        if loop is None or loop in self._left_alone:
            return
        self._left_alone.add(loop)
        try:
            await self.process.detached()
        except Exception as fault:
            if is_interrupt(fault):
                raise
            self._log("it could not be ended: %s", fault, fault=fault)

    def enter(self, stack: ExitStack, identify: Callable[[], object], default: Callable[[], Identity]) -> None:
        """Enter a session, which ends with the stack.

        identify: returns the session's Identity, or None if there is to be no session.
        default: returns the values for what that identity has not; the tenant may be None.

        If either fails, there is no session. The first such failure is logged, and the snapshot's notes count them.
        """
        introspector = self.attached()
        if introspector is None:
            return
        try:
            given = identify()
            if given is None:
                return
            if not isinstance(given, Identity):
                raise ArgumentTypeError(f"identify must return an Identity or None, got {given!r:.200}")
            self._enter(introspector, stack, given.otherwise(default()))
        except Exception as fault:
            if is_interrupt(fault):
                raise
            self._unmeasured += 1
            if self._unmeasured == 1:
                self._log("one of the %s runs unmeasured, and others may: %s", self._what, fault, fault=fault)
            introspector.note("adapter", f"{self._what} that ran unmeasured: {self._unmeasured}; the log says why")

    def _enter(self, introspector: Introspector, stack: ExitStack, identity: Identity) -> None:
        session_id, agent_name = identity.session_id or "", identity.agent_name or ""
        metadata = {"tenant": identity.tenant} if identity.tenant else None
        try:
            stack.enter_context(introspector.session(session_id, agent_name=agent_name, metadata=metadata))
        except ArgumentError:  # a live session has the id
            another = f"{session_id[: MAX_NAME - 20]}#{next(self._taken)}"
            stack.enter_context(introspector.session(another, agent_name=agent_name, metadata=metadata))

    def _log(self, message: str, *arguments: object, fault: Exception) -> None:
        logger.warning(f"introspection of %s: {message}", self.process.name, *arguments, exc_info=fault)
