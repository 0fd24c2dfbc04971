"""One introspector for a process whose loops belong to someone else."""

from __future__ import annotations

import asyncio
import atexit
import os
import threading
from collections.abc import Mapping
from typing import Any
from weakref import WeakSet

from .._introspector import Introspector
from .._loops.running_loop import Loop, loop_to_attach
from .._service.late_imports import load_late_imports


class ProcessIntrospector:
    """The introspector of a process, attached to each loop that uses it.

    It can be pickled; the copy starts anew in the process that unpickles it. Raises ArgumentError for a wrong option.
    It is made before sessions run, so what attaching would import is imported then.
    """

    def __init__(self, options: Mapping[str, Any]) -> None:
        load_late_imports()
        self._options = dict(options)
        self.name = Introspector(**options).name
        """The worker's name. The introspector behind it only checks the options, and is never started."""
        self._lock = threading.Lock()
        self._pid = 0
        self._loops: WeakSet[Loop] = WeakSet()
        self.introspector: Introspector | None = None
        """None: no loop uses it."""

    def __reduce__(self) -> tuple[Any, ...]:
        return ProcessIntrospector, (self._options,)

    def attached(self) -> Introspector:
        """Return the introspector, attached to the running loop until that is closed or given to `detached`.

        Raises StateError or EndpointError, as `Introspector.attach` does.
        """
        loop = loop_to_attach(None)
        with self._lock:
            if self.introspector is None or self._pid != os.getpid():
                self._pid = os.getpid()
                self._loops.clear()
                self.introspector = Introspector(**self._options)
                atexit.register(self.introspector.close)
            if loop not in self._loops:
                self.introspector.attach(loop)
                self._loops.add(loop)
            return self.introspector

    async def detached(self) -> None:
        """Detach from the running loop, and close the introspector if no other loop uses it.

        It does nothing if the loop is not attached.
        """
        loop = loop_to_attach(None)
        with self._lock:
            introspector = self.introspector
            if introspector is None or self._pid != os.getpid() or loop not in self._loops:
                return
            self._loops.discard(loop)
            if any(not _is_closed(each) for each in self._loops):
                introspector.detach(loop)
                return
            self.introspector = None
        atexit.unregister(introspector.close)
        await introspector.aclose()


def _is_closed(loop: Loop) -> bool:
    return isinstance(loop, asyncio.AbstractEventLoop) and loop.is_closed()
