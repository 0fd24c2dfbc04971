"""Processes that the program starts with multiprocessing: each is a worker of its own.

A forked child keeps what this process has replaced. A spawned one starts afresh, and is sent what it needs to prepare
itself: one more entry there attaches to its loops. The entry is made of nothing but what Python has, so that a child
in which this package is missing starts as well.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from .._base.import_hook import WhenImported
from .._base.replaced_method import Replaced

FOLLOW = """\
try:
    from openrtc_introspect_core._run.process import follow
except ImportError:
    pass
else:
    follow({!r})
"""


class Following:
    """What a spawned child unpickles while it prepares itself."""

    def __init__(self, options: Mapping[str, Any]) -> None:
        self._options = dict(options)

    def __reduce__(self) -> tuple[Any, ...]:
        return exec, (FOLLOW.format(self._options), {})


def follow_children(options: Callable[[], Mapping[str, Any] | None]) -> None:
    """Attach to the loops of the children that are spawned from now on.

    options: returns those of the introspector of a child; None: the child is left alone.
    """

    def preparing(below: Any) -> Callable[..., Any]:
        def get_preparation_data(module: Any, name: str) -> dict[str, Any]:
            data: dict[str, Any] = below(name)
            if (given := options()) is not None:
                data["openrtc_introspect_core"] = Following(given)
            return data

        return get_preparation_data

    def see() -> None:
        from multiprocessing import spawn

        Replaced(spawn, "get_preparation_data", preparing)

    WhenImported("multiprocessing.spawn", see).__enter__()
