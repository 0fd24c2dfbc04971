"""Hosting agents from files: how many, for whom, again, and anew when a file changes."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest

from openrtc_introspect_core import AgentPool, SessionRow
from openrtc_top._dev import host as host_module
from openrtc_top._dev.files import PACKAGE
from openrtc_top._dev.host import DevHost, Plan, find_agents

WITHIN_S = 30.0

ENDLESS = """
import anyio
VERSION = {version}
async def entrypoint(session):
    await anyio.sleep(3600)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """The agents'. What was imported from there is forgotten afterwards."""
    path = sys.path.copy()
    yield tmp_path
    sys.path[:] = path
    for name, module in list(sys.modules.items()):
        if name.startswith(PACKAGE) or str(getattr(module, "__file__", "")).startswith(str(tmp_path)):
            del sys.modules[name]


class Hosted:
    """A host under way, and what it reported."""

    def __init__(self, path: Path, **plan: Any) -> None:
        self.pool = AgentPool(introspection={"socket_path": False})
        self.reports: list[str] = []
        self.plan = Plan(path, **plan)
        self.host = DevHost(self.plan, self.pool, find_agents(path), self.reports.append)

    def run(self, use: Callable[[], Awaitable[None]] | None = None) -> None:
        """Until it has ended, or `use` has."""

        async def main() -> None:
            with anyio.fail_after(WITHIN_S):
                async with anyio.create_task_group() as group:
                    self.started = anyio.Event()
                    group.start_soon(self.host.run, self.started.set)
                    if use is not None:
                        await self.started.wait()
                        await use()
                        self.pool.stop()

        anyio.run(main)

    def rows(self) -> list[SessionRow]:
        assert self.pool.introspector is not None
        return [row for row in self.pool.introspector.snapshot().sessions if row.status != "errored"]

    async def until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            await anyio.sleep(0.01)


def test_so_many_sessions_of_each_agent_for_the_tenants_in_turn(folder: Path) -> None:
    """Three of each; two tenants take turns."""
    for name in ("restaurant", "dental"):
        (folder / f"{name}.py").write_text(ENDLESS.format(version=1))
    hosted = Hosted(folder, sessions=3, tenants=("acme", "globex"))

    async def use() -> None:
        await hosted.until(lambda: len(hosted.rows()) == 6)
        rows = hosted.rows()
        assert sorted(row.agent_name for row in rows) == ["dental"] * 3 + ["restaurant"] * 3
        assert sorted(str(row.tenant) for row in rows) == ["acme"] * 3 + ["globex"] * 3

    hosted.run(use)


def test_it_ends_when_all_sessions_have(folder: Path) -> None:
    """And says how they ended."""
    (folder / "good.py").write_text("async def entrypoint(session): ...")
    (folder / "bad.py").write_text("async def entrypoint(session):\n    raise ValueError")
    hosted = Hosted(folder, sessions=2)
    hosted.run()
    assert hosted.reports == ["all sessions have ended: 4 started, 2 failed"]
    assert hosted.pool.draining


def test_respawn_starts_a_session_again_later_and_later(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that ends at once is waited with; how long is reported."""
    monkeypatch.setattr(host_module, "BACKOFF_S", 0.01)
    monkeypatch.setattr(host_module, "MAX_BACKOFF_S", 0.04)
    (folder / "bad.py").write_text("async def entrypoint(session):\n    raise ValueError")
    hosted = Hosted(folder, respawn=True)

    async def use() -> None:
        await hosted.until(lambda: hosted.pool.failed >= 5)

    hosted.run(use)
    waits = [line.rpartition("again in ")[2] for line in hosted.reports if "errored after" in line]
    assert waits[:4] == ["0.01 s", "0.02 s", "0.04 s", "0.04 s"]


def test_respawn_starts_a_session_that_lasted_again_at_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is reported."""
    monkeypatch.setattr(host_module, "QUICK_S", 0.0)
    (folder / "short.py").write_text("import anyio\nasync def entrypoint(session):\n    await anyio.sleep(0.01)")
    hosted = Hosted(folder, respawn=True)

    async def use() -> None:
        await hosted.until(lambda: hosted.pool.started >= 4)

    hosted.run(use)
    assert hosted.reports == []


def versions(hosted: Hosted) -> dict[str, Any]:
    """Of what each agent would run now."""
    return {
        name: entrypoint.__globals__["VERSION"] if (entrypoint := agent.entrypoint) is not None else None
        for name, agent in hosted.host._agents.items()
    }


def taking(hosted: Hosted, steps: Callable[[], Iterator[Path]]) -> None:
    """Runs the steps one after the other; each yields the file that it has changed."""

    async def use() -> None:
        await settle()
        for file in steps():
            hosted.host.take([file.resolve()])
            await settle()

    async def settle() -> None:
        for _ in range(100):  # turns of the loop: nothing here waits for anything else
            await anyio.sleep(0)

    hosted.run(use)


def test_a_file_that_changes_restarts_its_agent_only(folder: Path) -> None:
    """The other agent's session is the same one; the restarted one is another, and runs the new code."""
    for name in ("one", "two"):
        (folder / f"{name}.py").write_text(ENDLESS.format(version=1))
    hosted = Hosted(folder)
    ids: list[dict[str, str]] = []

    def steps() -> Iterator[Path]:
        ids.append({row.agent_name: row.session_id for row in hosted.rows()})
        (folder / "one.py").write_text(ENDLESS.format(version=2))
        yield folder / "one.py"
        ids.append({row.agent_name: row.session_id for row in hosted.rows()})

    taking(hosted, steps)
    before, after = ids
    assert before["two"] == after["two"]
    assert before["one"] != after["one"]
    assert versions(hosted) == {"one": 2, "two": 1}
    assert hosted.reports == [f"one: starts anew, {folder / 'one.py'} has changed"]
    assert hosted.pool.failed == 0


def test_a_version_that_cannot_be_imported_changes_nothing(folder: Path) -> None:
    """Running sessions go on, the error is reported, and the next good version is taken."""
    file = folder / "one.py"
    file.write_text(ENDLESS.format(version=1))
    hosted = Hosted(folder)

    def steps() -> Iterator[Path]:
        file.write_text(ENDLESS.format(version=2) + "1 / 0\n")
        yield file
        assert (hosted.pool.started, versions(hosted)) == (1, {"one": 1})
        file.write_text(ENDLESS.format(version=3))
        yield file
        assert (hosted.pool.started, versions(hosted)) == (2, {"one": 3})

    taking(hosted, steps)
    assert hosted.reports == [
        f"error: {file}:6: ZeroDivisionError: division by zero; what runs of it stays as it was",
        f"one: starts anew, {file} has changed",
    ]


def test_agents_come_and_go_with_their_files(folder: Path) -> None:
    """A new file is started, a removed one is ended, and may come back."""
    one, two = folder / "one.py", folder / "two.py"
    one.write_text(ENDLESS.format(version=1))
    hosted = Hosted(folder, reload=False)

    def steps() -> Iterator[Path]:
        two.write_text(ENDLESS.format(version=1))
        yield two
        assert {row.agent_name for row in hosted.rows()} == {"one", "two"}
        two.unlink()
        yield two
        assert {row.agent_name for row in hosted.rows()} == {"one"}
        two.write_text(ENDLESS.format(version=2))
        yield two
        assert {row.agent_name for row in hosted.rows()} == {"one", "two"}
        two.write_text("")  # it is a file without an agent now
        yield two
        assert {row.agent_name for row in hosted.rows()} == {"one"}

    taking(hosted, steps)
    assert [line.partition(",")[0] for line in hosted.reports] == [
        "two: starts", "two: ends", "two: starts", "two: ends"
    ]  # fmt: skip


def test_a_helper_that_changes_restarts_all_agents(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The agents that use it are not known; all of them see its new version."""
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    helper = folder / "helper_of_all.py"
    helper.write_text("VALUE = 1")
    for name in ("one", "two"):
        (folder / f"{name}.py").write_text(
            ENDLESS.format(version=1) + "import helper_of_all\nVERSION = helper_of_all.VALUE\n"
        )
    hosted = Hosted(folder)
    assert versions(hosted) == {"one": 1, "two": 1}

    def steps() -> Iterator[Path]:
        helper.write_text("VALUE = 22")
        yield helper

    taking(hosted, steps)
    assert versions(hosted) == {"one": 22, "two": 22}
    assert hosted.reports == [f"{name}: starts anew, {helper} has changed" for name in ("one", "two")]


def test_what_is_found_is_sorted_into_agents_others_and_errors(folder: Path) -> None:
    """Each file once."""
    (folder / "good.py").write_text("async def entrypoint(session): ...")
    (folder / "menu.py").write_text("")
    (folder / "bad.py").write_text("def entrypoint(session): ...")
    (folder / "notes.txt").write_text("async def entrypoint(session): ...")
    found = find_agents(folder)
    assert list(found.agents) == ["good"]
    assert found.skipped == [f"{folder / 'menu.py'}: no `async def entrypoint(session)`"]
    (error,) = found.errors
    assert error.startswith(f"{folder / 'bad.py'}:1: entrypoint must be")
    assert list(find_agents(folder / "good.py").agents) == ["good"]
