"""The directories in which workers' sockets and black boxes are.

Worker and client need not share their environment, so a client searches every directory that a worker may have chosen.
Python's own choice, `tempfile.gettempdir`, does not do: it may be the current directory, which a client cannot know, it
tries each by making a file, and raises if everything is read-only.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterable
from pathlib import Path

from ._peer import own_uid

VARIABLE = "OPENRTC_RUNTIME_DIR"
BASES = ("/tmp", "/var/tmp", "/dev/shm")
"""Directories for everybody's temporary files. The last is what containers with a read-only root have."""
_NAME = re.compile(r"openrtc-(\d{1,10})")


def chosen_dir() -> Path | None:
    """Return the directory that OPENRTC_RUNTIME_DIR names. None: it names none."""
    own = os.environ.get(VARIABLE)
    return Path(own) if own else None


def worker_dir() -> Path:
    """Return the directory that a worker of this user puts its socket in."""
    if (chosen := chosen_dir()) is not None:
        return chosen
    xdg = os.environ.get("XDG_RUNTIME_DIR")
    base = xdg if xdg and os.path.isdir(xdg) else next(filter(_takes_files, _temporary()), BASES[0])
    return Path(base, f"openrtc-{own_uid()}")


def search_dirs() -> list[Path]:
    """Return every directory that a worker of this user may have chosen.

    The worker need not share our environment.
    """
    return list(dict.fromkeys([worker_dir(), *default_dirs()]))


def default_dirs() -> list[Path]:
    """Return the directories of this user that workers may take if the environment names none."""
    return [Path(base, f"openrtc-{own_uid()}") for base in (f"/run/user/{own_uid()}", *_temporary())]


def all_dirs() -> list[Path]:
    """Return the default directories of all users, as their names claim."""
    found: dict[Path, None] = {}
    for base in [*Path("/run/user").glob("*"), *map(Path, _temporary())]:
        with contextlib.suppress(OSError):
            found.update(dict.fromkeys(base / name for name in sorted(filter(_NAME.fullmatch, os.listdir(base)))))
    return list(found)


def dirs_of_all() -> list[tuple[Path, int]]:
    """Return the directories that root searches for every user's workers, each with the user id it must belong to.

    OPENRTC_RUNTIME_DIR, which root has set, may name anybody's.
    """
    return [*_owned(chosen_dir()), *((directory, int(directory.name.partition("-")[2])) for directory in all_dirs())]


def dir_inside(directory: Path) -> Path | None:
    """Return the directory to choose instead of a chosen one that is not this user's own, such as a volume's root.

    None: it was not chosen, or this user may make none in it.
    """
    inside = directory / f"openrtc-{own_uid()}"
    usable = directory.name != inside.name and os.path.isdir(directory) and _takes_files(directory)
    return inside if usable and directory == chosen_dir() else None


def _owned(directory: Path | None) -> Iterable[tuple[Path, int]]:
    if directory is not None:
        with contextlib.suppress(OSError):
            yield directory, os.lstat(directory).st_uid


def _temporary() -> list[str]:
    """Return the directories for temporary files, the one to prefer first."""
    own = os.environ.get("TMPDIR")
    return [*([own] if own and os.path.isabs(own) else []), *BASES]


def _takes_files(directory: str | Path) -> bool:
    """Return whether this user may make files there: it exists, is open to them, and is not read-only."""
    return may_access(directory, os.W_OK | os.X_OK)


def may_access(path: str | Path, mode: int) -> bool:
    """Return what `os.access` says of the user that the process acts as, if the platform can tell."""
    return os.access(path, mode, effective_ids=os.access in os.supports_effective_ids)
