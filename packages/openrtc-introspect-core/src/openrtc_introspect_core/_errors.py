"""The errors this package raises, each a single line: what was given, what is accepted, what to do."""

from __future__ import annotations


class IntrospectError(Exception):
    """Base of every error raised by this package."""


class ArgumentError(IntrospectError, ValueError):
    """A value is outside what the argument accepts."""


class ArgumentTypeError(ArgumentError, TypeError):
    """A value has the wrong type. Also an ArgumentError, so one `except` is enough."""


class StateError(IntrospectError, RuntimeError):
    """The call is not possible now: started twice, not started, closed, or the loop is closed."""


class SessionFailed(IntrospectError):
    """A pool's session ended in a way that no exception tells: it exited, or its process failed.

    `exit_code` is the process's, negative where a signal ended it; None where it told its error itself.
    `traceback` is what the process told, or "".
    """

    def __init__(self, message: str, *, exit_code: int | None = None, traceback: str = "") -> None:
        super().__init__(message)
        self.exit_code = exit_code
        self.traceback = traceback


class EndpointError(IntrospectError, OSError):
    """The socket or its directory cannot be used safely."""


class ConnectionFailed(IntrospectError, ConnectionError):
    """No worker answers at this socket, or the connection broke."""


class ProtocolError(IntrospectError):
    """The peer does not speak this protocol: broken framing, unknown major version, bad message."""


class RequestFailed(IntrospectError):
    """The worker answered a request with an error message. `code` is one of wire.ERROR_CODES."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
