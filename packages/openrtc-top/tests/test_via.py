"""`--via`: real commands with a relay at their other end, and what is said when there is none."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest
from typer.testing import CliRunner

from openrtc_introspect_core.wire import Block, Snapshot, WorkerSocket
from openrtc_introspect_testing import FakeWorker
from openrtc_top import _connection, _via
from openrtc_top._cli.app import app
from openrtc_top._connection import follow_all
from openrtc_top._state import Blocked, Dropped, Event, Found, Frame, Gone
from openrtc_top._via import Via

StartWorker = Callable[..., subprocess.Popen[bytes]]
InTerminal = Callable[..., Any]  # a FakeTerminal, see conftest.py
OpenRTC = Callable[..., subprocess.CompletedProcess[str]]
RELAY = f"{sys.executable} -m openrtc_top relay"


@pytest.fixture
def worker(make_snapshot: Callable[..., Snapshot], make_past: Callable[..., Block]) -> Iterator[FakeWorker]:
    with FakeWorker([make_snapshot(blocks=[])], blocks=[make_past(1)]) as fake:
        yield fake


@pytest.mark.parametrize("command", ["ps", "blocks"])
def test_once(command: str, worker: FakeWorker) -> None:
    """The other side's workers, as if they were here: `sh -c 'exec "$@"' --` stands for ssh."""
    via = f"""voice-3=sh -c 'exec "$@"' -- {RELAY} --socket {worker.path}"""
    result = CliRunner().invoke(app, [command, "--json", "--via", via])
    assert (result.exit_code, result.stderr) == (0, "")
    told = json.loads(result.stdout)
    if command == "ps":
        assert (told["name"], told["host"], told["socket"]) == ("voice-a", "voice-3", str(worker.path))
    else:
        assert told.get("seq") == 1


@pytest.mark.parametrize(
    ("via", "code", "said"),
    [
        ("sh -c 'echo checking >&2; echo no route to host >&2; exit 255'", 1, "error: sh: no route to host"),
        ("a=sh -c 'exit 3'", 1, "error: a: sh ended with exit code 3"),
        ("a=sh -c 'kill -9 $$'", 1, "error: a: sh was ended by signal 9"),
        ("echo", 1, "error: echo: the other side began with 'openrtc relay' instead of a relay's hello"),
        ("a=sh -c 'printf \"\\033[2Jx\" >&2; exit 1'", 1, "error: a: \\x1b[2Jx"),
        ("no-such-command-anywhere x", 2, "error: --via: there is no command 'no-such-command-anywhere'"),
        ("ssh 'x", 2, 'error: --via "ssh \'x": no closing quotation'),
    ],
)
def test_a_host_that_cannot_be_reached(via: str, code: int, said: str) -> None:
    """One line with the command's own last words, and nothing in it that a terminal would obey."""
    result = CliRunner().invoke(app, ["ps", "--via", via])
    assert (result.exit_code, result.stdout) == (code, "")
    assert result.stderr.startswith(said)
    assert result.stderr.count("\n") == 1


def test_one_host_of_two(worker: FakeWorker) -> None:
    """What there is is shown; the exit code tells that something is missing."""
    vias = ["--via", f"{RELAY} --socket {worker.path}", "--via", "down=sh -c 'exit 9'"]
    result = CliRunner().invoke(app, ["ps", *vias])
    assert result.exit_code == 1
    assert "voice-a" in result.stdout
    assert result.stderr == "error: down: sh ended with exit code 9\n"


def test_no_worker_there(runtime_dir: Path) -> None:
    """A host without workers is named."""
    result = CliRunner().invoke(app, ["ps", "--via", f"voice-3={RELAY} --worker nobody-of-this-name"])
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == "error: no worker runs at voice-3 (for that user)\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--via", "env", "--socket", "x"], "give one of them"),
        (["--all-users", "--via", "env"], "--via 'ssh root@HOST openrtc relay --all-users'"),
        (["--all-users", "--socket", "x"], "give one of them"),
    ],
)
def test_contradictions(arguments: list[str], said: str) -> None:
    """Are wrong usage, on each command."""
    for command in ("top", "ps", "blocks"):
        result = CliRunner().invoke(app, [command, *arguments])
        assert result.exit_code == 2
        assert said in result.stderr


def test_all_users_is_for_root(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everyone else is told so in one line."""
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    result = CliRunner().invoke(app, ["ps", "--all-users"])
    assert result.exit_code == 2
    assert result.stderr.startswith("error: --all-users is for root, this is user id 1000")


def test_all_users(worker: FakeWorker, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another user's worker is shown under that user's name, or number where it has no name."""
    assert worker.path is not None
    theirs = WorkerSocket(worker.path, "voice-a", 7, owner=4_000_000_000)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(_connection, "discover_all", lambda: [theirs])
    told = json.loads(CliRunner().invoke(app, ["ps", "--json", "--all-users"]).stdout)
    assert (told["name"], told["user"], told["host"]) == ("voice-a", "4000000000", None)
    table = CliRunner().invoke(app, ["top", "--once", "--all-users", "--columns", "worker,session"])
    assert (table.exit_code, table.stderr) == (0, "")
    assert "4000000000:voice-a" in table.stdout


class Followed:
    """What a view is told, and a way to wait for it."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self._came = anyio.Event()

    def dispatch(self, event: Event) -> None:
        self.events.append(event)
        self._came.set()
        self._came = anyio.Event()

    async def until(self, wanted: Callable[[Event], bool]) -> Event:
        """The first event that is wanted among those that are not waited for yet."""
        while True:
            for index, event in enumerate(self.events):
                if wanted(event):
                    del self.events[: index + 1]
                    return event
            await self._came.wait()


def gone(event: Event, worker: str, why: str) -> bool:
    return isinstance(event, Gone) and (event.worker, event.reason) == (worker, why)


@contextlib.asynccontextmanager
async def following(*vias: Via) -> Any:
    """A view of these hosts, ten times a second."""
    followed = Followed()
    never = anyio.Event()
    with anyio.fail_after(30):
        async with anyio.create_task_group() as tasks:

            async def follow() -> None:
                await follow_all(list, 0.1, followed.dispatch, lambda: never, lambda key: True, vias=vias)

            tasks.start_soon(follow)
            yield followed
            tasks.cancel_scope.cancel()


@pytest.mark.anyio
async def test_a_relay_that_dies_is_started_again(
    worker: FakeWorker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its workers are gone with the reason, and come back; and it ends with the view."""
    monkeypatch.setattr(_via, "BACKOFF_S", 0.05)
    pids = tmp_path / "pids"
    script = f'echo $$ >> {pids}; exec "$@"'
    via = Via("voice-3", ["sh", "-c", script, "--", *RELAY.split(), "--socket", str(worker.path)])
    key = f"voice-3:{worker.path}"
    async with following(via) as followed:
        found = await followed.until(lambda event: isinstance(event, Found))
        assert (found.worker, found.host) == (key, "voice-3")
        await followed.until(lambda event: isinstance(event, Frame) and event.worker == key)
        os.kill(int(pids.read_text().split()[-1]), signal.SIGKILL)
        await followed.until(lambda event: gone(event, key, "sh was ended by signal 9"))
        await followed.until(lambda event: isinstance(event, Frame) and event.worker == key)
    first, second = pids.read_text().split()
    assert first != second
    with pytest.raises(ProcessLookupError):
        os.kill(int(second), 0)


@pytest.mark.anyio
async def test_a_host_without_workers_is_shown_as_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the reason; and it is dropped when its first worker is there."""
    monkeypatch.setattr(_via, "BACKOFF_S", 0.05)
    up = tmp_path / "up"
    with FakeWorker([Exception("unused")]) as fake:
        relay = f"test -e {up} || {{ echo still booting >&2; exit 1; }}; exec {RELAY} --socket {fake.path}"
        async with following(Via("voice-3", ["sh", "-c", relay])) as followed:
            await followed.until(lambda event: event == Found("voice-3", "voice-3"))
            await followed.until(lambda event: gone(event, "voice-3", "still booting"))
            up.touch()
            await followed.until(lambda event: event == Dropped("voice-3"))
            await followed.until(lambda event: isinstance(event, Found) and event.host == "voice-3")


@pytest.mark.anyio
async def test_a_relay_that_stays_silent_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """A link that is dead without anyone noticing is not waited for forever."""
    monkeypatch.setattr(_via, "HELLO_S", 0.05)
    monkeypatch.setattr(_via, "END_S", 0.05)
    async with following(Via("voice-3", ["sh", "-c", "trap '' TERM; sleep 60"])) as followed:
        await followed.until(lambda event: gone(event, "voice-3", "nothing heard for 0.05 s"))


def test_live(start_worker: StartWorker, in_terminal: InTerminal) -> None:
    """Hosts are in the worker column, and before the names; one that cannot be reached is shown with the reason."""
    start_worker("via-live", 2)
    terminal = in_terminal(
        "top", "--via", f"voice-3={RELAY} --worker via-live", "--via", "down=sh -c 'echo no route to host >&2; exit 1'"
    )
    terminal.wait_for(
        lambda screen: "voice-3:via-live" in screen and "job-0001" in screen and "no route to host" in screen
    )
    terminal.press("q")
    assert terminal.wait_for_end() == 0


# --- ssh -----------------------------------------------------------------------------------------


@pytest.fixture
def ssh(tmp_path: Path) -> Iterator[str]:
    """The command that logs in to a real sshd on loopback, which has keys of its own and nobody else's."""
    sshd = shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin:/usr/local/sbin")
    missing = [name for name in ("ssh", "ssh-keygen") if shutil.which(name) is None]
    if sshd is None or missing:
        pytest.skip(f"needs {' and '.join([*missing, *([] if sshd else ['sshd'])])}")
    with contextlib.ExitStack() as stack:
        if os.geteuid() == 0 and not Path("/run/sshd").exists():  # sshd insists, where root starts it
            Path("/run/sshd").mkdir(0o755)
            stack.callback(Path("/run/sshd").rmdir)
        for name in ("host", "user"):
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / name)], check=True)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        (tmp_path / "config").write_text(
            f"ListenAddress 127.0.0.1\nPort {port}\nHostKey {tmp_path}/host\nAuthorizedKeysFile {tmp_path}/user.pub\n"
            "PidFile none\nStrictModes no\nUsePAM no\nPermitRootLogin yes\nPasswordAuthentication no\n"
        )
        host_key = (tmp_path / "host.pub").read_text()
        (tmp_path / "known").write_text(f"[127.0.0.1]:{port} {host_key}")
        server = subprocess.Popen([sshd, "-D", "-e", "-f", str(tmp_path / "config")], stderr=subprocess.PIPE)
        stack.callback(_end, server)
        command = (
            f"ssh -F none -p {port} -i {tmp_path}/user -o IdentitiesOnly=yes -o BatchMode=yes "
            f"-o UserKnownHostsFile={tmp_path}/known 127.0.0.1"
        )
        deadline = time.monotonic() + 20
        while (tried := subprocess.run([*command.split(), "true"], capture_output=True, check=False)).returncode:
            if server.poll() is not None or time.monotonic() > deadline:
                server.kill()
                assert server.stderr is not None
                pytest.skip(f"no login over ssh here: {server.stderr.read()[-300:]!r}, {tried.stderr[-300:]!r}")
            time.sleep(0.05)
        yield command


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()
    assert process.stderr is not None
    process.stderr.close()


@pytest.mark.slow
def test_over_ssh(ssh: str, start_worker: StartWorker, in_terminal: InTerminal, openrtc: OpenRTC) -> None:
    """A real login: the workers of the other side, once and live; a server that goes away is told of."""
    start_worker("over-ssh", 2)
    there = {name: os.environ[name] for name in ("PYTHONPATH", "OPENRTC_RUNTIME_DIR") if name in os.environ}
    via = f"{ssh} env {' '.join(f'{name}={value}' for name, value in there.items())} {RELAY} --worker over-ssh"
    result = openrtc("top", "--once", "--via", f"far={via}")
    assert (result.returncode, result.stderr) == (0, "")
    assert "job-0001" in result.stdout
    assert "far:over-ssh" in result.stdout or "over-ssh" in result.stdout
    terminal = in_terminal(
        "top", "--via", f"far={via}", "--via", f"wrong={ssh.replace('127.0.0.1', 'nobody@127.0.0.1')}"
    )
    terminal.wait_for(
        lambda screen: (
            "far:over-ssh" in screen and "job-0001" in screen and re.search(r"wrong +GONE .*Permission denied", screen)
        )
    )
    terminal.press("q")
    assert terminal.wait_for_end() == 0


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def test_blocks_of_another_host_are_told_as_they_end(worker: FakeWorker) -> None:
    """The view asks for them through the relay too."""

    async def followed_blocks() -> Event:
        snapshot = Snapshot(worker=(await _first(worker)).worker)
        worker.then(Snapshot(worker=_with_blocks(snapshot)))
        async with following(Via("x", [*RELAY.split(), "--socket", str(worker.path)])) as followed:
            return await followed.until(lambda event: isinstance(event, Blocked))  # type: ignore[no-any-return]

    event = anyio.run(followed_blocks)
    assert isinstance(event, Blocked)
    assert [block.seq for block in event.blocks] == [1]


async def _first(worker: FakeWorker) -> Snapshot:
    from openrtc_introspect_core import connect

    async with connect(worker.path) as client:
        return await client.snapshot()


def _with_blocks(snapshot: Snapshot) -> Any:
    import msgspec

    return msgspec.structs.replace(snapshot.worker, blocks=1)
