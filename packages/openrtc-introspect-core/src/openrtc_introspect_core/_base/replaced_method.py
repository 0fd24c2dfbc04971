"""Replacing a method of an object of the host's, on the instance, for a while.

The object may be a class, with a method of its instances or a classmethod, or a module with a function.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import update_wrapper
from types import MethodType
from typing import Any

Method = Callable[..., Any]


class Replaced:
    """The replacement of one method, in effect until `put_back`.

    make: takes the instance's own attribute of that name, as it is kept there (a classmethod not bound to its class),
        or None if only its class has the method. Returns the function that is called from now on, with the instance as
        its first argument. If it was given None, the function must look the method up in the class at each call, so
        that a patch of the class takes effect.

    The replacement has the name, signature and docstring of the original. Raises AttributeError if the instance has
    no such method, or its attributes cannot be set.
    """

    def __init__(self, owner: Any, name: str, make: Callable[[Method | None], Method]) -> None:
        self._owner = owner
        self.name = name
        self._before: Method | None = getattr(owner, "__dict__", {}).get(name)
        self._over = False
        own: Any = getattr(type(owner), name, None)
        below = self._before
        if below is None and own is None:  # a proxy, whose attributes are those of another object
            below = getattr(owner, name)
        shown: Any = own or below
        # Without annotations, which __wrapped__ has anyway: calls of a function that was given some are slower.
        function = update_wrapper(make(below), shown, ("__module__", "__name__", "__qualname__", "__doc__"), ())
        function.openrtc_replaced = self  # type: ignore[attr-defined]
        of_instances = isinstance(owner, type) and not isinstance(self._before, classmethod)
        self._method: Method = function if of_instances else MethodType(function, owner)
        setattr(owner, name, self._method)

    def is_reached(self) -> bool:
        """Return whether a call reaches this replacement. From any thread.

        It may come through other replacements of this kind.
        """
        method = vars(self._owner).get(self.name)
        while method is not None and method is not self._method:
            above = _ours(method)
            method = above._before if above is not None else None
        return method is not None

    def is_(self, function: Method) -> bool:
        """Return whether `function` is the one that `make` returned."""
        return getattr(self._method, "__func__", self._method) is function

    def put_back(self) -> bool:
        """Restore the attribute.

        False: someone else has replaced it since, and their replacement stays.
        """
        self._over = True
        if vars(self._owner).get(self.name) is not self._method:
            return False
        below = self._before
        while below is not None and (other := _ours(below)) is not None and other._over:
            below = other._before  # one of ours that could not be put back in time
        if below is not None:  # at once: other threads may call it, if the owner is a class or a module
            setattr(self._owner, self.name, below)
        else:
            delattr(self._owner, self.name)
        return True


def _ours(method: Any) -> Replaced | None:
    """Return the replacement that this method belongs to, if any."""
    found = getattr(method, "openrtc_replaced", None)
    return found if isinstance(found, Replaced) else None
