"""Rules: the functions of libraries in which tasks wait, and what they wait for there.

A table (asyncio_rules, anyio_rules, trio_rules) has a rule for each function, by the module's file and the function's
qualified name. So no library has to be loaded, and one that is patched or vendored is recognised as well.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from types import CellType, CodeType
from typing import Any

from .._loops.await_chain import locals_of
from .found import Looker, TaskWait, describe

Reading = Callable[[list[Any], TaskWait | None, Looker], TaskWait | None]
"""From a function's variables, its arguments first, and what is known from the functions that it awaits, to what a task
waits for in it. None: the rule does not apply."""


@dataclass(frozen=True, slots=True)
class Rule:
    """What a task waits for in one function.

    Without a kind and a reading the rule is transparent: the function waits for what it awaits. With a description it
    only names that better.
    """

    kind: str = ""
    what: str = ""
    """A description; empty: the class of the target. `{}` stands for that class."""
    owner: str = ""
    """The class of the function's first argument, which is the target, or has it. Empty: there is no target."""
    state: str = ""
    """The attribute of the owner that is the target. Empty: the owner itself."""
    refines: tuple[str, ...] = ()
    """The kinds of waits inside of it that it describes better: a queue's `join` waits for an event."""
    reading: Reading | None = None

    def apply(self, suspended: Any, inner: TaskWait | None, looker: Looker) -> TaskWait | None:
        """Return what is waited for in a call of the function. None: the rule says nothing.

        inner: what is known from the functions that it awaits.
        """
        if self.reading is not None:
            return self.reading(variables_of(suspended), inner, looker)
        if not self.kind:
            return inner._replace(what=self.what) if inner is not None and self.what else None
        target = self._target(suspended)
        return TaskWait(self.kind, target, self.what.replace("{}", describe(target)) if self.what else _named(target))

    def _target(self, suspended: Any) -> Any:
        if not self.owner:
            return None
        owner = next(iter(variables_of(suspended)), None)
        if not _is_a(type(owner), self.owner):
            return None
        return vars_of(owner).get(self.state) if self.state else owner


def variables_of(suspended: Any) -> list[Any]:
    """Return the values of a function's variables, its arguments first, those that inner functions share included."""
    return [_content(each) if type(each) is CellType else each for each in locals_of(suspended)]


def _content(cell: CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # the cell is empty
        return None


def vars_of(owner: object) -> dict[str, Any]:
    """Return the attributes of an object by name, without a call of its class."""
    try:
        found: dict[str, Any] = object.__getattribute__(owner, "__dict__")
    except AttributeError:
        found = {}
        for kind in type(owner).__mro__:
            for name in _slots(kind):
                try:
                    found[name] = object.__getattribute__(owner, name)
                except AttributeError:
                    continue
    return found


def _slots(kind: type) -> Iterable[str]:
    slots = vars(kind).get("__slots__", ())
    return (slots,) if isinstance(slots, str) else slots


def _named(target: object) -> str:
    return describe(target) if target is not None else ""


def _is_a(kind: type, name: str) -> bool:
    return kind.__name__ == name or any(each.__name__ == name for each in kind.__mro__)


Table = dict[str, dict[str, Rule]]
"""Rules by the end of the file's path, and by the function's qualified name."""


_MAX_KNOWN = 4096


class Rules:
    """The rules of several tables, found by a function's code."""

    def __init__(self, tables: Iterable[Table]) -> None:
        self._by_function: dict[str, list[tuple[str, Rule]]] = {}
        self._known: dict[tuple[str, str], Rule | None] = {}
        """Those that were looked for, by the file and the function."""
        for table in tables:
            for file, rules in table.items():
                for function, rule in rules.items():
                    self._by_function.setdefault(function, []).append((file, rule))

    def of(self, code: CodeType | None) -> Rule | None:
        """Return the rule of a function. None: no table has it."""
        if code is None or (candidates := self._by_function.get(code.co_qualname)) is None:
            return None
        key = code.co_filename, code.co_qualname
        try:
            return self._known[key]
        except KeyError:
            file = code.co_filename.replace("\\", "/")
            rule = next((rule for end, rule in candidates if file.endswith(end)), None)
            if len(self._known) < _MAX_KNOWN:
                self._known[key] = rule
            return rule


TRANSPARENT = Rule()
