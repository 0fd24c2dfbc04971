"""A function of a library that is replaced for the whole process, while any loop of any introspector is attached.

Some libraries hand calls to threads by a function that all loops share. It is replaced once, when the first loop is
attached and the library is loaded, and put back when the last one is detached. A library that is not loaded then is
looked for again, once a second: it is never loaded for this.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from typing import Any

from .._accounting.ledger import Ledger
from .._accounting.thread_calls import ThreadCalls
from .._base import fork
from .._base.interrupts import is_interrupt
from .._base.replaced_method import Method, Replaced

See = Callable[["Note", Any], Any]
"""Returns what to hand to the thread instead of a function: what the note returns for each loop that the calling code
runs on, in turn. Raises nothing but interrupts."""

Make = Callable[[See, Method], Method]
"""Takes `see` and the library's function, and returns the one that takes its place, with the owner as its first
argument."""


class Watched:
    """One loop whose calls are seen."""

    __slots__ = ("calls", "ledger", "runs_here")

    def __init__(self, ledger: Ledger, calls: ThreadCalls, runs_here: Callable[[], bool]) -> None:
        self.ledger = ledger
        self.calls = calls
        self.runs_here = runs_here
        """Returns whether the calling code runs on this loop."""


Note = Callable[[Watched, Any], Any]


class ProcessSeam:
    """The replacement of one function of a library.

    module, owner, name: where the function is; owner: the class that it is a classmethod of. None: the module itself.
    """

    def __init__(self, module: str, owner: str | None, name: str, make: Make) -> None:
        self._module, self._owner, self._name = module, owner, name
        self._make = make
        self._replaced: Replaced | None = None
        self._watched: tuple[Watched, ...] = ()
        self._lock = threading.RLock()
        fork.shared.append(self)

    def add(self, watched: Watched) -> Callable[[], None]:
        """See this loop's calls from now on. Return the function that undoes it."""
        with self._lock:
            self._watched = (*self._watched, watched)
            self.replace_if_loaded()
        return lambda: self._discard(watched)

    def _discard(self, watched: Watched) -> None:
        with self._lock:
            self._watched = tuple(each for each in self._watched if each is not watched)
            replaced = self._replaced
            if not self._watched and replaced is not None:
                self._replaced = None
                replaced.put_back()

    @property
    def in_effect(self) -> bool:
        """Whether the library's function is replaced."""
        return self._replaced is not None

    def replace_if_loaded(self) -> None:
        """Replace the function if a loop is attached and the library is loaded by now. Raise no Exception.

        A library whose function is not where it is looked for stays as it is.
        """
        if self._replaced is not None or not self._watched or self._module not in sys.modules:
            return
        with self._lock:
            owner: Any = sys.modules.get(self._module)
            if self._owner is not None:
                owner = getattr(owner, self._owner, None)  # None as well while the library is being loaded
            if not self.in_effect and self._name in getattr(owner, "__dict__", ()):
                try:
                    self._replaced = Replaced(owner, self._name, lambda before: self._layer(_bound(before, owner)))
                except Exception as error:
                    self._failed(error)

    def _failed(self, error: Exception) -> None:
        if is_interrupt(error):
            raise error
        for watched in self._watched:
            watched.calls.failed(error)

    def here(self) -> list[Watched]:
        """Return the loops of this list that the calling code runs on: one for each introspector."""
        return [each for each in self._watched if each.calls.on and each.runs_here()]

    def _layer(self, before: Method) -> Method:
        """Return what takes the function's place. It sees calls until it is put back.

        Someone else may have replaced it since, and still call it then: another one of ours above that sees them.
        """

        def see(note: Note, func: Any) -> Any:
            replaced = self._replaced
            if replaced is not None and replaced.is_(layer):
                for watched in self.here():
                    func = _noted(note, watched, func)
            return func

        layer = self._make(see, before)
        return layer

    def abandon_after_fork(self) -> None:
        """Forget who may have held the lock; the child's introspectors detach themselves."""
        self._lock = threading.RLock()


def _noted(note: Note, watched: Watched, func: Any) -> Any:
    try:
        return note(watched, func)
    except Exception as error:
        if is_interrupt(error):
            raise
        watched.calls.failed(error)
        return func


def _bound(before: Any, owner: Any) -> Method:
    """Return the function that was replaced, as a call through its owner reaches it."""
    bound: Method = before.__get__(None, owner) if isinstance(owner, type) else before
    return bound
