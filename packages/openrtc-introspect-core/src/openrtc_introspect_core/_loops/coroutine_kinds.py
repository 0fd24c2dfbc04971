"""Coroutines of other types than CPython's own: Cython's, Nuitka's, mypyc's, classes with a coroutine's methods.

CPython's own show what they await, their code and their frame. Of the others, Cython's and Nuitka's do so under the
same names. What runs in a coroutine of Cython or mypyc has no frame.

Attributes are read by descriptors of C alone, or slots. So no code of the host is called.
"""

from __future__ import annotations

import gc
import os
import sys
from types import (
    AsyncGeneratorType,
    CodeType,
    CoroutineType,
    FrameType,
    GeneratorType,
    GetSetDescriptorType,
    MemberDescriptorType,
    MethodDescriptorType,
)
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

from .._accounting.meter import is_metered
from .._os.stacks import MAX_FRAMES, Call, CompiledCall

WRAPPERS = frozenset({"async_generator_asend", "async_generator_athrow", "coroutine_wrapper", "anext_awaitable"})
"""The names of CPython's types that stand between a coroutine and another one, or an async generator, that it awaits.
They refer to the latter first."""

_OF_PYTHON = frozenset({CoroutineType, GeneratorType, AsyncGeneratorType})
_AWAITS = {"cr_await": "cr", "gi_yieldfrom": "gi", "ag_await": "ag"}
_CYTHONS = "_cython_"
"""What the module of Cython's types begins with."""
_SCOPE = "__pyx_scope_struct"
"""What the type of the variables of a coroutine of Cython begins with. It is in the function's module."""
_DESCRIPTORS = GetSetDescriptorType, MemberDescriptorType

Descriptor = GetSetDescriptorType | MemberDescriptorType


class Kind(NamedTuple):
    """What coroutines, or generators, of one type show; None: not that."""

    awaits: Descriptor
    code: Descriptor | None
    frame: Descriptor | None
    """None of Cython's: it makes a frame when asked for it, and no line is in it."""
    running: Descriptor | None
    qualname: Descriptor | None


_kinds: WeakKeyDictionary[type, Kind | None] = WeakKeyDictionary()
_begins: WeakKeyDictionary[Any, Call] = WeakKeyDictionary()
"""Where the functions of Cython's coroutines begin. One that has ended shows its code no longer, and has ended by the
time that its last step has."""


def kind_of(kind: type) -> Kind | None:
    """Return what coroutines, or generators, of a type show. None: it does not show what they await."""
    try:
        return _kinds[kind]
    except KeyError:
        found = _kinds[kind] = _kind_of(kind)
        return found


def _kind_of(kind: type) -> Kind | None:
    shown: dict[str, Any] = {}
    for each in reversed(kind.__mro__):
        shown.update(vars(each))
    prefix = next((prefix for name, prefix in _AWAITS.items() if type(shown.get(name)) in _DESCRIPTORS), None)
    if prefix is None:
        return None
    names = "code", "frame", "running"
    code, frame, running = (_descriptor(shown, f"{prefix}_{name}") for name in names)
    awaits = next(shown[name] for name, each in _AWAITS.items() if each == prefix)
    lines = not kind.__module__.startswith(_CYTHONS)
    return Kind(awaits, code, frame if lines else None, running, _descriptor(shown, "__qualname__"))


def _descriptor(shown: dict[str, Any], name: str) -> Descriptor | None:
    found = shown.get(name)
    return found if isinstance(found, _DESCRIPTORS) else None


def read(descriptor: Descriptor | None, coro: Any) -> Any:
    """Return an attribute of a coroutine. None: it has none."""
    try:
        return descriptor.__get__(coro) if descriptor is not None else None
    except AttributeError:  # an empty slot
        return None


def code_in(coro: Any, kind: Kind) -> CodeType | None:
    """Return the code of a coroutine of such a type. None: it shows none."""
    code = read(kind.code, coro)
    return code if type(code) is CodeType else None


def frame_in(coro: Any, kind: Kind) -> FrameType | None:
    """Return the frame of a coroutine of such a type. None: it shows none with a line."""
    frame = read(kind.frame, coro)
    return frame if isinstance(frame, FrameType) else None  # Nuitka's have a type of their own


def begin_of(coro: Any, kind: Kind) -> Call | None:
    """Return the line at which the function of a coroutine begins. None: it does not show its code."""
    code = code_in(coro, kind)
    if code is None:
        return None
    name = read(kind.qualname, coro)
    return Call(_file_of(coro, code), code.co_firstlineno, name if type(name) is str else code.co_qualname)


def note_begin(coro: Any) -> None:
    """Remember where the function of a task's coroutine begins, if the coroutine is Cython's."""
    kind = kind_of(type(coro))
    if kind is not None and _is_remembered(type(coro)) and (call := begin_of(coro, kind)) is not None:
        _begins[coro] = call


def _is_remembered(kind: type) -> bool:
    return kind.__module__.startswith(_CYTHONS) and kind.__weakrefoffset__ != 0


def compiled_calls(coro: Any) -> list[CompiledCall]:
    """Return the calls of compiled code that a coroutine which runs now consists of, outermost first.

    They end at the first coroutine of CPython's own: what runs there has frames. A call without a file is of a function
    that shows nothing but its name.
    """
    found: list[CompiledCall] = []
    while coro is not None and len(found) < MAX_FRAMES:
        if is_metered(coro):
            coro = coro.coro
            continue
        kind = kind_of(type(coro))
        if type(coro) in _OF_PYTHON or (found and kind is not None and read(kind.running, coro) is False):
            break
        call = begin_of(coro, kind) if kind is not None else None
        if call is None and _is_remembered(type(coro)):
            call = _begins.get(coro)
        if call is None and _is_compiled(type(coro)):
            call = Call("", 0, f"{type(coro).__module__}.{type(coro).__qualname__}")
        if call is None:
            break
        found.append(CompiledCall(*call))
        coro = read(kind.awaits, coro) if kind is not None else None
    return found


def name_in(coro: Any) -> str:
    """Return the qualified name of the function of a coroutine, else the name of its type."""
    kind = type(coro)
    if kind in _OF_PYTHON:
        name: str = coro.__qualname__
        return name
    if kind.__name__ in WRAPPERS:
        inner = next((each for each in gc.get_referents(coro) if is_coroutine(each)), None)
        if inner is not None:
            step = kind.__name__.partition("async_generator_")[2]
            return f"{name_in(inner)}.{step}" if step else name_in(inner)
    shown = kind_of(kind)
    found = read(shown.qualname, coro) if shown is not None else None
    return found if type(found) is str else kind.__qualname__


def is_coroutine(held: Any) -> bool:
    """Return whether this is a coroutine, a generator, or one of CPython's wrappers of them."""
    return kind_of(type(held)) is not None or type(held).__name__ in WRAPPERS or is_metered(held)


def _is_compiled(kind: type) -> bool:
    """Return whether the methods of a type of coroutines are compiled code of others."""
    send = next((vars(each)["send"] for each in kind.__mro__ if "send" in vars(each)), None)
    return type(send) is MethodDescriptorType and kind.__module__ != "builtins"


def _file_of(coro: Any, code: CodeType) -> str:
    """Return the file of a function. Cython gives it as its compiler got it: the one beside the module is taken."""
    file = code.co_filename
    if os.path.isabs(file) or file.startswith("<"):
        return file
    scope = next((type(each) for each in gc.get_referents(coro) if type(each).__name__.startswith(_SCOPE)), None)
    module = vars(sys.modules.get(scope.__module__, sys)).get("__file__") if scope is not None else None
    return os.path.join(os.path.dirname(module), os.path.basename(file)) if type(module) is str else file
