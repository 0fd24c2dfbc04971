"""Where tasks and threads are, in words: file:line in function, of the user's own code where there is some."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Sequence
from typing import Any

from openrtc_introspect_core._stacks import Call, Places, frames_now, take

_OURS = os.path.dirname(os.path.abspath(__file__)) + os.sep


def where_task_waits(task: asyncio.Task[Any]) -> str:
    """The innermost line of the user's own code that the task awaits something at."""
    calls: list[Call] = []
    awaited: Any = task.get_coro()
    while awaited is not None:
        frame = _first(awaited, "cr_frame", "gi_frame", "ag_frame")
        if frame is None:
            break
        calls.insert(0, Call(frame.f_code, frame.f_lineno))
        awaited = _first(awaited, "cr_await", "gi_yieldfrom", "ag_await")
    return _told(calls)


def where_thread_is(thread: threading.Thread) -> str:
    """The innermost line of the user's own code that the thread is in."""
    calls, _ = take(frames_now().get(thread.ident or 0), ())
    return _told(calls)


def _told(calls: Sequence[Call]) -> str:
    places = Places()
    call = places.innermost([call for call in calls if not call.code.co_filename.startswith(_OURS)])
    return str(places.location(call)) if call is not None else "an unknown place"


def _first(found: Any, *names: str) -> Any:
    return next((value for name in names if (value := getattr(found, name, None)) is not None), None)
