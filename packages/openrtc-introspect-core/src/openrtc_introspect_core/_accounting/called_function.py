"""The function that a call in a thread is about, found behind what libraries put around it.

Nothing of the user's is called: only functions, methods and partials of known types are looked into.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from contextvars import Context
from functools import partial
from types import BuiltinMethodType, CodeType, FunctionType, MethodType
from typing import Any

from .._os.stacks import Call

_MAX_DEPTH = 16
"""The wrappers that are looked behind, at most."""

_INNER: Mapping[tuple[str, str], str] = {
    ("trio._threads", "to_thread_run_sync.<locals>.worker_fn"): "sync_fn",
    ("anyio._backends._trio", "TrioBackend.run_sync_in_worker_thread.<locals>.wrapper"): "func",
}
"""By a library's function (module, qualified name): the variable of its closure with the function that it calls."""


def called(func: Any) -> Any:
    """Return the function that is called in the end: behind partials, `Context.run`, decorators that say what they
    wrap, and the functions that Trio and anyio hand to threads.
    """
    for _ in range(_MAX_DEPTH):
        inner = _behind(func)
        if inner is None:
            break
        func = inner
    return func


def _behind(func: Any) -> Any:
    """Return the function that this one calls; None if it is not known to call another."""
    if type(func) is partial:
        run = func.func
        runs_in_context = type(run) is BuiltinMethodType and type(run.__self__) is Context and func.args
        return func.args[0] if runs_in_context else run
    if type(func) is MethodType and type(func.__func__) is FunctionType:
        return func.__func__
    if type(func) is FunctionType:
        inner = _INNER.get((func.__module__, func.__qualname__))
        return vars(func).get("__wrapped__") if inner is None else free_variables(func).get(inner)
    return getattr(func, "_func", None) if type(func).__module__ == _OWN else None


_OWN = f"{__package__}.thread_calls"
"""The module of what introspection itself puts around a function."""


def free_variables(func: FunctionType) -> dict[str, Any]:
    """Return the variables of its closure that have a value."""
    found: dict[str, Any] = {}
    for name, cell in zip(func.__code__.co_freevars, func.__closure__ or (), strict=False):
        with suppress(ValueError):  # an empty cell
            found[name] = cell.cell_contents
    return found


def name_of(func: Any) -> str:
    """Return the qualified name of the function that is called in the end, or of the class of such an object."""
    func = called(func)
    known = issubclass(type(func), (FunctionType, BuiltinMethodType, type))  # some methods in C are of a derived class
    name = func.__qualname__ if known else type(func).__qualname__
    return name.encode("utf-8", "backslashreplace").decode("utf-8") if isinstance(name, str) else ""


def first_line_of(func: Any) -> Call | None:
    """Return the first line of the function that is called in the end. None: it is not written in Python."""
    func = called(func)
    if type(func) is not FunctionType:
        func = vars(type(func)).get("__call__")
    code = getattr(func, "__code__", None) if type(func) is FunctionType else None
    if not isinstance(code, CodeType):
        return None
    return Call(code.co_filename, code.co_firstlineno, code.co_qualname)
