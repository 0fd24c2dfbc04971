"""Where the live threads of the process were started: at which line of the user's code, and for which session.

`threading.Thread.start` is replaced while an introspector is open. The process has one, so all introspectors share the
replacement, and each has its own notes. A thread that was started before, or by `_thread.start_new_thread`, is not seen
starting.
"""

from __future__ import annotations

import re
import sys
import threading
from collections.abc import Callable
from contextvars import Context
from threading import Thread
from types import BuiltinMethodType, FrameType, MethodType
from typing import Any

from .._accounting.called_function import first_line_of, name_of
from .._base import fork
from .._base.interrupts import is_interrupt
from .._base.replaced_method import Replaced
from .._loops.hook import LoopHook
from .._loops.starts import Start, Starts, names_of
from .._loops.task_starts import user_call_on
from .._os.callers import user_call
from .._os.stacks import Places
from .._sessions.session import Binding

_ANYIO = "anyio._backends._asyncio"
_TRIO = "trio._core._thread_cache"

ANY_POOL = "ThreadPoolExecutor"
_UNNAMED = re.compile(rf"{ANY_POOL} {ANY_POOL}-\d+")  # the prefix of the threads' names that the pool made up itself


class ThreadStarts(Starts):
    """The starts that one introspector has seen, of threads that live. Each thread notes its own starts."""

    def __init__(
        self,
        binding: Binding,
        places: Places,
        hook_here: Callable[[], LoopHook | None],
        on_fault: Callable[[str, BaseException], None],
    ) -> None:
        super().__init__()
        self._bound = binding.get
        self._places = places
        self._hook_here = hook_here
        """Returns the hook of the loop that the calling code runs on. None: it runs on none."""
        self._on_fault = on_fault

    def attach(self) -> None:
        """See starts from now on. Raise AttributeError if the method cannot be replaced."""
        _SEAM.add(self)

    def detach(self) -> None:
        """See no more starts. Idempotent."""
        _SEAM.discard(self)

    # --- on the thread that starts another -------------------------------------------------------

    def begins(self, thread: Thread, frame: FrameType) -> Start:
        """Return where the code of `frame` starts a thread."""
        hook = self._hook_here()
        call = user_call_on(hook, frame, self._places) if hook is not None else user_call(frame, self._places)
        return Start(call, runs(thread), names_of(self._bound(None)))

    def failed(self, error: Exception) -> bool:
        """See no more starts after a fault of ours. Return True, and change nothing, if it is an interrupt."""
        if is_interrupt(error):
            return True
        self.detach()
        self._on_fault(f"where threads are started is not seen any more: {error!r}", error)
        return False


def runs(thread: Thread) -> str:
    """Return the qualified name of the function that a thread runs; of a pool's thread, the pool. From any thread."""
    run, target = _run_of(thread), _target_of(thread)
    if run is not Thread.run:
        return "anyio's worker threads" if run.__module__ == _ANYIO else name_of(run)
    if target is None:
        return ""
    if target is getattr(sys.modules.get("concurrent.futures.thread"), "_worker", None):
        return f"{ANY_POOL} {vars(thread).get('_name', '').rpartition('_')[0]}"
    if type(target) is MethodType and target.__func__.__module__ == _TRIO:
        return "Trio's worker threads"
    return name_of(target)


def is_own(thread: Thread, places: Places) -> bool:
    """Return whether a thread is introspection's."""
    run = _run_of(thread)
    first = first_line_of(_target_of(thread) if run is Thread.run else run)
    return first is not None and places.is_own(first.file)


def is_pools(function: str) -> bool:
    """Return whether `runs` has named a pool: its threads belong together, wherever each was started."""
    return " " in function


def is_unnamed_pools(function: str) -> bool:
    """Return whether `runs` has named a pool that was given no name, so that each such pool has another one."""
    return _UNNAMED.fullmatch(function) is not None


def _target_of(thread: Thread) -> Any:
    """Return what a thread calls, also if it does so in a context. None: the thread has ended, or calls nothing."""
    target, args = vars(thread).get("_target"), vars(thread).get("_args")
    if type(target) is BuiltinMethodType and type(target.__self__) is Context and target.__name__ == "run" and args:
        return args[0]
    return target


def _run_of(thread: Thread) -> Any:
    """Return the function `run` of a thread's class."""
    return next(vars(kind)["run"] for kind in type(thread).__mro__ if "run" in vars(kind))


class _Seam:
    """The replaced method, while at least one introspector sees starts. Changed under its lock."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._all: tuple[ThreadStarts, ...] = ()
        self._replaced: Replaced | None = None
        fork.shared.append(self)

    def add(self, starts: ThreadStarts) -> None:
        with self._lock:
            if self._replaced is None:
                self._replaced = Replaced(Thread, "start", self._noting)
            self._all = (*self._all, starts)

    def discard(self, starts: ThreadStarts) -> None:
        with self._lock:
            self._all = tuple(each for each in self._all if each is not starts)
            if not self._all and self._replaced is not None:
                self._replaced.put_back()
                self._replaced = None

    def abandon_after_fork(self) -> None:
        """Have a lock of its own in a forked child: another thread may have held the parent's."""
        self._lock = threading.RLock()

    def _noting(self, before: Callable[..., Any] | None) -> Callable[..., Any]:
        assert before is not None  # the class defines it

        def start(*args: Any, **kwargs: Any) -> Any:
            begun: list[tuple[ThreadStarts, Start]] = []
            for starts in self._all if args and isinstance(args[0], Thread) else ():
                try:
                    begun.append((starts, starts.begins(args[0], sys._getframe(1))))
                except Exception as error:
                    if starts.failed(error):
                        raise
            try:
                started = before(*args, **kwargs)
            except BaseException as error:
                error.__traceback__ = error.__traceback__.tb_next  # type: ignore[union-attr]  # this frame is not theirs
                raise
            for starts, where in begun:
                try:
                    starts.note(args[0], where)
                except Exception as error:
                    if starts.failed(error):
                        raise
            return started

        return start


_SEAM = _Seam()
