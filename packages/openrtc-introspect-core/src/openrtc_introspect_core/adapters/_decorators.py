"""Checks of how a decorator of an adapter is used: a mistake shows where it is made, not at the first session."""

from __future__ import annotations

from collections.abc import Sequence

from .._base.errors import ArgumentTypeError


def check_called(name: str, positional: Sequence[object]) -> None:
    """Raise ArgumentTypeError if a decorator that is made by a call was put in place without one."""
    if positional:
        raise ArgumentTypeError(
            f'{name} takes its options by name, got {positional[0]!r:.200}: write @{name}() or @{name}(name="voice")'
        )


def check_callable(what: str, decorated: object) -> None:
    """Raise ArgumentTypeError if what is decorated is no function. what: what it should be, with its article."""
    if not callable(decorated):
        raise ArgumentTypeError(f"{what} must be a function, got {decorated!r:.200}")
