"""The tables of fields in the protocol's page, from the messages' docstrings.

`python -m openrtc_introspect_core.wire.fields docs/wire-protocol.md` writes them into the page anew, each between two
comments: `<!-- fields of NAME -->` and `<!-- end of fields -->`. The rest of the page stays as it is.
"""

from __future__ import annotations

import ast
import inspect
import itertools
import json
import re
import sys
import types
import typing
from collections.abc import Container, Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import msgspec

from . import _messages

_REGION = re.compile(r"(?<=^<!-- fields of )(\w+)( -->\n).*?(?=^<!-- end of fields -->$)", re.MULTILINE | re.DOTALL)
_SECTIONS = {"Process mode": "#process-mode"}
"""Sections of the page that a docstring may send its reader to, by "see NAME"."""

_NAMES = {int: "integer", float: "number", str: "string", bool: "boolean", types.NoneType: "null"}


def fill(page: str, sources: Sequence[ModuleType] = (_messages,)) -> str:
    """Return the page with each of its tables of fields made anew.

    sources: the modules that the page describes the messages of; it links to the protocol's page for others.

    Raises KeyError if it names a message that does not exist, ValueError if a field has no docstring.
    """
    return _REGION.sub(lambda region: f"{region[1]}{region[2]}\n{table(region[1], sources)}\n", page)


def table(name: str, sources: Sequence[ModuleType] = (_messages,)) -> str:
    """Return the table of a message's fields, as Markdown. Raises as `fill` does."""
    source = next((each for each in sources if getattr(vars(each).get(name), "__module__", "") == each.__name__), None)
    if source is None:
        raise KeyError(name)
    kind: type[msgspec.Struct] = vars(source)[name]
    docs = docstrings(name, source)
    here = frozenset(each.__name__ for each in sources)
    hints = typing.get_type_hints(kind)
    lines = ["| field | type | default | meaning |", "|---|---|---|---|"]
    for field in msgspec.structs.fields(kind):
        if field.name not in docs:
            raise ValueError(f"field {name}.{field.name} has no docstring")
        lines.append(
            f"| `{field.encode_name}` | {_type(hints[field.name], here)} | {_default(field)}| {docs[field.name]} |"
        )
    return "\n".join(lines) + "\n"


def docstrings(name: str, source: ModuleType = _messages) -> dict[str, str]:
    """Return a message's fields with their docstrings.

    Each docstring is on one line, with links into the page.
    """
    (message,) = (
        node
        for node in ast.parse(inspect.getsource(source)).body
        if isinstance(node, ast.ClassDef) and node.name == name
    )
    return dict(_documented(message.body))


def _documented(body: list[ast.stmt]) -> Iterator[tuple[str, str]]:
    for field, text in itertools.pairwise(body):
        match field, text:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(docstring))):
                yield name, _linked(" ".join(docstring.split()))


def _linked(text: str) -> str:
    for section, anchor in _SECTIONS.items():
        text = text.replace(f"see {section}", f"see [{section}]({anchor})")
    return text


def _type(hint: Any, here: Container[str], ending: str = "") -> str:
    """Return the cell of a type. here: the modules whose messages are on the same page."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        *first, last = (_type(each, here) for each in arguments)
        comma = "," if any(typing.get_origin(each) is list for each in arguments) else ""
        return f"{', '.join(first)}{comma} or {last}"
    if origin in (list, tuple):
        return f"list of {_type(arguments[0], here, 's')}"
    if origin is Literal:
        return "string"
    if issubclass(hint, msgspec.Struct):
        page = "" if hint.__module__ in here else "wire-protocol.md"
        return f"[{hint.__name__}]({page}#{hint.__name__.lower()})"
    if issubclass(hint, tuple):
        return f"`[{', '.join(hint._fields)}]`"
    return _NAMES[hint] + ending


def _default(field: msgspec.structs.FieldInfo) -> str:
    """Return the cell of its default.

    It is empty if there is none, or if it is a message of defaults.
    """
    default = field.default if field.default_factory is msgspec.NODEFAULT else field.default_factory()
    if default is msgspec.NODEFAULT or isinstance(default, msgspec.Struct):
        return ""
    return f"`{json.dumps(default)}` "


if __name__ == "__main__":
    for path in map(Path, sys.argv[1:]):
        path.write_text(fill(path.read_text(encoding="utf-8")), encoding="utf-8")
