"""A method of an object that belongs to someone else, replaced for a while."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def replace(owner: Any, name: str, replacement: Any) -> Callable[[], bool]:
    """Sets it on the instance. Returns what puts back what stood there.

    That tells whether it could: it does nothing where someone has replaced it again since. Raises AttributeError
    where the object does not let us.
    """
    before = getattr(owner, "__dict__", {}).get(name)
    setattr(owner, name, replacement)

    def put_back() -> bool:
        if vars(owner).get(name) is not replacement:
            return False
        delattr(owner, name)
        if before is not None:
            setattr(owner, name, before)
        return True

    return put_back
