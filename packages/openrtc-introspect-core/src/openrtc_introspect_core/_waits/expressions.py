"""The expression that a frame calls, or enters, at one instruction: its names, and the object that they lead to.

The names are found by their place: those of `self.lock.acquire` all begin where the call begins. No code of the host
is run: attributes are read from where they are stored, so what a property would return is not known.
"""

from __future__ import annotations

import dis
import inspect
from itertools import islice
from opcode import opmap
from types import CodeType, FrameType, GetSetDescriptorType, MemberDescriptorType, ModuleType
from typing import Any, NamedTuple
from weakref import ref

from .._base.gil import yield_gil
from .._os.variables import variables_of

Path = tuple[str, ...]
"""Names with dots between them: `("self", "lock", "acquire")`."""

_BASES = ("LOAD_FAST", "LOAD_NAME", "LOAD_GLOBAL", "LOAD_DEREF")
_ATTRIBUTES = ("LOAD_ATTR", "LOAD_METHOD")
_MAX_KEPT = 256
_YIELD_EACH = 400
"""Instructions that are read before the GIL is given away."""

_UNIT = 2
"""Bytes of a code unit."""
_CACHE = opmap["CACHE"]
_BEFORE_WITH = {opmap[name] for name in ("BEFORE_WITH", "BEFORE_ASYNC_WITH") if name in opmap}
_LOAD_SPECIAL = opmap.get("LOAD_SPECIAL")


class Use(NamedTuple):
    """Names that the code looks up one after the other."""

    path: Path
    """The first name is empty if it is the result of a call, or of an operator."""
    line: int
    column: int
    offset: int
    """Of the instruction that looks up the last of them, or makes the result."""


_kept: dict[int, tuple[ref[CodeType], list[Use]]] = {}


def uses_of(code: CodeType) -> list[Use]:
    """Return what the code looks up, in the order of its instructions: `a.b.c` is three uses that begin alike.

    It gives the GIL away if it has not read this code before.
    """
    kept = _kept.get(id(code))
    if kept is not None and kept[0]() is code:
        return kept[1]
    uses: list[Use] = []
    paths: dict[tuple[int, int], Path] = {}
    last: Path | None = None
    for count, instruction in enumerate(dis.get_instructions(code), start=1):
        if count % _YIELD_EACH == 0:
            yield_gil()
        place = instruction.positions
        before, last = last, None
        if place is None or place.lineno is None or place.col_offset is None:
            continue
        begin, name = (place.lineno, place.col_offset), instruction.argval
        if instruction.opname.startswith(_BASES) and type(name) is str:
            paths[begin] = (name,)
        elif instruction.opname in _ATTRIBUTES and (begin in paths or before is not None):
            # An attribute on a line of its own begins there.
            paths[begin] = (*(before or paths[begin]), name)
        elif instruction.opname.startswith(("CALL", "BINARY_")) and begin in paths:
            paths[begin] = ("",)  # a result
        else:
            continue
        last = paths[begin]
        uses.append(Use(last, *begin, instruction.offset))
    if len(_kept) >= _MAX_KEPT:
        _kept.clear()
    _kept[id(code)] = ref(code), uses
    return uses


def path_at(code: CodeType, offset: int) -> Path | None:
    """Return the names of what the instruction at an offset calls, or of the context manager that it enters.

    offset: in bytes. The first name is empty if names alone do not lead to it, as in `locks[key].acquire()`. The last
    one is `__enter__` if it enters a context manager. None: the code does not know its places.
    """
    if not 0 <= offset < len(code.co_code):
        return None
    instructions = code.co_code
    begin = _begin_of(instructions, offset)
    enters = _enters(instructions, begin)
    # Up to Python 3.12, the place of BEFORE_WITH is that of the whole statement; what it enters is looked up before it.
    place = _place(code, begin - _UNIT if enters and begin else begin)
    found = [use for use in uses_of(code) if (use.line, use.column) == place and use.offset < begin]
    if not found:
        return None
    return (*found[-1].path, "__enter__") if enters else found[-1].path


def enters_with(code: CodeType, offset: int) -> bool:
    """Return whether the instruction at this offset enters a context manager."""
    return 0 <= offset < len(code.co_code) and _enters(code.co_code, _begin_of(code.co_code, offset))


def _begin_of(instructions: bytes, offset: int) -> int:
    """Return the offset of an instruction, given that of one of its inline caches."""
    while offset > 0 and instructions[offset] == _CACHE:
        offset -= _UNIT
    return offset


def _enters(instructions: bytes, begin: int) -> bool:
    before = instructions[begin - _UNIT] if begin else None
    return instructions[begin] in _BEFORE_WITH or (before is not None and before == _LOAD_SPECIAL)


def _place(code: CodeType, offset: int) -> tuple[int | None, int | None]:
    position = next(islice(code.co_positions(), offset // _UNIT, None), (None, None, None, None))
    return position[0], position[2]


def path_before(code: CodeType, offset: int) -> Path | None:
    """Return what `path_at` says of the instruction before this offset."""
    return path_at(code, offset - _UNIT)


class Names:
    """The names that a frame's code can use, with what they stand for now."""

    def __init__(self, frame: FrameType) -> None:
        self._frame = frame
        self._variables: dict[str, Any] | None = None

    @property
    def variables(self) -> dict[str, Any]:
        """Return the variables of the frame, those that it closes over included. Empty: they cannot be read."""
        if self._variables is None:
            self._variables = variables_of(self._frame) or {}
        return self._variables

    def value(self, path: Path) -> Any:
        """Return the object that names lead to. None: it is None, or is not known without running code."""
        name = path[0]
        code = self._frame.f_code
        if name in code.co_varnames or name in code.co_cellvars or name in code.co_freevars:
            value = self.variables.get(name)
        else:
            value = self._frame.f_globals.get(name)
        for each in path[1:]:
            value = stored(value, each)
        return value

    def reachable(self) -> list[Any]:
        """Return the objects that the code may name: variables, the globals that it uses, and what these store."""
        code = self._frame.f_code
        names = [self._frame.f_globals.get(name) for name in code.co_names]
        roots = [each for each in (*self.variables.values(), *names) if each is not None]
        inside = [stored(root, name) for root in roots for name in code.co_names]
        found = roots + [each for each in inside if each is not None]
        for each in tuple(found):
            if type(each) is dict and len(each) <= _MAX_ENTRIES:
                found += each.values()
            elif type(each) in (list, tuple) and len(each) <= _MAX_ENTRIES:
                found += each
        return found


_MAX_ENTRIES = 1000
"""Containers with more entries are not looked into."""


def stored(held: Any, name: str) -> Any:
    """Return the attribute that an object stores under this name. None: it stores none."""
    if held is None:
        return None
    if type(held) is ModuleType:
        return vars(held).get(name)
    try:
        found = inspect.getattr_static(held, name, None)
        if type(found) in (MemberDescriptorType, GetSetDescriptorType):
            found = found.__get__(held)
    except Exception:  # a slot that is empty, a class whose parts are no plain dictionaries
        return None
    return found
