"""The callbacks of futures: their names, and what they hold."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator
from types import FunctionType, MethodType
from typing import Any

from .._accounting.called_function import free_variables


def closures(callbacks: Iterable[Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the name of each of a future's callbacks, and the variables in its closure by name.

    callbacks: of asyncio's futures pairs of a callback and its context; of those of threads the callbacks. Of a
    callback that is no Python function the name is empty.
    """
    for entry in tuple(callbacks):
        callback = entry[0] if type(entry) is tuple else entry
        while type(callback) is functools.partial:
            callback = callback.func
        if type(callback) is MethodType:
            callback = callback.__func__
        if type(callback) is FunctionType:
            yield callback.__qualname__, free_variables(callback)
        else:
            yield "", {}
