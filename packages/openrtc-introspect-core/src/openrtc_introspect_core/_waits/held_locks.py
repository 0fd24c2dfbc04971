"""The locks that a suspended coroutine holds: those whose `with` or `async with` it is inside of.

While a coroutine is inside the body of a `with`, the exit is on its value stack, which `gc.get_referents` shows: the
bound method whose `__self__` is the lock, up to Python 3.13; the function, and after it the lock, since. A coroutine
that is still in `__aenter__` does not hold the lock, and the one in `Condition.wait` has released it.

The coroutines that it awaits hold locks for it as well, and so do: the generator of a `@contextmanager` or an
`@asynccontextmanager`, what was entered on an `ExitStack` or an `AsyncExitStack`, and the generator that an
`async for` or a `for` goes through.
"""

from __future__ import annotations

import contextlib
import gc
import sys
from collections.abc import Iterator, Sequence
from types import (
    AsyncGeneratorType,
    BuiltinMethodType,
    CoroutineType,
    FrameType,
    FunctionType,
    GeneratorType,
    MethodDescriptorType,
    MethodType,
)
from typing import Any, NamedTuple

from .._accounting.meter import drive, is_metered
from .._os.stacks import MAX_FRAMES, Call
from .._os.variables import variables_of
from .locks import attribute, inner_lock, is_lock
from .with_blocks import ENTERS, EXITS, with_blocks


class HeldLock(NamedTuple):
    """A lock that a coroutine holds."""

    lock: object
    """The lock itself; of a condition or an adapter, the lock inside, see `inner_lock`."""
    taken_at: Call | None
    """The place of the `with`. None: it is not known."""


_SUSPENDED: dict[type, tuple[str, str, str]] = {
    CoroutineType: ("cr_frame", "cr_code", "cr_await"),
    GeneratorType: ("gi_frame", "gi_code", "gi_yieldfrom"),
    AsyncGeneratorType: ("ag_frame", "ag_code", "ag_await"),
}
_WRAPPERS = frozenset({"async_generator_asend", "async_generator_athrow", "coroutine_wrapper", "anext_awaitable"})
"""The types of what stands between a coroutine and another one, or an async generator, that it awaits."""

_GENERATORS = frozenset({GeneratorType, AsyncGeneratorType})
_BOUND = frozenset({MethodType, BuiltinMethodType})
_UNBOUND = frozenset({FunctionType, MethodDescriptorType}) if sys.version_info >= (3, 14) else frozenset()
_FUNCTIONS = _BOUND | _UNBOUND
_OF_INTEREST = (_FUNCTIONS | _GENERATORS) - {FunctionType}
"""The types of exits and of generators. A frame refers to its own function, so one function says nothing."""

_EXIT_NAMES = frozenset({"__exit__", "__aexit__"})
_BEFORE_AWAITED = {ENTERS: (2,), EXITS: (4, 5)} if _UNBOUND else {ENTERS: (1,), EXITS: (4,)}
"""By how many places the innermost exit is before what is awaited; between them are the lock, and what was raised."""

_MANAGERS = (contextlib._GeneratorContextManager, contextlib._AsyncGeneratorContextManager)
_EXIT_STACKS = (contextlib.ExitStack, contextlib.AsyncExitStack)

_MAX_GENERATORS = 32
"""Generators that are looked into for one coroutine."""


def held_locks(coro: Any) -> list[HeldLock]:
    """Return the locks that a suspended coroutine, or async generator, holds, each of them exactly known.

    Those that it has taken by `acquire` are not among them. The outermost are first. From any thread, with the GIL.
    """
    held: list[HeldLock] = []
    pending: list[Any] = [coro]
    seen: list[Any] = []
    for each in pending:  # the list grows meanwhile
        _look_along(each, held, pending, seen)
    return held


def _look_along(awaitable: Any, held: list[HeldLock], pending: list[Any], seen: list[Any]) -> None:
    """Add the locks held along an await chain, and the generators that hold more of them.

    seen: the generators that were looked into.
    """
    for _ in range(MAX_FRAMES):
        kind = type(awaitable)
        names = _SUSPENDED.get(kind)
        if names is None:
            awaitable = _wrapped(awaitable)
            if awaitable is None:
                return
            continue
        if kind in _GENERATORS:
            if getattr(awaitable, "gi_code", None) is drive.__code__:
                awaitable = _wrapped(awaitable)
                continue
            if len(seen) == _MAX_GENERATORS or any(awaitable is each for each in seen):
                return
            seen.append(awaitable)
        frame_of, code_of, awaits = names
        awaited = getattr(awaitable, awaits)
        referents = gc.get_referents(awaitable)
        kinds = list(map(type, referents))
        if not _OF_INTEREST.isdisjoint(kinds) or (_UNBOUND and kinds.count(FunctionType) > 1):
            _look_at(awaitable, frame_of, referents, awaited, held, pending)
        if held and getattr(awaitable, code_of).co_qualname.endswith("Condition.wait"):
            _forget_released(referents, held)
        awaitable = awaited


def _wrapped(awaitable: Any) -> Any:
    """Return the coroutine or generator that is awaited through this object. None: there is none."""
    name = type(awaitable).__name__
    if name == "FutureIter" or not (name in _WRAPPERS or is_metered(awaitable) or type(awaitable) is GeneratorType):
        return None
    found = [each for each in gc.get_referents(awaitable) if type(each) in _SUSPENDED]
    return next((each for each in found if getattr(each, "gi_code", None) is not drive.__code__), None)


def _look_at(
    awaitable: Any, frame_of: str, referents: list[Any], awaited: Any, held: list[HeldLock], pending: list[Any]
) -> None:
    """Add what the frame of a coroutine or generator with these referents holds.

    Its frame is asked for only if it holds something: Python makes it then, and keeps it as long as the coroutine
    lives.
    """
    exits = [n for n, each in enumerate(referents) if type(each) in _FUNCTIONS and each.__name__ in _EXIT_NAMES]
    managers = {n: _manager(referents, n) for n in exits}
    generators = [each for each in referents if type(each) in _GENERATORS and each is not awaited]
    entering = bool(exits) and _enters(awaited, managers[exits[-1]])
    if not generators and not any(_may_hold(managers[n]) for n in exits[: len(exits) - entering]):
        return
    frame: FrameType | None = getattr(awaitable, frame_of)
    if frame is None:  # it has ended
        return
    if exits:
        awaits, known, _ = with_blocks(frame.f_code, frame.f_lasti)
        if awaits and _index(referents, awaited) - exits[-1] in _BEFORE_AWAITED[awaits]:
            del exits[-1]
        # If there are more of these places, one of the exits is called otherwise.
        places: Sequence[Call | None] = known if len(known) <= len(exits) else [None] * len(exits)
        # Variables that look like exits come before the stack.
        for n, place in zip(exits[len(exits) - len(places) :], places, strict=True):
            _look_into(managers[n], place, held, pending)
    if generators:
        pending += _iterated(frame, referents, generators)


def _enters(awaited: Any, manager: Any) -> bool:
    """Return whether a coroutine is this context manager's own `__aenter__`."""
    if type(awaited) is not CoroutineType or awaited.cr_code.co_name != "__aenter__":
        return False
    return any(each is manager for each in gc.get_referents(awaited))


def _index(referents: list[Any], awaited: Any) -> int:
    return next((n for n in range(len(referents) - 1, -1, -1) if referents[n] is awaited), -1)


def _manager(referents: list[Any], position: int) -> Any:
    """Return the object whose exit is at this position. None: it is a function, and no exit."""
    found = referents[position]
    if type(found) in _BOUND:
        return found.__self__
    return referents[position + 1] if position + 1 < len(referents) else None


def _may_hold(manager: Any) -> bool:
    kind = type(manager)
    return is_lock(manager) or issubclass(kind, _MANAGERS) or issubclass(kind, _EXIT_STACKS)


def _look_into(manager: Any, place: Call | None, held: list[HeldLock], pending: list[Any]) -> None:
    """Add what a context manager whose body a frame is in holds."""
    if is_lock(manager):
        held.append(HeldLock(inner_lock(manager), place))
    elif issubclass(type(manager), _MANAGERS):
        generator = attribute(manager, "gen")
        if type(generator) in _GENERATORS:
            pending.append(generator)
    elif issubclass(type(manager), _EXIT_STACKS):
        for each in _entered(manager):
            if each is not manager:
                _look_into(each, place, held, pending)


def _entered(stack: Any) -> Iterator[Any]:
    """Yield what was entered on an exit stack, and the locks whose `release` is to be called at its end."""
    for entry in tuple(attribute(stack, "_exit_callbacks") or ()):
        if type(entry) is not tuple or len(entry) != 2:
            continue
        callback = entry[1]
        release = attribute(callback, "__wrapped__")  # of a `callback`
        if release is not None:
            if type(release) in _BOUND and release.__name__ == "release" and is_lock(release.__self__):
                yield release.__self__
        elif type(callback) in _BOUND:
            yield callback.__self__


def _forget_released(referents: list[Any], held: list[HeldLock]) -> None:
    """Remove the lock of a condition that waits: it has released the lock meanwhile."""
    released = [inner_lock(each) for each in referents if is_lock(each)]
    held[:] = [each for each in held if all(each.lock is not lock for lock in released)]


def _iterated(frame: FrameType, referents: list[Any], generators: list[Any]) -> list[Any]:
    """Return the generators that a frame goes through, by `async for` or `for`: they are on its stack.

    A generator that only a variable of the frame refers to may be anyone's.
    """
    variables = variables_of(frame)
    if variables is None:
        return []
    in_cells = {*frame.f_code.co_cellvars, *frame.f_code.co_freevars}
    in_variables = [id(value) for name, value in variables.items() if name not in in_cells]
    in_all = list(map(id, referents))
    return [each for each in generators if in_all.count(id(each)) > in_variables.count(id(each))]
