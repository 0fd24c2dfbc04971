"""Jobs of livekit-agents as sessions, with their ids and agents, where the program does not say so itself.

Whatever way a program has given livekit-agents its entrypoint, and whether jobs are processes or threads, one class of
livekit-agents calls it. That class gets the entrypoint that the adapter for livekit-agents has made of it. A release in
which the class is another one is left alone: its jobs are top-level tasks.
"""

from __future__ import annotations

import contextlib
import inspect
import sys
from collections.abc import Callable
from typing import Any, Protocol

from .._base.import_hook import WhenImported
from .._base.replaced_method import Replaced
from ..adapters.livekit import Jobs, Measuring

MODULE, CALLER, ARGUMENT = "livekit.agents.ipc.job_proc_lazy_main", "_JobProc", "job_entrypoint_fnc"


class GivesWay(Measuring, Protocol):
    """The process's introspection."""

    gave_way: bool


def see_jobs(process: GivesWay) -> None:
    """Have each job of livekit-agents in this process be a session from now on."""
    jobs = Jobs(process)

    def introspected(entrypoint: Any) -> Any:
        return entrypoint if process.gave_way or not callable(entrypoint) else jobs.introspected(entrypoint)

    def making(below: Any) -> Callable[..., Any]:
        at = list(inspect.signature(below).parameters).index(ARGUMENT) - 1  # without self

        def initialize(caller: Any, *args: Any, **kwargs: Any) -> None:
            if ARGUMENT in kwargs:
                kwargs[ARGUMENT] = introspected(kwargs[ARGUMENT])
            elif len(args) > at:
                args = (*args[:at], introspected(args[at]), *args[at + 1 :])
            below(caller, *args, **kwargs)

        return initialize

    def see() -> None:
        with contextlib.suppress(Exception):  # the program's import goes on
            caller = getattr(sys.modules[MODULE], CALLER, None)
            if inspect.isclass(caller) and ARGUMENT in inspect.signature(caller).parameters:
                Replaced(caller, "__init__", making)

    WhenImported(MODULE, see).__enter__()
