"""The `with` blocks that a suspended frame is inside of, by the code of its function.

The compiler puts the body of each `with` into the code's exception table: if the body raises, the exit is called.
So the entries around an instruction say in which bodies it is, and the entries around their handlers, in which others
those are. The tables have been alike since Python 3.11.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from opcode import opmap
from types import CodeType
from typing import NamedTuple
from weakref import ref

from .._os.stacks import Call

ENTERS, EXITS = 1, 2
"""The parts of a `with` that a frame may await: an `__aenter__`, or an `__aexit__` that an exception has led to."""

_PUSH_EXC_INFO, _WITH_EXCEPT_START = opmap["PUSH_EXC_INFO"], opmap["WITH_EXCEPT_START"]
_GET_AWAITABLE, _SEND = opmap["GET_AWAITABLE"], opmap["SEND"]

_UNIT = 2
"""Bytes of a code unit."""
_MAX_UNITS = 8
"""Code units between GET_AWAITABLE and where its coroutine is suspended, at most."""

_MAX_KEPT = 1024


class WithBlocks(NamedTuple):
    """The `with` blocks around one instruction."""

    awaits: int
    """ENTERS, EXITS, or 0 for neither. If not 0, the innermost exit on the stack is of a `with` whose body the frame is
    not in. (In an `__aexit__` without an exception, that exit is on the stack no more: 0.)"""
    places: tuple[Call, ...]
    """The `with` statements whose bodies it is in, outermost first."""
    begins: tuple[int, ...]
    """The offset, in bytes, at which the body of each begins; the instruction before it is the one that enters."""


_kept: dict[tuple[int, int], tuple[ref[CodeType], WithBlocks]] = {}


def with_blocks(code: CodeType, lasti: int) -> WithBlocks:
    """Return the `with` blocks around an instruction at which a frame is suspended.

    lasti: the frame's `f_lasti`, in bytes.
    """
    kept = _kept.get((id(code), lasti))
    if kept is not None and kept[0]() is code:
        return kept[1]
    instructions = code.co_code
    entries = list(_exception_table(code.co_exceptiontable))
    handlers = _handlers(instructions, entries, lasti)
    places = tuple(Call(code.co_filename, _line(code, each), code.co_qualname) for each in handlers)
    begins = tuple(min(start for start, _, target in entries if target == each) for each in handlers)
    blocks = WithBlocks(_awaits(instructions, lasti), places, begins)
    if len(_kept) >= _MAX_KEPT:
        _kept.clear()
    _kept[id(code), lasti] = ref(code), blocks
    return blocks


def _awaits(instructions: bytes, lasti: int) -> int:
    sent = False
    for at in range(lasti, max(-1, lasti - _UNIT * _MAX_UNITS), -_UNIT):
        sent = sent or instructions[at] == _SEND
        if instructions[at] == _GET_AWAITABLE:
            awaits = instructions[at + 1]  # 1 and 2 are the compiler's numbers as well
            return awaits if sent and (awaits != EXITS or instructions[at - _UNIT] == _WITH_EXCEPT_START) else 0
    return 0


def _handlers(instructions: bytes, entries: list[tuple[int, int, int]], lasti: int) -> tuple[int, ...]:
    """Return where the code goes if a body around this instruction raises, for each body, outermost first."""
    handlers: list[int] = []
    seen: set[int] = set()
    at: int | None = lasti
    while at is not None and at not in seen:
        seen.add(at)
        at = next((target for start, end, target in entries if start <= at < end), None)
        if at is not None and instructions[at : at + 2 * _UNIT : _UNIT] == bytes((_PUSH_EXC_INFO, _WITH_EXCEPT_START)):
            handlers.append(at)
    return tuple(reversed(handlers))


def _line(code: CodeType, offset: int) -> int:
    position = next(islice(code.co_positions(), offset // _UNIT, None), (None,))
    return position[0] or code.co_firstlineno


def _exception_table(table: bytes) -> Iterator[tuple[int, int, int]]:
    """Yield (start, end, target) of each entry, in bytes of the code."""
    numbers = list(_varints(table))  # the fourth: the depth of the stack, and whether the handler wants `lasti`
    for start, length, target in zip(numbers[::4], numbers[1::4], numbers[2::4], strict=True):
        yield _UNIT * start, _UNIT * (start + length), _UNIT * target


def _varints(table: bytes) -> Iterator[int]:
    """Yield the numbers of a table. Each byte has six bits of one, and a flag if there are more."""
    value = 0
    for byte in table:
        value = value << 6 | byte & 63
        if not byte & 64:
            yield value
            value = 0
