"""Faults of ours: functions of core on a host's thread, found and made to raise."""

from __future__ import annotations

import functools
import inspect
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import CodeType, FrameType, FunctionType, ModuleType
from typing import Any, NamedTuple

import pytest

import openrtc_introspect_core
from openrtc_introspect_core._accounting.meter import MeteredCoroutine

PACKAGE = openrtc_introspect_core.__name__
FOLDER = str(Path(openrtc_introspect_core.__file__).parent)
CALLED_FROM_C = {
    str(Path(FOLDER) / "_accounting" / f"{module}.py")
    for module in ("ledger", "session_accounts", "span_log", "unsampled_steps")
}
"""The files with all that the step meter in C calls: a call from C has the frame of the host as its caller."""
METHODS_CALLED_FROM_C = {
    *(f"GcMonitor.{name}" for name in ("collected", "failed", "full_begins")),
    *(f"{kind}.{name}" for kind in ("RareSteps", "TrioHook") for name in ("about_to_wait", "failed", "has_woken")),
    "Heap.adjust_sampling",
    "TaskCreation.meter_outermost",
}
"""More of them, in files with functions that the host calls itself."""
CALLED_BY_THE_COLLECTOR = "CollectionsInPython.__call__"
"""The collector calls it, on Python 3.11 from within any function that makes an object, ours included."""

Place = tuple[Any, str]
"""A place that holds a function: a module or a class, and a name."""


class Reached(NamedTuple):
    """A function of core that was called from core."""

    code: CodeType
    places: list[Place]
    """The places to patch; a closure has none."""

    @property
    def name(self) -> str:
        return f"{Path(self.code.co_filename).stem}.{self.code.co_qualname}"


class Faults:
    """The functions that are traced, and made to raise, while this object is armed.

    Only calls on the thread that made it count. A function raises if core calls it. Around a function that the host
    calls itself there is nothing of ours to catch the error: in its place, the functions that it calls raise.
    """

    def __init__(self) -> None:
        self.armed = False
        self.fired: list[BaseException] = []
        self._thread = threading.get_ident()

    @contextmanager
    def arm(self, armed: bool = True) -> Iterator[None]:
        before, self.armed = self.armed, armed
        try:
            yield
        finally:
            self.armed = before

    @contextmanager
    def trace(self, found: set[CodeType]) -> Iterator[None]:
        """Inside, add the code of each function that core calls while this is armed."""

        def called(frame: FrameType, event: str, argument: object) -> None:
            if event == "call" and self.armed and is_ours(frame) and _is_called_by_ours(frame.f_code, frame.f_back):
                found.add(frame.f_code)

        before = sys.getprofile()
        sys.setprofile(called)
        try:
            yield
        finally:
            sys.setprofile(before)

    def inject(self, reached: Reached, error: type[Exception], patch: pytest.MonkeyPatch) -> None:
        """Have the function raise from now on if core calls it while this is armed."""
        code = reached.code

        def raising(function: Callable[..., Any]) -> Callable[..., Any]:
            @functools.wraps(function)
            def maybe_raise(*args: Any, **kwargs: Any) -> Any:
                caller = sys._getframe(1)
                if self.armed and threading.get_ident() == self._thread and _is_called_by_ours(code, caller):
                    fault = error(f"injected into {reached.name}")
                    self.fired.append(fault)
                    raise fault
                return function(*args, **kwargs)

            return maybe_raise

        for owner, name in reached.places:
            patch.setattr(owner, name, _rewrapped(inspect.getattr_static(owner, name), code, raising))


def is_ours(frame: FrameType | None) -> bool:
    return frame is not None and frame.f_code.co_filename.startswith(FOLDER)


def _is_called_by_ours(code: CodeType, caller: FrameType | None) -> bool:
    if code.co_qualname == CALLED_BY_THE_COLLECTOR:
        return False
    return code.co_filename in CALLED_FROM_C or code.co_qualname in METHODS_CALLED_FROM_C or is_ours(caller)


def located(codes: set[CodeType]) -> list[Reached]:
    """Return the functions, by name, with the places that hold each.

    Comprehensions are parts of functions, and have no entry.
    """
    places: dict[CodeType, list[Place]] = {code: [] for code in codes}
    for owner in (*_modules(), *_classes()):
        for name, value in list(vars(owner).items()):
            for function in _functions_of(value):
                code = inspect.unwrap(function).__code__
                if code in places and (owner, name) not in places[code]:
                    places[code].append((owner, name))
    parts = ("<listcomp>", "<setcomp>", "<dictcomp>", "<genexpr>")
    reached = [Reached(code, found) for code, found in places.items() if code.co_name not in parts]
    return sorted(reached, key=lambda each: each.name)


def _modules() -> list[ModuleType]:
    return [module for name, module in list(sys.modules.items()) if name.partition(".")[0] == PACKAGE]


def _classes() -> list[type]:
    found = {id(value): value for module in _modules() for value in vars(module).values() if inspect.isclass(value)}
    # The type of metered coroutines has the module of the type that it stands for.
    return [
        value
        for value in found.values()
        if value.__module__.partition(".")[0] == PACKAGE or issubclass(value, MeteredCoroutine)
    ]


def _functions_of(value: object) -> list[FunctionType]:
    if isinstance(value, property):
        return [each for each in (value.fget, value.fset) if isinstance(each, FunctionType)]
    if isinstance(value, staticmethod | classmethod):
        value = value.__func__
    return [value] if isinstance(value, FunctionType) else []


def _rewrapped(value: Any, code: CodeType, raising: Callable[[Any], Any]) -> Any:
    """Return the same kind of attribute, with its function made to raise.

    code: that of the function.
    """
    if isinstance(value, property):
        get, set_, delete = (
            raising(each) if each is not None and each.__code__ is code else each
            for each in (value.fget, value.fset, value.fdel)
        )
        return property(get, set_, delete)
    if isinstance(value, staticmethod | classmethod):
        return type(value)(raising(value.__func__))
    return raising(value)
