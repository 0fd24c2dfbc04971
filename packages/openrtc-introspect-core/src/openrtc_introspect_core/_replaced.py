"""A method of an object that belongs to someone else, replaced on the instance for a while."""

from __future__ import annotations

from collections.abc import Callable
from functools import update_wrapper
from types import MethodType
from typing import Any

Method = Callable[..., Any]


class Replaced:
    """One method's replacement, in place until `put_back`.

    `make` is given what stood on the instance before, and returns the function that is called from now on, with the
    instance as its first argument. It is given None where only the instance's class has the method: its function then
    calls that by the class at each call, so that whoever patches the class meanwhile is heard.
    To whoever asks for its name, signature or docstring, the replacement is the original.

    Raises AttributeError where the instance has no such method, or does not let us.
    """

    def __init__(self, owner: Any, name: str, make: Callable[[Method | None], Method]) -> None:
        self._owner = owner
        self.name = name
        self._before: Method | None = getattr(owner, "__dict__", {}).get(name)
        self._over = False
        own: Any = getattr(type(owner), name, None)
        below = self._before
        if below is None and own is None:  # its class has none, and hands attributes on to some other object
            below = getattr(owner, name)
        shown: Any = own or below
        # Without annotations, which __wrapped__ has anyway: a function that was given some is called more slowly.
        function = update_wrapper(make(below), shown, ("__module__", "__name__", "__qualname__", "__doc__"), ())
        function.openrtc_replaced = self  # type: ignore[attr-defined]
        self._method = MethodType(function, owner)
        setattr(owner, name, self._method)

    def is_reached(self) -> bool:
        """Whether a call comes to this one: at once, or through others of ours. From any thread."""
        method = vars(self._owner).get(self.name)
        while method is not None and method is not self._method:
            above = _ours(method)
            method = above._before if above is not None else None
        return method is not None

    def put_back(self) -> bool:
        """Put back what stood there before. False: someone has replaced ours since, and theirs stays."""
        self._over = True
        if vars(self._owner).get(self.name) is not self._method:
            return False
        below = self._before
        while below is not None and (other := _ours(below)) is not None and other._over:
            below = other._before  # one of ours that could not be put back when its time was over
        delattr(self._owner, self.name)
        if below is not None:
            setattr(self._owner, self.name, below)
        return True


def _ours(method: Any) -> Replaced | None:
    """What put this method in its place, if that was one of us."""
    found = getattr(method, "openrtc_replaced", None)
    return found if isinstance(found, Replaced) else None
