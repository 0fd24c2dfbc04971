"""Telling what the host's signal handlers raise from faults of ours.

Python runs a signal's handler between two instructions of whatever runs on the main thread, our code included. What
such a handler raises, a time limit for instance, is meant for the host's code, whatever its class.
"""

from __future__ import annotations

import signal
from functools import partial
from types import CodeType
from typing import Any


def is_interrupt(error: BaseException) -> bool:
    """Whether it is no fault: no Exception at all, or raised by a handler that is set for a signal now."""
    return not isinstance(error, Exception) or _is_raised_by_a_handler(error)


def _is_raised_by_a_handler(error: BaseException) -> bool:
    entry = error.__traceback__
    handlers: set[CodeType] | None = None
    while entry is not None:
        if handlers is None:
            handlers = {code for number in signal.valid_signals() if (code := _code_of(signal.getsignal(number)))}
        if entry.tb_frame.f_code in handlers:
            return True
        entry = entry.tb_next
    return False


def _code_of(handler: Any) -> CodeType | None:
    """The code of a function, a bound method, a partial or an object that is called. None: not in Python."""
    while isinstance(handler, partial):
        handler = handler.func
    called = vars(type(handler)).get("__call__")  # of an object that is no function
    for each in (handler, getattr(handler, "__func__", None), called):
        code = getattr(each, "__code__", None)
        if isinstance(code, CodeType):
            return code
    return None
