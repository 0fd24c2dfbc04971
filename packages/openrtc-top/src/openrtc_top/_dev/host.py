"""Hosting the agents of a folder: sessions of each, anew when a file changes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

import anyio
import anyio.abc

from openrtc_introspect_core import AgentPool, IntrospectError, PoolSession, StateError
from openrtc_top._dev.agent import FileAgent
from openrtc_top._dev.entrypoint import WANTED, AgentError, Entrypoint
from openrtc_top._dev.file_changes import Stamps, changes, stamps
from openrtc_top._dev.files import folder_of, forget_helpers, load, python_files, scan

QUICK_S = 1.0
"""A session that ended sooner is not started again at once."""

BACKOFF_S = 0.5
MAX_BACKOFF_S = 30.0


@dataclass(frozen=True, slots=True)
class Plan:
    """A request to `openrtc dev`."""

    path: Path
    sessions: int = 1
    """The number of sessions of each agent."""
    tenants: Sequence[str] = ()
    """The sessions' tenants, taken in turn."""
    respawn: bool = False
    reload: bool = False


@dataclass
class FoundAgents:
    """The agents that were found in the path at first, and the problems."""

    agents: dict[str, tuple[Path, Entrypoint]] = field(default_factory=dict)
    skipped: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    stamps: Stamps = field(default_factory=dict)
    """The files in the folder, before they were imported."""


def find_agents(path: Path) -> FoundAgents:
    """Import all agents in the path."""
    found = FoundAgents(stamps=stamps(folder_of(path)))
    for file in python_files(path):
        try:
            agents = load(file)
        except AgentError as error:
            found.errors.append(str(error))
            continue
        if not agents:
            found.skipped.append(f"{file}: {why_none(file)}")
        for name, entrypoint in agents.items():
            found.agents[name] = file, entrypoint
    return found


def why_none(file: Path) -> str:
    """Return why a file without an error has no agent."""
    from openrtc_top._dev.livekit import installed

    if not scan(file).livekit:
        return f"no {WANTED}"
    return f"no {WANTED}, and no Agent that needs no arguments" if installed() else "livekit-agents is not installed"


class DevHost:
    """Runs a plan in a pool. `report` is called with each line for the user."""

    def __init__(self, plan: Plan, pool: AgentPool, found: FoundAgents, report: Callable[[str], None]) -> None:
        self.plan = plan
        self.pool = pool
        self._report = report
        self._agents: dict[str, FileAgent] = {}
        self._stamps = found.stamps
        self._numbers = count()
        self._ended = False
        """All sessions have ended, and none will come."""
        for name, (path, entrypoint) in found.agents.items():
            self._add(path, name, entrypoint)

    async def run(self, started: Callable[[], None]) -> None:
        """Run until the pool is done. Raises IntrospectError if the pool cannot serve."""
        failure: IntrospectError | None = None
        async with anyio.create_task_group() as self._group:
            try:
                await self._group.start(self._serve)
            except IntrospectError as error:  # raised below: here it would be raised in a group
                failure = error
            else:
                started()
                for agent in self._agents.values():
                    self._start(agent)
                if self.plan.reload:
                    self._group.start_soon(self._reload)
        if failure is not None:
            raise failure

    async def _serve(self, *, task_status: anyio.abc.TaskStatus[None]) -> None:
        await self.pool.serve(handle_signals=True, task_status=task_status)
        if self._ended:  # reported here, after what the pool has logged of them
            self._report(f"all sessions have ended: {self.pool.started} started, {self.pool.failed} failed")
        self._group.cancel_scope.cancel()

    # --- sessions ---------------------------------------------------------------------------------

    def _add(self, path: Path, name: str, entrypoint: Entrypoint) -> FileAgent:
        agent = self._agents[name] = FileAgent(path, name, entrypoint)
        self.pool.add(name, agent)
        return agent

    def _start(self, agent: FileAgent) -> None:
        agent.scope = anyio.CancelScope()
        self._group.start_soon(self._keep, agent)

    async def _keep(self, agent: FileAgent) -> None:
        """Keep the agent's sessions running, for as long as its file has it."""
        while agent.scope is not None and agent.entrypoint is not None and not self.pool.draining:
            with agent.scope:
                async with anyio.create_task_group() as slots:
                    for _ in range(self.plan.sessions):
                        slots.start_soon(self._keep_one, agent, self._next_tenant())
            agent.scope = anyio.CancelScope() if agent.restart else None
            agent.restart = False
        agent.scope = None
        if not self.pool.draining and all(each.scope is None for each in self._agents.values()):
            self._all_ended()

    def _next_tenant(self) -> str | None:
        tenants = self.plan.tenants
        return tenants[next(self._numbers) % len(tenants)] if tenants else None

    def _all_ended(self) -> None:
        if self.plan.reload:
            self._report("all sessions have ended; a change of a file starts its agent again")
        else:
            self._ended = True
            self.pool.drain()

    async def _keep_one(self, agent: FileAgent, tenant: str | None) -> None:
        """Run one session at a time, one after the other if the plan says so."""
        delay = BACKOFF_S
        while not self.pool.draining:
            began = anyio.current_time()
            session = await self._run_one(agent, tenant)
            if session is None or not self.plan.respawn or self.pool.draining:
                return
            lasted = anyio.current_time() - began
            if lasted >= QUICK_S:
                delay = BACKOFF_S
                continue
            self._report(
                f"{agent.name} {session.session_id}: {session.state} after {lasted:.1f} s; again in {delay:g} s"
            )
            await anyio.sleep(delay)
            delay = min(2 * delay, MAX_BACKOFF_S)

    async def _run_one(self, agent: FileAgent, tenant: str | None) -> PoolSession | None:
        """Run one session, to its end. None: the pool takes no more."""
        try:
            session = await self.pool.start_session(agent.name, metadata={"tenant": tenant} if tenant else None)
        except StateError:
            return None
        try:
            await session.wait()
        finally:
            session.cancel()
            with anyio.CancelScope(shield=True):
                await session.wait()
        return session

    # --- files that change ------------------------------------------------------------------------

    async def _reload(self) -> None:
        async for changed in changes(folder_of(self.plan.path).resolve(), self._stamps):
            self.take(changed)

    def take(self, changed: Iterable[Path]) -> None:
        """Restart the agents of the files that changed.

        If another file did, all of them restart, since they may use it.
        """
        folder = folder_of(self.plan.path)
        files = {agent.path.resolve(): agent.path for agent in self._agents.values()}
        files |= {file.resolve(): file for file in python_files(self.plan.path)}
        agents = {agent.path.resolve() for agent in self._agents.values()}
        reasons: dict[Path, Path] = {}
        for path in changed:
            if path in agents or (path in files and _may_be_agent(files[path])):
                reasons[path] = files[path]
            else:
                forget_helpers(folder, agents)
                shown = folder / path.relative_to(folder.resolve())
                reasons = {**dict.fromkeys(agents, shown), **reasons}
        for path, reason in sorted(reasons.items()):
            self._take_one(files[path], reason)

    def _take_one(self, file: Path, reason: Path) -> None:
        try:
            found = load(file) if file.exists() else {}
        except AgentError as error:
            self._report(f"error: {error}; what runs of it stays as it was")
            return
        for name, entrypoint in found.items():
            agent = self._agents.get(name)
            if agent is None:
                agent = self._add(file, name, entrypoint)
            agent.entrypoint = entrypoint
            if agent.scope is None:
                self._report(f"{name}: starts, {reason} is new or changed")
                self._start(agent)
            else:
                self._report(f"{name}: starts anew, {reason} has changed")
                agent.restart = True
                agent.scope.cancel()
        for agent in self._agents.values():
            if agent.path == file and agent.name not in found and agent.entrypoint is not None:
                self._report(f"{agent.name}: ends, {file} has it no more")
                agent.entrypoint = None
                if agent.scope is not None:
                    agent.scope.cancel()


def _may_be_agent(file: Path) -> bool:
    try:
        return scan(file).may_be_agent
    except AgentError:
        return True  # loading it reports the error
