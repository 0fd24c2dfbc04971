"""One task's wait, as it was found, and whoever looks: the parts that rules share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextvars import ContextVar
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

from .._loops.await_chain import call_in, code_of
from .._os.stacks import Call, Places
from .._sessions.session import Session

Line = tuple[str, int, str]
"""(file, line, function)."""


class TaskWait(NamedTuple):
    """What a suspended task waits for."""

    kind: str
    """A name in the table of kinds, `_diagnosis/wait_kind.py`."""
    target: Any = None
    """The object that is waited for, for its identity. None: not known, or nobody else can wait for the same."""
    what: str = ""
    """A description in English: `asyncio.Lock`, `asyncio.Queue, empty`. Empty: the kind says all."""
    chain: tuple[Any, ...] = ()
    """The suspended coroutines, outermost first: the task's, and those of tasks that only wrap what it waits for."""
    through: tuple[Any, ...] = ()
    """Those tasks: wait_for, shield and gather make them of what they are given. They wait for nothing else."""

    @property
    def calls(self) -> list[Call]:
        """Return the calls that the chain is in, outermost first.

        Read at once: the task goes on as soon as the GIL is given away.
        """
        return [call for each in self.chain if (call := call_in(each)) is not None]


class Looker(NamedTuple):
    """Whose wait is looked at."""

    session: Session | None
    """The waiting task's session."""
    binding: ContextVar[Any]
    """The context variable of the session that is bound."""
    follow: Callable[[Any, Any], TaskWait]
    """From a task that only wraps what is waited for, and who looks, to what that is."""
    depth: int = 0
    """How many futures and tasks were looked through so far."""

    def deeper(self) -> Looker:
        """Return who looks through one more."""
        return self._replace(depth=self.depth + 1)


_names: WeakKeyDictionary[type, str] = WeakKeyDictionary()


def describe(target: object) -> str:
    """Return the name of an object's class, with the library that it is of if it is one of those with tables."""
    kind = type(target)
    name = _names.get(kind)
    if name is None:
        library = kind.__module__.partition(".")[0]
        name = f"{library}.{kind.__name__}" if library in ("asyncio", "anyio", "trio") else kind.__name__
        _names[kind] = name
    return name


def line_in(chain: Sequence[Any], places: Places) -> Line | None:
    """Return the innermost line of the user's own code in an await chain, else the innermost; None: there is none."""
    shown = None
    for suspended in reversed(chain):
        code = code_of(suspended)
        if code is None or places.is_own(code.co_filename):
            continue
        if places.is_users(code.co_filename):
            shown = suspended
            break
        shown = shown if shown is not None else suspended
    call = call_in(shown) if shown is not None else None
    return (call.file, call.line, call.function) if call is not None else None
