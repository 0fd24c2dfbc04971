"""Where code is: from live frames to locations, and which of them are the user's own.

Looking at another thread's frames is cheap: code objects and line numbers are taken, nothing else.
Files, names and whose they are is worked out afterwards, once per block.
"""

from __future__ import annotations

import os
import site
import sys
import sysconfig
import threading
from collections.abc import Collection, Sequence
from functools import lru_cache
from inspect import CO_ASYNC_GENERATOR, CO_COROUTINE, CO_GENERATOR, CO_ITERABLE_COROUTINE
from pathlib import Path
from types import CodeType, FrameType
from typing import NamedTuple

from ._gil import has_gil
from .wire._messages import Location

MAX_FRAMES = 64
"""Frames taken of one stack, from the innermost."""

AWAITING = CO_COROUTINE | CO_ASYNC_GENERATOR | CO_ITERABLE_COROUTINE | CO_GENERATOR
"""Whose frames a coroutine may be called from, by awaiting it."""

_OWN = os.path.dirname(os.path.abspath(__file__)) + os.sep


class Call(NamedTuple):
    """One frame of a stack, as it was at one moment."""

    code: CodeType
    line: int
    module: str | None = None
    """The module that this call is importing, where it is the import system's."""


def frames_now() -> dict[int, FrameType]:
    """The innermost frame of each thread, by its id: of all; without a GIL of the calling one alone."""
    return sys._current_frames() if has_gil() else {threading.get_ident(): sys._getframe(1)}


def take(
    frame: FrameType | None, ends: Collection[CodeType], *, in_c: bool = False
) -> tuple[list[Call], FrameType | None]:
    """The calls from `frame` outwards, innermost first, and the frame of one of `ends` that they end at.

    `in_c`: who drives tasks has no frame. Then calls end at a coroutine that was called by none.
    """
    calls: list[Call] = []
    while frame is not None and len(calls) < MAX_FRAMES:
        code = frame.f_code
        if code in ends:
            return calls, frame
        if in_c and calls and calls[-1].code.co_flags & CO_COROUTINE and not code.co_flags & AWAITING:
            return calls, None
        module = frame.f_locals.get("name") if _imports(code) else None
        calls.append(Call(code, frame.f_lineno or code.co_firstlineno, module))
        frame = frame.f_back
    return calls, None


def _imports(code: CodeType) -> bool:
    return code.co_name == "_find_and_load" and code.co_filename == "<frozen importlib._bootstrap>"


class Places:
    """Turns calls into locations. `roots`: the user's code; None: all but the stdlib and site-packages."""

    def __init__(self, roots: Sequence[str | os.PathLike[str]] | None = None) -> None:
        self._roots = None if roots is None else tuple(_folder(root) for root in roots)
        self._cwd = _folder(Path.cwd())
        self.is_users = lru_cache(maxsize=4096)(self._is_users)
        self.shown = lru_cache(maxsize=4096)(self._shown)

    def stack(self, calls: Sequence[Call]) -> list[Location]:
        """Innermost last, without our own frames."""
        return [self.location(call) for call in reversed(calls) if not call.code.co_filename.startswith(_OWN)]

    def location(self, call: Call) -> Location:
        return Location(file=self.shown(call.code.co_filename), line=call.line, function=call.code.co_qualname)

    def innermost(self, calls: Sequence[Call]) -> Call | None:
        """The innermost call of the user's own code, else the innermost of all; None of none."""
        others = [call for call in calls if not call.code.co_filename.startswith(_OWN)]
        return next((call for call in others if self.is_users(call.code.co_filename)), others[0] if others else None)

    def _is_users(self, file: str) -> bool:
        if file.startswith(_OWN):
            return False
        if self._roots is not None:
            return os.path.abspath(file).startswith(self._roots)
        if file.startswith("<"):  # <frozen importlib._bootstrap>, <string>
            return not file.startswith("<frozen ")
        path = os.path.abspath(file)
        return not path.startswith(_installed()) and not path.startswith(_stdlib())

    def _shown(self, file: str) -> str:
        if file.startswith("<"):
            return file
        path = os.path.abspath(file)
        for folder in (*(self._roots or ()), self._cwd, *_installed(), *_stdlib()):
            if path.startswith(folder):
                return path[len(folder) :]
        return path

    @staticmethod
    def load() -> None:
        """Looks up now, on this thread, what it would look up, and import, where it is first needed."""
        _installed()
        _stdlib()


def _folder(path: str | os.PathLike[str]) -> str:
    return os.path.join(os.path.abspath(path), "")


@lru_cache(maxsize=1)
def _installed() -> tuple[str, ...]:
    paths = sysconfig.get_paths()
    folders = {paths["purelib"], paths["platlib"], *site.getsitepackages(), site.getusersitepackages()}
    return tuple(sorted((_folder(folder) for folder in folders), key=len, reverse=True))


@lru_cache(maxsize=1)
def _stdlib() -> tuple[str, ...]:
    paths = sysconfig.get_paths()
    return tuple({_folder(paths["stdlib"]), _folder(paths["platstdlib"]), _folder(os.path.dirname(os.__file__))})
