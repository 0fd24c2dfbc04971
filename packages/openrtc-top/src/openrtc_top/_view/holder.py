"""The holder of what others wait for, in words."""

from __future__ import annotations

from typing import TYPE_CHECKING

from openrtc_introspect_core._diagnosis import wait_kind
from openrtc_top._view import quantity
from openrtc_top._view.line import clip, visible
from openrtc_top._view.place import place

if TYPE_CHECKING:
    from openrtc_introspect_core.wire import Block, Holder

_WIDE = 10_000
_MAX_NAME = 40


def noun(kind: str) -> str:
    """Return a kind of wait as it stands behind `for`; a name that this version does not know as it is."""
    return visible(wait_kind.noun(kind))


def holder_name(holder: Holder) -> str:
    """Return the session, else the task, else the thread, with a word if the holder is only likely."""
    if holder.session_id is not None:
        name = clip(visible(holder.session_id), _MAX_NAME)
    elif holder.task_name is not None:
        name = f"task {clip(visible(holder.task_name), _MAX_NAME)}"
    elif holder.thread is not None:
        name = f"thread {clip(visible(holder.thread), _MAX_NAME)}"
    else:
        name = "someone unknown"
    return name if holder.certain else f"likely {name}"


def holder_text(holder: Holder, now: float, max_place: int = _WIDE, *, past: bool = False) -> str:
    """Return who it is, where it took what others wait for, what it does, for how long, and where.

    now: the moment that is described, by the worker's clock. past: it is over.
    """
    parts = [holder_name(holder) + (f" ({clip(visible(holder.agent_name), _MAX_NAME)})" if holder.agent_name else "")]
    if holder.taken_at is not None:
        # Only what is inside of its `with` has the lock for certain.
        how = "inside the `with`" if holder.certain else "took it"
        parts.append(f"{how} at {place(holder.taken_at, max_place)}")
    does = ""
    if holder.waits is not None:
        does = f"{'waited' if past else 'waits'} for {noun(holder.waits)}"
    elif holder.since is not None:
        does = "suspended"
    if holder.since is not None:
        does += f" for {quantity.lasted(now - holder.since)}"
    if holder.location is not None:
        does += f" at {place(holder.location, max_place)}"
    if does:
        parts.append(does.strip())
    if holder.session_id is not None and holder.task_name:
        parts.append(f"task {clip(visible(holder.task_name), _MAX_NAME)}")
    return ", ".join(parts)


def held_up(block: Block, max_place: int = _WIDE) -> str | None:
    """Return what a block waited for, and who had it. None: that is not known, or it waited for nothing."""
    if block.waiting_on is None and block.holder is None:
        return None
    awaited = visible(block.waiting_on or "something")
    verb = "waits" if block.in_progress else "waited"
    if block.holder is None:
        return f"{verb} for {awaited}"
    until = block.started_at + block.duration_ms / 1000
    return f"{verb} for {awaited}, held by {holder_text(block.holder, until, max_place, past=not block.in_progress)}"
