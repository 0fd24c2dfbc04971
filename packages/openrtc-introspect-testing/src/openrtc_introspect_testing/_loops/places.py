"""The place of a task or a thread as text: file:line in function.

It is in the user's own code if there is some.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Sequence
from typing import Any

from openrtc_introspect_core._os.stacks import Call, Places, call_of, frames_now, take

_THIS_PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep


def where_task_waits(task: asyncio.Task[Any]) -> str:
    """Return the innermost line of the user's code at which the task waits."""
    calls: list[Call] = []
    awaited: Any = task.get_coro()
    while awaited is not None:
        frame = _first_attribute(awaited, "cr_frame", "gi_frame", "ag_frame")
        if frame is None:
            break
        calls.insert(0, call_of(frame))
        awaited = _first_attribute(awaited, "cr_await", "gi_yieldfrom", "ag_await")
    return _shown(calls)


def where_thread_is(thread: threading.Thread) -> str:
    """Return the innermost line of the user's own code that the thread is in."""
    calls, _ = take(frames_now().get(thread.ident or 0), ())
    return _shown(calls)


def _shown(calls: Sequence[Call]) -> str:
    places = Places()
    call = places.innermost([call for call in calls if not call.file.startswith(_THIS_PACKAGE)])
    return str(places.location(call)) if call is not None else "an unknown place"


def _first_attribute(owner: Any, *names: str) -> Any:
    """Return the first of these attributes that is there and not None, or None."""
    return next((value for name in names if (value := getattr(owner, name, None)) is not None), None)
