"""Whether a signal handler in Python runs: Python calls it between two instructions of its main thread."""

from __future__ import annotations

import signal
import threading
from functools import partial
from types import CodeType, FrameType, FunctionType, MethodType
from typing import Any

from .stacks import Function, is_at_resume


def signal_handler_in(
    thread_id: int, frame: FrameType | None, end: FrameType | None, *, gil_kept: bool = False
) -> Function | None:
    """Return the signal handler among a thread's frames, from the innermost to `end`. None: there is none.

    A function that is a handler and was called as any other is none: Python gives a handler the frame that it
    interrupts, which is its caller's.

    gil_kept: as for `take`. A handler that is at its beginning then has done nothing yet: the C code that it
    interrupts kept the GIL.
    """
    if thread_id != threading.main_thread().ident:
        return None
    handlers = _handlers()
    while handlers and frame is not None and frame is not end:
        gil_kept = gil_kept and is_at_resume(frame)
        code = frame.f_code
        if not gil_kept and code in handlers and _is_given_its_caller(frame):
            return code.co_filename, code.co_qualname
        frame = frame.f_back
    return None


def code_of(function: Any) -> CodeType | None:
    """Return the code of a function, a bound method, or a partial of these. None: it is none of them."""
    while type(function) in (partial, MethodType):
        function = function.func if type(function) is partial else function.__func__
    return function.__code__ if type(function) is FunctionType else None


def _handlers() -> set[CodeType]:
    """Return the code of the functions that handle signals."""
    return {code for number in signal.valid_signals() if (code := code_of(signal.getsignal(number))) is not None}


def _is_given_its_caller(frame: FrameType) -> bool:
    code, values = frame.f_code, frame.f_locals
    names = code.co_varnames[: code.co_argcount]
    if any(values.get(name) is frame.f_back for name in names):
        return True
    packed = code.co_varnames[code.co_argcount + code.co_kwonlyargcount :][:1]  # def handler(*arguments)
    given = values.get(packed[0]) if packed else None
    return type(given) is tuple and any(each is frame.f_back for each in given)
