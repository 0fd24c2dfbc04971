"""Why no worker is seen: those of other users, and the directories that are not searched, each with what to do."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable

from openrtc_introspect_core.wire import Refused, discover_all, refused_dirs, search_dirs, sockets_available

MAX_LINES = 4
ALL_USERS = "--all-users"
_AS_THAT_USER = "run this as that user, in a container by `docker exec -u {0}`"


def unseen(all_users: bool = False, option: str = ALL_USERS) -> list[str]:
    """Return a line for each reason why a worker of this machine may not be seen. None: nothing is in the way.

    all_users: every user's workers were looked for. option: what makes root look for those.
    """
    if not sockets_available():
        return []
    if os.geteuid() != 0:
        lines = [_line(each, option) for each in refused_dirs()]
    else:
        lines = [] if all_users else list(_of_others(option))
        lines += [_line(each, option) for each in refused_dirs(all_users=True)]
    return lines if len(lines) <= MAX_LINES else [*lines[: MAX_LINES - 1], f"… and {len(lines) - MAX_LINES + 1} more"]


def searched() -> str:
    """Return the line that names the directories that were searched."""
    places = ", ".join(map(str, search_dirs()))
    return f"Searched: {places}. For a worker whose OPENRTC_RUNTIME_DIR is another, set it here too."


def _of_others(option: str) -> Iterable[str]:
    for uid, number in sorted(Counter(worker.owner for worker in discover_all()).items()):
        if uid not in (None, os.geteuid()):
            workers = "worker" if number == 1 else "workers"
            yield f"{number} {workers} of uid {uid}: add {option}"


def _line(each: Refused, option: str) -> str:
    """Return why a directory is not searched, and what to do."""
    where = f"'{each.directory}'"
    root = os.geteuid() == 0
    if each.owner not in (None, os.geteuid()):
        do = _AS_THAT_USER.format(each.owner)
        if not root:
            return f"{where} {each.why}: {do}, or as root with {option}"
        if "belongs" not in each.why:  # what root may not read
            return f"{where} belongs to uid {each.owner}, and root may not read it here (no CAP_DAC_OVERRIDE): {do}"
    if each.owner is None:
        return f"{where} {each.why}: set OPENRTC_RUNTIME_DIR to the worker's, or run this in its container"
    return f"{where} {each.why}, so it is not searched"
