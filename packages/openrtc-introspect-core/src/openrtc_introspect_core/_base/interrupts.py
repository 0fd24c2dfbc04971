"""Telling exceptions of the host's signal handlers from faults of this package.

Python runs a signal handler between two instructions of whatever runs on the main thread, this package's code
included. An exception that such a handler raises, for instance at a time limit, is meant for the host's code,
whatever its class: it must not be taken for a fault of a probe, nor be caught.
"""

from __future__ import annotations

import signal
from functools import partial
from types import CodeType
from typing import Any


def is_interrupt(error: BaseException) -> bool:
    """Return whether the host must get this error.

    That is so if it is no Exception, or was raised by a signal handler that is set now.
    """
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
    """Return the code of a function, bound method, partial or callable object.

    Returns None if it is not Python code.
    """
    while isinstance(handler, partial):
        handler = handler.func
    called = vars(type(handler)).get("__call__")  # of a callable object that is not a function
    for each in (handler, getattr(handler, "__func__", None), called):
        code = getattr(each, "__code__", None)
        if isinstance(code, CodeType):
            return code
    return None
