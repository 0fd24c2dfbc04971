"""`openrtc dev` hosts the `Agent` classes of livekit-agents as text sessions, without changes to their files."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest

from openrtc_introspect_core import ConnectionFailed, Snapshot, read_snapshot

pytestmark = pytest.mark.slow

EXAMPLES = Path(__file__).parents[2] / "examples"
T = TypeVar("T")
WITHIN_S = 90.0
"""Long enough to import livekit-agents on a busy machine."""

GREETER = """
from livekit.agents import Agent
from livekit_sessions import Line, ScriptedLLM  # from the folder that the command runs in

class Greeter(Agent):
    def __init__(self) -> None:
        super().__init__(instructions="You greet.", llm=ScriptedLLM((Line("hello", "Good evening to you."),)))

    async def on_enter(self) -> None:
        await self.session.generate_reply(user_input="hello")
        said = [message.text_content for message in self.session.history.messages() if message.role == "assistant"]
        print("said:", *said, flush=True)
"""

SEVERAL = """
from livekit import agents

class Base(agents.Agent):
    def __init__(self, what: str) -> None:
        super().__init__(instructions=what)

class Dental(Base):
    def __init__(self) -> None:
        super().__init__("You make appointments.")

class Leaver(Base):
    def __init__(self) -> None:
        super().__init__("You leave.")

    async def on_enter(self) -> None:
        self.session.shutdown()
"""

BROKEN = """
from livekit.agents import Agent, APIStatusError
from livekit_sessions import ScriptedLLM, ScriptedStream

class BrokenStream(ScriptedStream):
    async def _run(self):
        raise APIStatusError("no credit left", status_code=402, retryable=False)

class BrokenLLM(ScriptedLLM):
    def chat(self, *, chat_ctx, tools=None, conn_options=None, **more):
        return BrokenStream(self, chat_ctx=chat_ctx, tools=tools or [], conn_options=conn_options)

class Broken(Agent):
    def __init__(self) -> None:
        super().__init__(instructions="You fail.", llm=BrokenLLM(()))

    async def on_enter(self) -> None:
        for _ in range(9):  # livekit-agents closes a session after some failures
            await self.session.generate_reply(user_input="hello")
"""

PLAIN = """
import asyncio
from livekit.agents import Agent

class Used(Agent):
    "Not hosted by itself: the file has an entrypoint."

async def entrypoint(session):
    await asyncio.sleep(3600)
"""


@pytest.fixture
def agents() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="rt") as folder:
        yield Path(folder)


class Dev:
    def __init__(self, agents: Path, *options: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "openrtc_top", "dev", str(agents), *options],
            cwd=EXAMPLES,
            env={**os.environ, "OPENRTC_RUNTIME_DIR": str(agents)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.said: list[str] = []
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.said.append(line.rstrip("\n"))

    def wait_for(self, text: str) -> str:
        return self._until(lambda: next((line for line in self.said if text in line), None))

    def snapshot_when(self, condition: Callable[[Snapshot], bool]) -> Snapshot:
        socket = self.wait_for("socket ").removeprefix("socket ")

        def fitting() -> Snapshot | None:
            with contextlib.suppress(ConnectionFailed):
                snapshot = read_snapshot(socket)
                return snapshot if condition(snapshot) else None
            return None

        return self._until(fitting)

    def _until(self, find: Callable[[], T | None]) -> T:
        deadline = time.monotonic() + WITHIN_S
        while (found := find()) is None:
            assert time.monotonic() < deadline, self.said
            time.sleep(0.05)
        return found

    def end(self) -> int:
        """Send two signals, as the sessions do not end by themselves. Return the exit code."""
        self.process.send_signal(signal.SIGTERM)
        self.wait_for("drains on SIGTERM")
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(WITHIN_S)
        self.reader.join(WITHIN_S)
        return code


@contextlib.contextmanager
def dev(agents: Path, *options: str) -> Iterator[Dev]:
    running = Dev(agents, *options)
    with running.process:
        try:
            yield running
        finally:
            running.process.kill()


@pytest.mark.parametrize("isolation", ["coroutine", "process"])
def test_an_agent_class_is_hosted_as_a_text_session(isolation: str, agents: Path) -> None:
    """It is entered, talks, stays until it is cancelled, and closes without an error."""
    (agents / "greeter.py").write_text(GREETER)
    with dev(agents, "--isolation", isolation, "--tenant", "acme") as running:
        running.wait_for("said: Good evening to you.")
        snapshot = running.snapshot_when(lambda snapshot: len(snapshot.sessions) == 1)
        (row,) = snapshot.sessions
        assert (row.agent_name, row.tenant, row.status) == ("greeter", "acme", "active")
        if isolation == "coroutine":
            assert row.steps
        assert running.end() == 143
    assert not [line for line in running.said if "failed" in line or "Traceback" in line]


def test_several_classes_of_a_file_are_named_after_file_and_class(agents: Path) -> None:
    """A class that needs arguments is not hosted. A session that shuts itself down has ended."""
    (agents / "desk.py").write_text(SEVERAL)
    (agents / "plain.py").write_text(PLAIN)
    with dev(agents) as running:
        snapshot = running.snapshot_when(lambda snapshot: snapshot.worker.started == 3 and len(snapshot.sessions) == 2)
        assert {row.agent_name for row in snapshot.sessions} == {"desk.Dental", "plain"}
        assert snapshot.worker.errored == 0
        assert running.end() == 143
    hosted = [line.split()[0] for line in running.said if line.startswith("  ")]
    assert hosted == ["desk.Dental", "desk.Leaver", "plain"]


def test_a_session_that_livekit_closes_for_an_error_has_failed(agents: Path) -> None:
    """It has failed with that error. The command exits with 1, since all sessions have ended."""
    (agents / "broken.py").write_text(BROKEN)
    with dev(agents) as running:
        assert running.process.wait(WITHIN_S) == 1
        running.reader.join(WITHIN_S)
    assert "all sessions have ended: 1 started, 1 failed" in running.said
    assert [line for line in running.said if line.startswith("RuntimeError: the session closed: APIStatusError(")]
