"""An asyncio event loop of our own, that works whatever a host has put in asyncio's place.

Libraries that let loops nest replace methods of the loops' classes, and the classes of tasks and futures, for the whole
process. On Python 3.14 such tasks are not what `asyncio.current_task()` tells of, and anyio cannot run in one.
"""

from __future__ import annotations

import asyncio
from typing import Any

try:
    from _asyncio import Future, Task  # those of asyncio itself, even where a host has replaced them before
except ImportError:  # a Python that has them not in C
    from asyncio import Future, Task


def _methods_of(kind: type) -> dict[str, Any]:
    """The methods of the class as they are now, those that it inherits included."""
    found: dict[str, Any] = {}
    for each in reversed(kind.__mro__[:-1]):
        found |= {name: value for name, value in vars(each).items() if callable(value) or isinstance(value, property)}
    return {name: value for name, value in found.items() if not name.startswith("__")}


class OwnLoop(asyncio.SelectorEventLoop):
    """asyncio's own, whatever the host's policy is: a thread's few connections need no other."""

    # Looked up here, what is put into the classes above later is not found.
    locals().update(_methods_of(asyncio.SelectorEventLoop))

    def __init__(self) -> None:
        super().__init__()
        self.set_debug(False)  # a host that debugs its own does not mean ours

    def create_future(self) -> Any:
        return Future(loop=self)

    def create_task(self, coro: Any, **options: Any) -> Any:
        return Task(coro, loop=self, **options)

    def __del__(self, *_: Any) -> None:
        """Not to be closed: where it was not, the process ends, or is a forked child that shares it with its parent."""
