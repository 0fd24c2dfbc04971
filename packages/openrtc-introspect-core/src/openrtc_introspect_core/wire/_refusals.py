"""Why a worker that runs is not seen or not reached from here: another user, a closed directory, another namespace."""

from __future__ import annotations

import contextlib
import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from .._base.errors import ConnectionFailed, EndpointError
from ._endpoint import check_directory, sockets_available
from ._peer import own_uid, peer_uid
from ._places import chosen_dir, dirs_of_all, may_access, search_dirs


class Refused(NamedTuple):
    """A directory that is there, may be a worker's, and is not searched."""

    directory: Path
    why: str
    owner: int | None
    """The user id that it belongs to. None: it cannot be told."""


def refused_dirs(all_users: bool = False) -> list[Refused]:
    """Return the directories that `discover`, or `discover_all`, passes over although they are there.

    A chosen directory (OPENRTC_RUNTIME_DIR) counts as well if it is missing. Whether a worker serves in one of them
    cannot be seen from here.
    """
    if not sockets_available():
        return []
    places = dict.fromkeys(search_dirs(), own_uid())
    for directory, owner in dirs_of_all():
        places[directory] = owner if all_users else own_uid()
    return list(_refused(places))


def _refused(places: dict[Path, int]) -> Iterator[Refused]:
    for directory, owner in places.items():
        status = None
        try:
            status = os.lstat(directory)
            if status.st_uid != owner and stat.S_ISDIR(status.st_mode):
                yield Refused(directory, f"belongs to uid {status.st_uid}", status.st_uid)
                continue
            check_directory(directory, private=True, owner=owner)
            os.listdir(directory)
        except FileNotFoundError:
            if directory == chosen_dir():
                yield Refused(directory, "does not exist", None)
        except EndpointError as error:
            yield Refused(directory, _rule(directory, error), status.st_uid if status else None)
        except OSError as error:
            yield Refused(directory, error.strerror or str(error), status.st_uid if status else None)


def _rule(directory: Path, error: EndpointError) -> str:
    """Return what the error says of the directory, without what a worker could do about it."""
    return str(error).partition(f"{str(directory)!r} ")[2].partition(": ")[0]


def silent(path: Path, timeout_s: float) -> ConnectionFailed:
    """Return the error of a server that was reached and said nothing in time."""
    return ConnectionFailed(f"no worker answers at {str(path)!r}: nothing heard within {timeout_s:g} s")


def closed(path: Path, connection: socket.socket, error: Exception) -> ConnectionFailed:
    """Return the error of a server that closed the connection without a hello."""
    why = why_closed(connection)
    if not why:
        return error if isinstance(error, ConnectionFailed) else failed(path, error)
    return ConnectionFailed(
        f"no worker answers at {str(path)!r}: it closed the connection: {why}; run this in its container"
    )


def failed(path: Path, error: Exception) -> ConnectionFailed:
    """Return the error of a server that cannot be reached, or no longer."""
    cause = error.__cause__ or error  # anyio's own errors say nothing themselves
    reason = getattr(cause, "strerror", None) or str(cause) or type(cause).__name__
    if isinstance(cause, PermissionError) and (why := why_denied(path)):
        reason = f"{reason}: {why}"
    return ConnectionFailed(f"no worker answers at {str(path)!r}: {reason}")


def why_denied(path: Path) -> str:
    """Return whose the first thing on the way to a socket is that this user may not pass, in words for an error."""
    for place in [*reversed(path.parents), path]:
        if may_access(place, os.W_OK if place == path else os.X_OK):
            continue
        if place.parts[1:2] == ("proc",) and place.name == "root":
            return f"{str(place)!r} is open to the same user with the same capabilities, and to CAP_SYS_PTRACE"
        with contextlib.suppress(OSError):
            owner = os.lstat(place).st_uid
            if owner != own_uid():
                lacking = " and has no CAP_DAC_OVERRIDE" if own_uid() == 0 else ""
                return f"{str(place)!r} belongs to uid {owner}, this is uid {own_uid()}{lacking}"
        return f"{str(place)!r} is closed to uid {own_uid()}"
    return ""


def why_closed(connection: socket.socket) -> str:
    """Return why a server may have closed a connection without a word, in words for an error. Empty: unknown.

    Who is root outside of a container's user namespace is nobody to a worker in it.
    """
    with contextlib.suppress(OSError):
        uid = peer_uid(connection)
        if uid not in (None, own_uid()):
            return f"it runs as uid {uid}, and uid {own_uid()} of another user namespace is nobody to it"
    return ""
