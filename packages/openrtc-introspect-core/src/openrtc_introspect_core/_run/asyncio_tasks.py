"""Top-level tasks of asyncio's loops.

While it is attached, the loop's `create_task` binds the session of a new top-level task around its creation, so that
the task's context, its meter, and an eager task's first step have it. What a server's connections create is outside of
every session, whatever session has begun to serve: `create_server` of the loop's class runs outside of sessions.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from contextvars import Context
from types import FrameType
from typing import Any

from .._base.replaced_method import Replaced
from .._loops.asyncio_names import context_of
from .._loops.hook import LoopHook
from .._native import rebound
from .._sessions.no_session import NoSession
from .._sessions.registry import SessionRegistry
from . import program
from .top_level import Begun, TopLevelSessions, is_top_level

SERVES = ("create_server", "create_unix_server")

_NAMED_LATER = (asyncio.create_task.__code__, asyncio.TaskGroup.create_task.__code__)
"""What gives a task its name after its creation, before Python 3.13."""


class TopLevelTasks:
    """The top-level tasks of one loop, from its creation on."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, hook: LoopHook, loop_name: str, sessions: TopLevelSessions
    ) -> None:
        self._loop = loop
        self.hook = hook
        self._loop_name = loop_name
        self._sessions = sessions
        self._binding = sessions.sessions.binding
        try:
            for task in asyncio.all_tasks(loop):
                self._adopt(task)
        except Exception as error:
            self._sessions.failed(error)
        self._replaced = Replaced(loop, "create_task", self._creating)

    def detach(self) -> None:
        """Restore the loop's method."""
        self._replaced.put_back()

    def _creating(self, before: Callable[..., Any] | None) -> Callable[..., Any]:
        """Return the `create_task` to put in place."""
        below: Any = before if before is not None else self._loop.create_task
        binding = self._binding

        def create_task(loop: Any, coro: Any, **kwargs: Any) -> Any:
            begun = token = None
            try:
                begun = self._begin(coro, kwargs, sys._getframe(1))
                if begun is not None and kwargs.get("context") is None:
                    token = binding.set(begun.session)
                    rebound()
            except Exception as error:
                self._sessions.failed(error)
            try:
                task = below(coro, **kwargs)
            except BaseException as error:
                error.__traceback__ = error.__traceback__.tb_next  # type: ignore[union-attr]  # this frame is not theirs
                if begun is not None:
                    begun.end(None)
                raise
            finally:
                if token is not None:
                    binding.reset(token)
                    rebound()
            try:
                if begun is not None:
                    self._sessions.follow(begun, task)
                if frames := getattr(task, "_source_traceback", None):  # of debug mode
                    frames[:] = self._without_ours(frames)
            except Exception as error:
                self._sessions.failed(error)
            return task

        return create_task

    def _begin(self, coro: Any, kwargs: dict[str, Any], frame: FrameType) -> Begun | None:
        """Return the session of a new top-level task, bound in the context that it was given, if any.

        None: the task is none, or belongs to no session.
        """
        context: Context | None = kwargs.get("context")
        creator = self._binding.get(None) if context is None else context.get(self._binding)
        if not is_top_level(creator) or not asyncio.iscoroutine(coro):
            return None
        name = kwargs.get("name")
        if name is None and sys.version_info < (3, 13) and frame.f_code in _NAMED_LATER:
            name = frame.f_locals.get("name")
        root = not self._loop.is_running()
        begun = self._sessions.begin(
            coro, str(name) if name is not None else None, frame, self.hook, self._loop_name, root=root
        )
        if begun is not None and context is not None:
            try:
                context.run(self._binding.set, begun.session)
                rebound()
            except RuntimeError:  # code runs in it: whose that is stays as it was
                begun.end(None)
                return None
        return begun

    def _adopt(self, task: Any) -> None:
        """Begin the session of a task that is older than the hook, and a root: the loop has not run until now."""
        context = context_of(task)
        if context is None or not is_top_level(context.get(self._binding)):
            return
        begun = self._sessions.begin(task.get_coro(), name_given(task), None, self.hook, self._loop_name, root=True)
        if begun is not None:
            context.run(self._binding.set, begun.session)
            rebound()
            self.hook.adopt_task(task, begun.session)
            self._sessions.follow(begun, task)

    def _without_ours(self, frames: list[Any]) -> list[Any]:
        """Return where a task was created, the innermost frame last, from the program's first frame on."""
        at = next((at for at, each in enumerate(frames, start=1) if each.filename == program.__file__), 0)
        return [each for each in frames[at:] if not self._sessions.places.is_own(each.filename)]


def name_given(task: Any) -> str | None:
    """Return a task's name, unless it is one that asyncio has given it."""
    name: str = task.get_name()
    return None if name.startswith("Task-") else name


def serve_outside_of_sessions(kind: type, sessions: Callable[[], SessionRegistry | None]) -> list[Replaced]:
    """Have loops of this class serve outside of sessions, until what is returned is put back."""

    def serving(below: Any) -> Callable[..., Any]:
        async def serve(loop: Any, *args: Any, **kwargs: Any) -> Any:
            registry = sessions()
            with NoSession(lambda: [registry] if registry is not None else []):
                try:
                    return await below(loop, *args, **kwargs)
                except BaseException as error:
                    error.__traceback__ = error.__traceback__.tb_next  # type: ignore[union-attr]  # not theirs
                    raise

        return serve

    return [Replaced(kind, name, serving) for name in SERVES if hasattr(kind, name)]
