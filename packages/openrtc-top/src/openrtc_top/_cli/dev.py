"""`openrtc dev`: the agents in a folder, hosted in one worker."""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from openrtc_top._cli.options import parse_isolation, parse_memory, parse_sessions, parse_threshold
from openrtc_top._cli.outcome import FAILED, OK, USAGE, fail, put, say
from openrtc_top._view.encoding import printable

if TYPE_CHECKING:
    from openrtc_introspect_core import AgentPool
    from openrtc_top._dev.host import FoundAgents, Plan


def dev(
    path: Annotated[Path, typer.Argument(metavar="PATH", help="A folder of agents, or one agent's file.")],
    sessions: Annotated[
        int, typer.Option("--sessions", metavar="N", parser=parse_sessions, help="So many sessions of each agent.")
    ] = 1,
    respawn: Annotated[
        bool, typer.Option("--respawn", metavar="", help="Start a session that ends again, later if it ended at once.")
    ] = False,
    reload: Annotated[
        bool,
        typer.Option(
            "--reload",
            metavar="",
            help="Restart an agent's sessions when its file changes. Needs the extra openrtc-top[reload].",
        ),
    ] = False,
    tenants: Annotated[
        list[str] | None,
        typer.Option("--tenant", metavar="NAME", help="The sessions' tenant. Several are taken in turn."),
    ] = None,
    isolation: Annotated[
        str,
        typer.Option(
            "--isolation",
            metavar="MODE",
            parser=parse_isolation,
            help="coroutine: sessions are tasks of one loop. process: each is a process, not introspected.",
        ),
    ] = "coroutine",
    no_introspection: Annotated[
        bool, typer.Option("--no-introspection", metavar="", help="Measure nothing and serve nothing.")
    ] = False,
    threshold_ms: Annotated[
        float,
        typer.Option(
            "--slow-session-threshold-ms", metavar="N", parser=parse_threshold, help="What counts as a block."
        ),
    ] = 50.0,
    memory_limit_mb: Annotated[
        float,
        typer.Option(
            "--memory-limit-mb", metavar="N", parser=parse_memory, help="Drain at so much memory; 0: no limit."
        ),
    ] = 0.0,
    name: Annotated[str, typer.Option("--name", metavar="NAME", help="The worker's name.")] = "dev",
) -> None:
    """Host the agents in PATH, introspected.

    Each *.py in it that defines `async def entrypoint(session)` is an agent named after its file;
    in a file without one, livekit-agents' Agent classes are. Ends when all sessions have ended.
    Ctrl-C lets those that run finish; again, it cancels them.
    """
    from openrtc_introspect_core import AgentPool, IntrospectError
    from openrtc_top._dev.file_changes import can_watch
    from openrtc_top._dev.host import Plan, find_agents

    if not path.exists():
        raise fail(f"no such file or folder: '{path}'", USAGE)
    for tenant in tenants or ():
        if not (1 <= len(tenant) <= 256 and tenant.isprintable()):
            raise fail(f"--tenant takes 1 to 256 printable characters, got {tenant!a:.80}", USAGE)
    if reload and not can_watch():
        raise fail("--reload needs watchfiles: pip install 'openrtc-top[reload]'", USAGE)
    try:
        pool = AgentPool(
            name=name,
            isolation="process" if isolation == "process" else "coroutine",
            enable_introspection=not no_introspection,
            slow_session_threshold_ms=threshold_ms,
            memory_limit_mb=memory_limit_mb,
        )
    except IntrospectError as error:
        raise fail(str(error), USAGE) from None
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    if reload:  # what is imported beside the agents changes as well
        sys.dont_write_bytecode = True
    try:
        found = find_agents(path)
    except OSError as error:
        raise fail(f"cannot read '{path}': {error.strerror or error}", USAGE) from None
    for problem in found.errors:
        say(f"error: {problem}")
    if not reload:
        if found.errors:
            raise typer.Exit(USAGE)
        if not found.agents:
            raise fail(
                f"no agents in '{path}': a file that defines `async def entrypoint(session)` is one"
                + "".join(f"; skipped {skipped}" for skipped in found.skipped[:3]),
                USAGE,
            )
    raise typer.Exit(_host(Plan(path, sessions, tenants or (), respawn, reload), pool, found))


def _host(plan: Plan, pool: AgentPool, found: FoundAgents) -> int:
    import logging

    import anyio

    from openrtc_introspect_core import IntrospectError
    from openrtc_top._dev.host import DevHost

    logging.basicConfig(format="%(message)s")
    try:
        host = DevHost(plan, pool, found, report)
        anyio.run(host.run, lambda: _announce(plan, pool, found))
    except IntrospectError as error:
        raise fail(str(error), FAILED) from None
    if pool.ended_by is not None:
        return 128 + pool.ended_by
    return FAILED if pool.failed and not plan.respawn else OK


def _announce(plan: Plan, pool: AgentPool, found: FoundAgents) -> None:
    count = plan.sessions * len(found.agents)
    how = "a process of its own" if pool.isolation == "process" else "a task of one loop"
    report(f"worker {pool.name}, pid {os.getpid()}: {_counted(count, 'session')}, each {how}")
    widest = max(map(len, found.agents), default=0)
    for name, (file, _) in found.agents.items():
        report(f"  {name:{widest}}  {_counted(plan.sessions, 'session')}  {file}")
    for skipped in found.skipped:
        report(f"  skipped {skipped}")
    if plan.reload:
        report(f"restarts agents as files in {plan.path} change")
    if pool.socket_path is None:
        report("not introspected: `openrtc top` does not see it")
    else:
        report(f"socket {pool.socket_path}")
        report("Run `openrtc top` in another terminal. Ctrl-C drains; a second Ctrl-C ends it at once.")


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def report(line: str) -> None:
    """Print a line.

    If nobody reads stdout any more, the host goes on without it.
    """
    with contextlib.suppress(typer.Exit):
        put(printable(line))
