"""The errors of this package.

A message is one line: what was given, what is accepted, what to do.
"""

from __future__ import annotations


class IntrospectError(Exception):
    """Base of every error raised by this package."""


class ArgumentError(IntrospectError, ValueError):
    """The value of an argument is not accepted."""


class ArgumentTypeError(ArgumentError, TypeError):
    """The value of an argument has the wrong type.

    It is also an ArgumentError, so one `except` is enough.
    """


class StateError(IntrospectError, RuntimeError):
    """The call is not possible in the present state, such as after `close`."""


class SessionFailed(IntrospectError):
    """A session of a pool exited, or its process failed.

    exit_code: the exit code of its process, negative if a signal ended it; None if the process reported an error.
    traceback: the traceback that the process reported, or "".
    """

    def __init__(self, message: str, *, exit_code: int | None = None, traceback: str = "") -> None:
        super().__init__(message)
        self.exit_code = exit_code
        self.traceback = traceback


class EndpointError(IntrospectError, OSError):
    """The socket or its directory cannot be used safely."""


class BoxError(IntrospectError):
    """A black box cannot be made, read or removed."""


class ConnectionFailed(IntrospectError, ConnectionError):
    """No worker answers at this socket, or the connection broke."""


class ProtocolError(IntrospectError):
    """The peer sent broken framing, an unknown major version or a bad message."""


class RequestFailed(IntrospectError):
    """The worker answered a request with an error; `code` is one of wire.ERROR_CODES."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
