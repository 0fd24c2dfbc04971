"""The runbooks that are shipped with this command: Markdown files in the package."""

from __future__ import annotations

import difflib
from importlib.resources import files
from importlib.resources.abc import Traversable

_INDEX = "README"


def _folder() -> Traversable:
    return files("openrtc_top") / "runbooks"


def names() -> list[str]:
    """Return the names of the runbooks, in alphabetical order."""
    found = [entry.name.removesuffix(".md") for entry in _folder().iterdir() if entry.name.endswith(".md")]
    return sorted(name for name in found if name != _INDEX)


def text(name: str) -> str:
    """Return a runbook's Markdown. Raises KeyError if there is none of that name."""
    if name not in names():
        raise KeyError(name)
    return (_folder() / f"{name}.md").read_text(encoding="utf-8")


def summary(name: str) -> str:
    """Return what it is for: the first line of text below its title."""
    lines = [line.strip() for line in text(name).splitlines()]
    return next((line for line in lines if line and not line.startswith("#")), "")


def like(name: str) -> list[str]:
    """Return the names that may have been meant, the nearest first."""
    parts = [known for known in names() if name and (name in known or known in name)]
    return list(dict.fromkeys([*parts, *difflib.get_close_matches(name, names(), n=3, cutoff=0.4)]))
