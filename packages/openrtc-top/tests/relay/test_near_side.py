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
from followed import Followed, following_all
from typer.testing import CliRunner

from openrtc_introspect_core.wire import Block, Snapshot, WorkerSocket
from openrtc_introspect_testing import FakeWorker
from openrtc_top._cli.app import app
from openrtc_top._client import targets
from openrtc_top._model.events import Blocked, Died, Dropped, Event, Found, Frame, Gone, Unanswered
from openrtc_top._relay import channels, child, near_side
from openrtc_top._relay.command import parse
from openrtc_top._relay.near_side import RelayClient

StartWorker = Callable[..., subprocess.Popen[bytes]]
InTerminal = Callable[..., Any]  # a FakeTerminal, see conftest.py
OpenRTC = Callable[..., subprocess.CompletedProcess[str]]
RELAY = f"{sys.executable} -m openrtc_top relay"


@pytest.fixture
def worker(make_snapshot: Callable[..., Snapshot], make_past: Callable[..., Block]) -> Iterator[FakeWorker]:
    with FakeWorker([make_snapshot(blocks=[])], blocks=[make_past(1)]) as fake:
        yield fake


@pytest.mark.slow
def test_diagnose(worker: FakeWorker) -> None:
    """Workers of other hosts are watched like those of this one; a host that cannot be reached is reported."""
    via = f"""voice-3=sh -c 'exec "$@"' -- {RELAY} --socket {worker.path}"""
    result = CliRunner().invoke(app, ["diagnose", "--seconds", "2", "--via", via, "--via", "down=sh -c 'exit 9'"])
    assert result.exit_code == 1
    assert result.stdout.startswith("voice-a at voice-3 · pid 41213 · 0 sessions · watched for ")
    assert result.stdout.splitlines()[0].endswith("nothing found")
    assert result.stderr == "error: down: sh ended with exit code 9\n"


@pytest.mark.parametrize("command", ["ps", "blocks"])
def test_once(command: str, worker: FakeWorker) -> None:
    """The other side's workers, as if they were here: `sh -c 'exec "$@"' --` stands for ssh."""
    via = f"""voice-3=sh -c 'exec "$@"' -- {RELAY} --socket {worker.path}"""
    result = CliRunner().invoke(app, [command, "--json", "--via", via])
    assert (result.exit_code, result.stderr) == (0, "")
    document = json.loads(result.stdout)
    if command == "ps":
        assert (document["name"], document["host"], document["socket"]) == ("voice-a", "voice-3", str(worker.path))
    else:
        assert document.get("seq") == 1


@pytest.mark.parametrize(
    ("via", "code", "said"),
    [
        ("sh -c 'echo checking >&2; echo no route to host >&2; exit 255'", 1, "error: sh: no route to host"),
        ("a=sh -c 'exit 3'", 1, "error: a: sh ended with exit code 3"),
        ("a=sh -c 'kill -9 $$'", 1, "error: a: sh was ended by signal 9"),
        ("a=sh -c 'echo no openrtc >&2; exit 127'", 1, "error: a: openrtc-top must be installed there: no openrtc"),
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
    """The workers that answer are shown; the exit code says that something is missing."""
    vias = ["--via", f"{RELAY} --socket {worker.path}", "--via", "down=sh -c 'exit 9'"]
    result = CliRunner().invoke(app, ["ps", *vias])
    assert result.exit_code == 1
    assert "voice-a" in result.stdout
    assert result.stderr == "error: down: sh ended with exit code 9\n"


def test_no_worker_there(runtime_dir: Path) -> None:
    """A host without workers is named."""
    result = CliRunner().invoke(app, ["ps", "--via", f"voice-3={RELAY} --worker nobody-of-this-name"])
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.splitlines()[0] == "error: no worker runs at voice-3 (for that user)"


def test_no_worker_is_seen_there(tmp_path: Path) -> None:
    """What is in the way there is told here, with the host's name."""
    result = CliRunner().invoke(app, ["ps", "--via", f"voice-3=env OPENRTC_RUNTIME_DIR={tmp_path}/none {RELAY}"])
    assert (result.exit_code, result.stdout) == (1, "")
    assert f"\nvoice-3: '{tmp_path}/none' does not exist: set OPENRTC_RUNTIME_DIR to the worker's" in result.stderr


def test_a_command_that_passes_on_no_input(worker: FakeWorker) -> None:
    """`docker exec` and `kubectl exec` do not without -i; the relay ends at once, in order."""
    via = f"""voice-3=sh -c 'exec "$@" </dev/null' -- {RELAY} --socket {worker.path}"""
    result = CliRunner().invoke(app, ["ps", "--via", via])
    assert result.exit_code == 1
    assert "the relay's input ended: docker exec, podman exec and kubectl exec need -i" in result.stderr


def test_a_command_that_gives_the_relay_a_terminal(worker: FakeWorker) -> None:
    """As `podman exec -it` does, for which both streams of output are one."""
    via = f"voice-3={sys.executable} -c 'import pty, sys; pty.spawn(sys.argv[1:])' {RELAY} --socket {worker.path}"
    result = CliRunner().invoke(app, ["ps", "--via", via])
    assert result.exit_code == 1
    assert "error: stdin is a terminal: leave -t out of the comm" in result.stderr


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
    """Everyone else gets an error of one line."""
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    result = CliRunner().invoke(app, ["ps", "--all-users"])
    assert result.exit_code == 2
    assert result.stderr.startswith("error: --all-users is for root, this is user id 1000")


def test_all_users(worker: FakeWorker, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another user's worker is shown under that user's name, or number if it has no name."""
    assert worker.path is not None
    theirs = WorkerSocket(worker.path, "voice-a", 7, owner=4_000_000_000)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(targets, "discover_all", lambda: [theirs])
    document = json.loads(CliRunner().invoke(app, ["ps", "--json", "--all-users"]).stdout)
    assert (document["name"], document["user"], document["host"]) == ("voice-a", "4000000000", None)
    table = CliRunner().invoke(app, ["top", "--once", "--all-users", "--columns", "worker,session"])
    assert (table.exit_code, table.stderr) == (0, "")
    assert "4000000000:voice-a" in table.stdout


@pytest.mark.parametrize(
    ("words", "via"),
    [
        (["ssh", "voice-3", "openrtc", "relay"], "ssh voice-3"),
        (["ssh", "voice-3", "/opt/bin/openrtc", "relay"], "ssh voice-3 /opt/bin/openrtc relay"),
        (["sh", "-c", "a b", "openrtc", "relay"], "sh -c 'a b'"),
    ],
)
def test_the_option_that_reaches_a_host(words: list[str], via: str) -> None:
    """It is as short as it was most likely given, and gives the same words."""
    assert RelayClient("voice-3", words).via == via
    assert parse(via)[1] == words


def gone(event: Event, worker: str, why: str) -> bool:
    return isinstance(event, Gone) and (event.worker, event.reason) == (worker, why)


def following(*vias: RelayClient) -> contextlib.AbstractAsyncContextManager[Followed]:
    return following_all(30, relays=vias)


@pytest.mark.anyio
async def test_a_relay_that_dies_is_started_again(
    worker: FakeWorker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its workers are gone with the reason, and come back; and it ends with the view."""
    monkeypatch.setattr(near_side, "BACKOFF_S", 0.05)
    pids = tmp_path / "pids"
    script = f'echo $$ >> {pids}; exec "$@"'
    via = RelayClient("voice-3", ["sh", "-c", script, "--", *RELAY.split(), "--socket", str(worker.path)])
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
    monkeypatch.setattr(near_side, "BACKOFF_S", 0.05)
    up = tmp_path / "up"
    with FakeWorker([Exception("unused")]) as fake:
        relay = f"test -e {up} || {{ echo still booting >&2; exit 1; }}; exec {RELAY} --socket {fake.path}"
        async with following(RelayClient("voice-3", ["sh", "-c", relay])) as followed:
            await followed.until(lambda event: event == Found("voice-3", "voice-3"))
            await followed.until(lambda event: gone(event, "voice-3", "still booting"))
            up.touch()
            await followed.until(lambda event: event == Dropped("voice-3"))
            await followed.until(lambda event: isinstance(event, Found) and event.host == "voice-3")


@pytest.mark.anyio
async def test_a_relay_that_stays_silent_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """A link that is dead without anyone noticing is not waited for forever."""
    monkeypatch.setattr(near_side, "HELLO_S", 0.05)
    monkeypatch.setattr(child, "END_S", 0.05)
    async with following(RelayClient("voice-3", ["sh", "-c", "trap '' TERM; sleep 60"])) as followed:
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
    """A real login: the workers of the other side, once and live; a server that goes away is reported."""
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


def test_blocks_of_another_host_are_reported_as_they_end(worker: FakeWorker) -> None:
    """The view asks for them through the relay too."""

    async def followed_blocks() -> Event:
        snapshot = Snapshot(worker=(await _first(worker)).worker)
        worker.then(Snapshot(worker=_with_blocks(snapshot)))
        async with following(RelayClient("x", [*RELAY.split(), "--socket", str(worker.path)])) as followed:
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


# --- black boxes ---------------------------------------------------------------------------------

OLD = (
    r"""printf '{"type":"relay","relay":"1.0","version":"0.1.0"}\n{"type":"workers","workers":[{"socket":"/w-1.sock","""
    r""""name":"w","pid":1,"user":null}]}\n'; sleep 60"""
)
"""A relay of before black boxes, whose worker does not answer."""


@pytest.mark.anyio
async def test_an_older_relay_is_not_asked_for_boxes() -> None:
    """It would end at a message that it does not know: its workers are as they were."""
    relay = RelayClient("old", ["sh", "-c", OLD])
    async with following(relay) as followed:
        await followed.until(lambda event: isinstance(event, Found))
        assert await relay.box("/w-1.box") == "the openrtc-top there is too old to read black boxes"
        assert relay.dead == []
        assert relay.problem is None


@pytest.mark.anyio
async def test_the_view_says_why_no_worker_is_seen_there() -> None:
    """The first of the reasons, in the line of the host."""
    none = (
        r"""printf '{"type":"relay","relay":"1.2"}\n{"type":"workers","workers":[],"unseen":["a","b"]}\n'; sleep 60"""
    )
    async with following(RelayClient("voice-3", ["sh", "-c", none])) as followed:
        await followed.until(lambda event: gone(event, "voice-3", "no worker runs there: a"))


@pytest.mark.anyio
async def test_a_request_for_a_box_ends_with_the_relay(
    make_box: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever waits for it learns why there is no answer."""
    relay = RelayClient("voice-3", ["sh", "-c", OLD.replace('"1.0"', '"1.1"').replace("sleep 60", "sleep 0.5; exit 3")])
    assert await relay.box("/w-1.box") == "voice-3: not connected yet"
    async with following(relay) as followed:
        await followed.until(lambda event: isinstance(event, Found))
        assert await relay.box("/w-1.box") == "sh ended with exit code 3"


@pytest.mark.anyio
async def test_a_request_for_a_box_that_is_not_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Is given up after a while; the relay is not."""
    monkeypatch.setattr(channels, "_BOX_S", 0.1)
    relay = RelayClient("voice-3", ["sh", "-c", OLD.replace('"1.0"', '"1.1"')])
    async with following(relay) as followed:
        await followed.until(lambda event: isinstance(event, Found))
        assert "the connection does not answer" in str(await relay.box("/w-1.box"))


@pytest.mark.anyio
async def test_a_frozen_worker_of_another_host(frozen: Callable[..., Any]) -> None:
    """Its box is read there again and again, and it is live again when it thaws."""
    worker = frozen()
    relay = RelayClient("voice-3", [*RELAY.split(), "--socket", str(worker.path)])
    async with following(relay) as followed:
        first = await followed.until(lambda event: isinstance(event, Unanswered))
        assert isinstance(first, Unanswered)
        assert first.worker == f"voice-3:{worker.path}"
        assert first.reading.held is not None
        await followed.until(lambda event: isinstance(event, Unanswered))
        worker.thawed.set()
        await followed.until(lambda event: isinstance(event, Frame))


@pytest.mark.anyio
async def test_dead_workers_of_another_host(make_box: Callable[..., Any]) -> None:
    """Those that are wanted are dispatched, for that host."""
    make_box("a", pid=1, dead=True)
    make_box("b", pid=2, dead=True)
    async with following(RelayClient("voice-3", [*RELAY.split(), "--worker", "a", "--worker", "b"], ["b"])) as followed:
        event = await followed.until(lambda event: isinstance(event, Died) and event.host is not None)
        assert isinstance(event, Died)
        assert (event.host, [dead.name for dead in event.dead]) == ("voice-3", ["b"])
