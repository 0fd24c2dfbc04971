"""The runbooks that are shipped with this command: Markdown files, beside this module."""

from __future__ import annotations

import difflib
from importlib.resources import files
from importlib.resources.abc import Traversable

_INDEX = "README"


def _folder() -> Traversable:
    return files("openrtc_top") / "runbooks"


def names() -> list[str]:
    """Those there are, in the order of the alphabet."""
    found = [entry.name.removesuffix(".md") for entry in _folder().iterdir() if entry.name.endswith(".md")]
    return sorted(name for name in found if name != _INDEX)


def text(name: str) -> str:
    """A runbook's Markdown. Raises KeyError where there is none of that name."""
    if name not in names():
        raise KeyError(name)
    return (_folder() / f"{name}.md").read_text(encoding="utf-8")


def summary(name: str) -> str:
    """What it is for: the first line of text below its title."""
    lines = [line.strip() for line in text(name).splitlines()]
    return next((line for line in lines if line and not line.startswith("#")), "")


def like(name: str) -> list[str]:
    """The names that may have been meant, the nearest first."""
    parts = [known for known in names() if name and (name in known or known in name)]
    return list(dict.fromkeys([*parts, *difflib.get_close_matches(name, names(), n=3, cutoff=0.4)]))
