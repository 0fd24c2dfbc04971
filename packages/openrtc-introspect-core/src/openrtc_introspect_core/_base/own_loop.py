"""An asyncio event loop that works whatever the host has replaced in asyncio.

Libraries that nest event loops replace methods of the loops' classes, and the classes of tasks and futures, for the
whole process. On Python 3.14 `asyncio.current_task()` does not return such tasks, and anyio cannot run in one.
"""

from __future__ import annotations

import asyncio
from typing import Any

try:
    from _asyncio import Future, Task  # asyncio's own, even if the host has replaced them before
except ImportError:  # a Python without the C versions
    from asyncio import Future, Task


def _methods_of(kind: type) -> dict[str, Any]:
    """Return the methods that the class has now, inherited ones included."""
    found: dict[str, Any] = {}
    for each in reversed(kind.__mro__[:-1]):
        found |= {name: value for name, value in vars(each).items() if callable(value) or isinstance(value, property)}
    return {name: value for name, value in found.items() if not name.startswith("__")}


class OwnLoop(asyncio.SelectorEventLoop):
    """An asyncio loop independent of the host's policy and of patched classes."""

    # Defined in this class, the methods take precedence over those that are patched into the base classes later.
    locals().update(_methods_of(asyncio.SelectorEventLoop))

    def __init__(self) -> None:
        super().__init__()
        self.set_debug(False)  # PYTHONASYNCIODEBUG is meant for the host's loops

    def create_future(self) -> Any:
        return Future(loop=self)

    def create_task(self, coro: Any, **options: Any) -> Any:
        if options.get("name") is None:
            options["name"] = "openrtc-introspect"  # asyncio numbers tasks without a name: those numbers are the host's
        return Task(coro, loop=self, **options)

    def __del__(self, *_: Any) -> None:
        """Do nothing, where asyncio warns of a loop that was not closed.

        The process ends then, or is a forked child that shares the loop's files with its parent.
        """
