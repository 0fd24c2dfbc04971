"""What each step of each task reads and writes: in the places that the meter in C knows, where that is installed.

Wheels for some platforms have it; the one for all others, and the source, do without (see _step_meter.c). With
OPENRTC_INTROSPECT_METER=python in the environment it is left alone, should it ever be suspected of something.
"""

from __future__ import annotations

import os
from typing import Any

COMPILED: type[Any] | None = None
"""What a task drives in place of its coroutine, where it is the one in C."""

try:
    if os.environ.get("OPENRTC_INTROSPECT_METER") == "python":
        raise ImportError("not wanted")
    from ._step_meter import AccountFields as AccountFields
    from ._step_meter import LedgerFields as LedgerFields
    from ._step_meter import MeteredCoroutine

    COMPILED = MeteredCoroutine
except ImportError:

    class AccountFields:  # type: ignore[no-redef]
        """Of an account, which says what they are."""

        __slots__ = ("busy", "heap", "session", "steps", "tasks")

    class LedgerFields:  # type: ignore[no-redef]
        """Of a ledger, which says what they are."""

        __slots__ = ("clock", "gap", "get", "left_out", "running", "since", "special")
