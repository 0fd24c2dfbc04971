"""A call that is made once a module is imported, if it ever is."""

from __future__ import annotations

import contextlib
import importlib.util
import sys
from collections.abc import Callable, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType


class WhenImported(MetaPathFinder):
    """A context manager that calls `then` once the module `name` is imported.

    The import may come before the context manager or inside it; the call is made once.
    """

    def __init__(self, name: str, then: Callable[[], None]) -> None:
        self._name = name
        self._then = then

    def __enter__(self) -> WhenImported:
        if self._name in sys.modules:
            self._then()
        else:
            sys.meta_path.insert(0, self)
        return self

    def __exit__(self, *error: object) -> None:
        with contextlib.suppress(ValueError):
            sys.meta_path.remove(self)

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != self._name or self not in sys.meta_path:
            return None
        self.__exit__()
        spec = importlib.util.find_spec(fullname)
        if spec is not None and spec.loader is not None:
            loader = spec.loader
            execute = loader.exec_module

            def executed(module: ModuleType) -> None:
                del loader.exec_module  # the one that is set below
                execute(module)
                self._then()

            loader.exec_module = executed  # type: ignore[method-assign]
        return spec
