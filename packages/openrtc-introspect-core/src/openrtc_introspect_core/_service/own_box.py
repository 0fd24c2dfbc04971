"""A worker's black box, and the descriptor of its stall log, from its start to its end."""

from __future__ import annotations

import os
import platform
import sys
from contextlib import suppress

from .._base.errors import BoxError
from .._native import meter
from .._sessions.settings import StallLog
from .._version import __version__
from ..wire._endpoint import sockets_available
from .own_socket import OwnSocket
from .shared import Shared

BOX_TOPIC = "black-box"
"""The topic of the note that there is no black box, or that it is no longer written."""


def open_box(shared: Shared, socket: OwnSocket | None, epoch: str) -> None:
    """Make the worker's black box, if it is wanted. If it cannot be made, note why."""
    if not shared.settings.black_box or not sockets_available():
        return
    # Loaded now, because programs that only import the package do not wait for it.
    from ..black_box._layout import Header
    from ..black_box._writer import BoxWriter

    header = Header(
        worker=shared.settings.name,
        pid=os.getpid(),
        epoch=epoch,
        version=__version__,
        python=platform.python_version(),
        meter=meter,
        started_at=shared.wall.now(),
        folders=shared.places.folders,
    )
    try:
        shared.box = BoxWriter(header, socket.path if socket is not None else None)
    except (BoxError, OSError) as error:
        reason = getattr(error, "strerror", None) or error
        shared.notes.add(BOX_TOPIC, f"there is no black box, a death of this worker will leave no trace: {reason}")


def open_stall_log(shared: Shared) -> None:
    """Duplicate the descriptor of the stall log, so that it stays what it is now. If that fails, note it."""
    try:
        descriptor = _descriptor(shared.settings.stall_log)
        shared.stall_log_fd = os.dup(descriptor) if descriptor is not None else None
    except (OSError, ValueError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        shared.notes.add("stall-log", f"the stall log cannot be written, it goes nowhere: {reason}")


def _descriptor(target: StallLog) -> int | None:
    """Return the descriptor to be duplicated. None: the log goes nowhere."""
    if target is None or isinstance(target, int):
        return target
    if target != "stderr":
        return target.fileno()
    with suppress(OSError, ValueError, AttributeError):  # there is no stderr, or it has no descriptor
        descriptor = sys.stderr.fileno()
        os.fstat(descriptor)
        return descriptor
    return None


def close_box(shared: Shared, *, keep: bool = False) -> None:
    """Remove the box, unless it is kept for those who ask what the worker died of. Close both files. Idempotent."""
    box = shared.box
    if box is not None:
        if not keep:
            box.remove()
        box.close()
    _close_stall_log(shared)


def abandon_box(shared: Shared) -> None:
    """Close both files in a forked child: the box is the parent's."""
    if shared.box is not None:
        shared.box.abandon_after_fork()
    _close_stall_log(shared)


def _close_stall_log(shared: Shared) -> None:
    descriptor, shared.stall_log_fd = shared.stall_log_fd, None
    if descriptor is not None:
        with suppress(OSError):
            os.close(descriptor)
