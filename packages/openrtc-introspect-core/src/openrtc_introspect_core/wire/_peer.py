"""The process at the other end of a Unix socket: its user, what it has not read."""

from __future__ import annotations

import os
import socket
import struct
import sys

if sys.platform != "win32":
    import fcntl
    import termios


def own_uid() -> int:
    """Return the user id that this process acts as."""
    return os.geteuid()


def peer_uid(connection: socket.socket) -> int | None:
    """Return the user id of the process at the other end.

    None: the platform does not report it.
    """
    if hasattr(socket, "SO_PEERCRED"):
        size = struct.calcsize("3i")
        _pid, uid, _gid = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size))
        return int(uid)
    if sys.platform == "darwin":
        local_peercred, xucred = 1, "IIh16I"  # <sys/un.h>, <sys/ucred.h>
        data = connection.getsockopt(0, local_peercred, struct.calcsize(xucred))
        return int(struct.unpack_from("II", data)[1])
    return None


def may_connect(uid: int | None) -> bool:
    """Return whether a client of this user may read this worker.

    Its own user and root may.

    The socket's mode, 0600, keeps all others off already, so an unknown uid (None) may as well.
    """
    return uid is None or uid in (0, own_uid())


def may_serve(uid: int | None) -> bool:
    """Return whether a server of this user is believed.

    Our own and root's are, and root believes everyone's.
    """
    return may_connect(uid) or own_uid() == 0


def unread_bytes(connection: socket.socket) -> int:
    """Return how many bytes of memory the peer's unread messages take.

    0 as well if the platform does not report it.
    """
    if sys.platform != "linux":
        return 0
    (size,) = struct.unpack("i", fcntl.ioctl(connection, termios.TIOCOUTQ, bytes(4)))
    return int(size)
