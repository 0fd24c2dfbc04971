"""The holder of one lock that blocks a loop: a task or thread that the lock names, or that is inside of its `with`.

If it is nobody of those, the lock may have been taken by `acquire`: then the holder is only likely.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from types import FrameType
from typing import Any

from .._base.clock import WallTime
from .._base.gil import yield_gil
from .._loops.await_chain import may_look_into, suspended_in
from .._loops.hook import LoopHook
from .._loops.suspended import SuspendedTask
from .._os.stacks import MAX_FRAMES, Call, Places, frames_of_others
from ..wire._messages import Holder
from .described_holder import suspended_holder, thread_holder
from .expressions import Names, path_before
from .held_locks import held_locks
from .likely_holder import taken_along, taken_in
from .locks import inner_lock, is_lock, owner_of, owner_thread
from .slices import SLICE_S
from .task_wait import wait_of
from .with_blocks import with_blocks


class LockHolders:
    """Finds the holders of locks, among the tasks of these loops and the threads of the process."""

    def __init__(self, hooks: Sequence[LoopHook], places: Places, wall: WallTime) -> None:
        self._hooks = [hook for hook in hooks if may_look_into(hook.thread_id)]
        self._places = places
        self._wall = wall

    def holder(self, lock: Any) -> Holder | None:
        """Return who holds a lock, the `inner_lock` of what is waited for. From any thread.

        None: nobody does, or it is not known.
        """
        owners = owner_of(lock)
        likely: list[Holder] = []
        for suspended in self._suspended():
            held = next((each for each in held_locks(suspended.coro) if each.lock is lock), None)
            if held is not None or any(suspended.task is owner for owner in owners):
                return self._of(suspended, held.taken_at if held is not None else None)
            if (taken_at := taken_along(suspended.coro, lock, suspended.future)) is not None:
                likely.append(self._of(suspended, taken_at, certain=False))
        frames = frames_of_others()
        names = {thread.ident: thread.name for thread in threading.enumerate()}
        owner = owner_thread(lock)
        for thread_id, frame in frames.items():
            taken_at, certain = _taken_by(frame, lock)
            if thread_id == owner or (taken_at is not None and certain):
                return self._of_thread(names.get(thread_id, ""), frame, taken_at)
            if taken_at is not None:
                likely.append(self._of_thread(names.get(thread_id, ""), frame, taken_at, certain=False))
        return likely[0] if len(likely) == 1 else None

    def _suspended(self) -> Iterator[SuspendedTask]:
        """Yield the suspended tasks of all loops, and give the GIL away between two of them now and then."""
        until = time.perf_counter() + SLICE_S
        for hook in self._hooks:
            for suspended in hook.suspended():
                yield suspended
                if time.perf_counter() > until:
                    yield_gil()
                    until = time.perf_counter() + SLICE_S

    def _of(self, suspended: SuspendedTask, taken_at: Call | None, *, certain: bool = True) -> Holder:
        chain, _ = suspended_in(suspended.coro, suspended.future)
        waits = wait_of(suspended).kind
        return suspended_holder(
            suspended, chain, self._places, self._wall, taken_at=taken_at, waits=waits, certain=certain
        )

    def _of_thread(self, name: str, frame: FrameType | None, taken_at: Call | None, *, certain: bool = True) -> Holder:
        return thread_holder(name, frame, self._places, taken_at=taken_at, certain=certain)


def _taken_by(frame: FrameType | None, lock: Any) -> tuple[Call | None, bool]:
    """Return (the place at which a thread has taken the lock, whether it is inside of its `with`).

    None: it has not taken it, as far as its frames show.
    """
    likely: Call | None = None
    for _ in range(MAX_FRAMES):
        if frame is None:
            break
        _, places, begins = with_blocks(frame.f_code, frame.f_lasti)
        names = Names(frame)
        for place, begin in zip(places, begins, strict=True):
            path = path_before(frame.f_code, begin)
            value = names.value(path[:-1]) if path is not None and len(path) > 1 else None
            if value is not None and is_lock(value) and inner_lock(value) is lock:
                return place, True
        likely = likely or taken_in(frame, lock)
        frame = frame.f_back
    return likely, False
