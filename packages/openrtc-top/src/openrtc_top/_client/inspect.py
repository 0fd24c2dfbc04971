"""Asking a worker about one of its sessions, for that session's page."""

from __future__ import annotations

from typing import TYPE_CHECKING

from openrtc_introspect_core import RequestFailed
from openrtc_top._model.page import Inspection

if TYPE_CHECKING:
    from openrtc_introspect_core.wire import Client, Location, Tasks


async def inspect(client: Client, session_id: str) -> Inspection:
    """Ask for the session's tasks, and where it runs.

    What cannot be had is a problem in the answer, no error.
    """
    serves = client.hello.capabilities
    missing = [what for what in ("tasks", "stacks") if what not in serves]
    problem = f"this worker does not report {' or '.join(missing)}: too old, or in process mode" if missing else ""
    tasks: Tasks | None = None
    stack: list[Location] | None = None
    try:
        if "stacks" in serves:
            threads = (await client.stacks()).threads
            stack = next((thread.frames for thread in threads if thread.loop and thread.session_id == session_id), [])
        if "tasks" in serves:
            tasks = await client.tasks(session_id)
    except RequestFailed as error:  # it ended since the snapshot; the next snapshot shows that
        problem = str(error)
    if tasks is None:
        return Inspection(stack=stack, problem=problem)
    return Inspection(tasks.tasks, tasks.truncated, stack, problem, tasks.wall_time)
