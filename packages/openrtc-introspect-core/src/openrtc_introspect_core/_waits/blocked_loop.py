"""The wait of a blocked loop's thread, and the holder of what it waits for."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator, Sequence
from types import FrameType
from typing import Any, NamedTuple

from .._base.clock import WallTime
from .._loops.asyncio_names import coro_of, is_task, loop_of, waiter_of
from .._loops.await_chain import await_chain
from .._loops.hook import LoopHook
from .._loops.iterations import Fault
from .._loops.task_starts import function_of
from .._os.stacks import MAX_FRAMES, Call, Places, frames_now, frames_of_others, take
from .._os.variables import variables_of
from ..wire._messages import Holder
from .future_callbacks import closures
from .lock_holders import LockHolders
from .locks import attribute
from .thread_waits import FUTURE, LOCK, THREAD, thread_wait

_CALL_IN_THREAD = ("concurrent.futures.thread", "_WorkItem.run")


class LoopWait(NamedTuple):
    """What a loop's thread waits for."""

    waiting_on: str | None
    """In English. None: nothing, or it is not known."""
    holder: Holder | None
    """Who has the lock that it waits for. None: it is no lock, nobody has it, or it is not known."""


class BlockedLoop:
    """Looks at one loop while something blocks it. From any thread but the loop's own."""

    def __init__(
        self,
        hook: LoopHook,
        hooks: Callable[[], Sequence[LoopHook]],
        places: Places,
        wall: WallTime,
        on_fault: Fault,
    ) -> None:
        self._hook = hook
        self._hooks = hooks
        """Returns the hooks of all attached loops: a task of another loop may have the lock."""
        self._places = places
        self._wall = wall
        self._on_fault = on_fault
        self._failed = False

    def look(self) -> LoopWait | None:
        """Return what the loop's thread waits for now. None: it waits for nothing, or that is not known."""
        if self._failed:
            return None
        try:
            return self._look()
        except Exception as error:
            self._failed = True
            self._on_fault(f"what blocked loops wait for is no longer looked at: {error!r}", error)
            return None

    def _look(self) -> LoopWait | None:
        wait = thread_wait(frames_now().get(self._hook.thread_id), self._hook.ends.codes)
        if wait is None:
            return None
        if wait.kind == LOCK:
            return LoopWait(wait.what, LockHolders(self._hooks(), self._places, self._wall).holder(wait.target))
        what = wait.what
        if wait.kind == FUTURE:
            what = self._of_future(wait.target) or what
        elif wait.kind == THREAD:
            what += self._at(_frames_of(attribute(wait.target, "_ident")))
        return LoopWait(what, None)

    def _of_future(self, future: Any) -> str | None:
        """Return whose result a `concurrent.futures.Future` is to have. None: that is not known."""
        task = next(_tasks_behind(future), None)
        if task is not None:
            return self._of_task(task)
        names = {thread.ident: thread.name for thread in threading.enumerate()}
        for thread_id, frame in frames_of_others().items():
            if _runs_for(frame, future):
                return f"a call in thread {names.get(thread_id, '')}{self._at(frame)}"
        if attribute(future, "_state") == "PENDING" and attribute(future, "_done_callbacks") == []:
            return "a call that no thread has begun"
        return None

    def _of_task(self, task: asyncio.Task[Any]) -> str:
        """Describe the coroutine that another thread's loop runs, by the line that it is at."""
        coro = coro_of(task)
        name = function_of(task).rpartition("<locals>.")[2]
        loop = loop_of(task)
        thread = next((hook.thread for hook in self._hooks() if hook.is_loop(loop)), None)
        if thread is None:
            thread = next((each for each in threading.enumerate() if each.ident == _thread_id(loop)), None)
        if asyncio.current_task(loop) is task:
            at = self._at(_frames_of(thread.ident if thread is not None else None))
        else:
            calls, _ = await_chain(coro, waiter_of(task))
            at = self._place(tuple(reversed(calls)))
        return f"the coroutine `{name}` on the loop of thread {thread.name if thread is not None else '?'}{at}"

    def _at(self, frame: FrameType | None) -> str:
        calls, _ = take(frame, ())
        return self._place(calls)

    def _place(self, calls: Sequence[Call]) -> str:
        """Return where calls are, innermost first: in the user's own code, if any is."""
        call = self._places.innermost(calls)
        return f", at {self._places.location(call)}" if call is not None else ""


def _frames_of(thread_id: int | None) -> FrameType | None:
    return frames_now().get(thread_id) if thread_id is not None else None


def _thread_id(loop: Any) -> int | None:
    """Return the identifier of the thread that runs a loop of asyncio's own. None: it does not say."""
    thread_id = attribute(loop, "_thread_id")
    return thread_id if type(thread_id) is int else None


def _tasks_behind(future: Any) -> Iterator[asyncio.Task[Any]]:
    """Yield the tasks whose result a future is to get: `run_coroutine_threadsafe` chains them by a callback."""
    for _, variables in closures(attribute(future, "_done_callbacks") or ()):
        yield from filter(is_task, variables.values())


def _runs_for(frame: FrameType | None, future: Any) -> bool:
    """Return whether a thread of an executor runs the call whose result this future is to have."""
    for _ in range(MAX_FRAMES):
        if frame is None:
            break
        if (frame.f_globals.get("__name__"), frame.f_code.co_qualname) == _CALL_IN_THREAD:
            return attribute((variables_of(frame) or {}).get("self"), "future") is future
        frame = frame.f_back
    return False
