"""`--via-each`: the hosts that a command lists, which come and go."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from followed import Followed, following_all
from typer.testing import CliRunner

from openrtc_introspect_core.wire import Snapshot
from openrtc_introspect_testing import FakeWorker
from openrtc_top._cli.app import app
from openrtc_top._client import follow
from openrtc_top._model.events import Died, Dropped, Found, Frame, Gone, Listed
from openrtc_top._relay import child, hosts, near_side
from openrtc_top._relay.command import BadCommand
from openrtc_top._relay.hosts import HostList, parse_list, parse_template

RELAY = f"{sys.executable} -m openrtc_top relay"
ONE_WORD = "a line is one word, without quotes or signs of a shell"
MakeSnapshot = Callable[..., Snapshot]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def worker(make_snapshot: MakeSnapshot) -> Iterator[FakeWorker]:
    with FakeWorker([make_snapshot(blocks=[])]) as fake:
        yield fake


def via(worker: FakeWorker) -> str:
    """A `--via` to whichever host, at which this worker runs. `sh -c 'exec "$@"' {}` stands for ssh."""
    return f"""sh -c 'exec "$@"' {{}} {RELAY} --socket {worker.path}"""


def listing(command: str, template: str = "ssh {}") -> HostList:
    return HostList(["sh", "-c", command], parse_template(template))


def labels(found: HostList) -> list[str]:
    return [relay.label for relay in found.relays]


# --- one list ------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_each_line_is_a_host() -> None:
    """Blank lines, remarks and repetitions are none; names are without the user and the kind."""
    found = listing("printf 'a\\n\\n# b\\n  root@c.example  \\npod/voice-7f9c\\na\\n[::1]\\n'", "ssh -p 22 {} -- x-{}")
    await found.list_once()
    assert labels(found) == ["a", "c.example", "voice-7f9c", "[::1]"]
    assert found.problem is None
    assert found.relays[1].words == [
        *("ssh", "-p", "22", "root@c.example", "--", "x-root@c.example", "openrtc", "relay")
    ]


@pytest.mark.anyio
async def test_names_are_distinct_and_stay() -> None:
    """Of hosts with one name, later ones have a number behind it. A pod's name is not cut off where it differs."""
    long = "voice-agent-deployment-of-acme-7f9c8b6d5-"
    found = listing(f"printf 'a@x\\nb@x\\n{long}x2v4q\\n{long}zzzzz\\n'")
    await found.list_once()
    assert labels(found) == ["x", "x#2", f"{long}x2v4q", f"{long}zzzzz"]
    found.words[-1] = "printf 'b@x\\nc@x\\n'"
    await found.list_once()
    await found.list_once()
    assert labels(found) == ["x#2", "x"]


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("exit 3", "sh: it ended with exit code 3"),
        (
            "echo a; echo first >&2; echo no route to host >&2; exit 3",
            "sh: it ended with exit code 3: no route to host",
        ),
        ("kill -9 $$", "sh: it was ended by signal 9"),
        ("true", "sh: it lists no host"),
        ("echo '# nothing'", "sh: it lists no host"),
        ("echo 'NAME  READY'", f"sh: it prints 'NAME  READY', which is no host: {ONE_WORD}"),
        ("echo --oProxyCommand=x", f"sh: it prints '--oProxyCommand=x', which is no host: {ONE_WORD}"),
        *(
            (f"echo 'a{sign}b'", f"sh: it prints 'a{sign}b', which is no host: {ONE_WORD}")
            for sign in (";", "&", "|", "<", ">", "$", "(", "`", "*", "{")
        ),
        ("yes xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx", "sh: it prints more than 256 KiB"),
    ],
)
@pytest.mark.anyio
async def test_a_list_that_fails(command: str, said: str) -> None:
    """Is said in one line, and the hosts that are known stay."""
    found = listing(command)
    await found.list_once()
    assert (found.problem, found.relays) == (said, [])
    found.words[-1] = "echo a; echo b"
    await found.list_once()
    assert (found.problem, labels(found)) == (None, ["a", "b"])
    found.words[-1] = command
    for _ in range(3):
        await found.list_once()
    assert (found.problem, labels(found)) == (f"{said}; the 2 hosts known before stay", ["a", "b"])


@pytest.mark.anyio
async def test_a_command_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Is ended, with what it started."""
    monkeypatch.setattr(hosts, "TIMEOUT_S", 0.2)
    found = listing("echo a; sleep 1000")
    await found.list_once()
    assert (found.problem, found.relays) == ("sh: it has not ended within 0.2 s", [])


@pytest.mark.anyio
async def test_a_command_that_is_not_there() -> None:
    """Or no program is a problem like any other."""
    found = HostList(["/nowhere/hosts"], ["ssh", "{}"])
    await found.list_once()
    assert found.problem == "/nowhere/hosts: No such file or directory"


@pytest.mark.anyio
async def test_lines_that_are_no_hosts() -> None:
    """Are said; the others count. So are hosts beyond the limit."""
    found = listing("echo a; echo b c; echo d")
    await found.list_once()
    assert (labels(found), found.problem) == (["a", "d"], f"it prints 'b c', which is no host: {ONE_WORD}")
    many = listing("seq -f host-%g 300")
    await many.list_once()
    assert (len(many.relays), many.problem) == (256, "it lists 300 hosts; the first 256 are shown")


@pytest.mark.anyio
async def test_a_host_that_one_list_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stays while its connection stands, and goes with the second list; without a connection it goes at once."""
    found = listing("echo a; echo b")
    await found.list_once()
    connected, lost = found.relays
    connected.problem, lost.problem = None, "connection closed"
    found.words[-1] = "echo c"
    await found.list_once()
    assert labels(found) == ["a", "c"]
    assert found.relays[0] is connected
    found.words[-1] = "echo a; echo c"
    await found.list_once()
    found.words[-1] = "echo c"
    await found.list_once()
    assert labels(found) == ["a", "c"]  # it was there in between
    await found.list_once()
    assert labels(found) == ["c"]


@pytest.mark.parametrize("text", ["eu=ssh {}", "ssh '{}"])
def test_a_template_that_is_none(text: str) -> None:
    """Hosts have their own names."""
    with pytest.raises(BadCommand):
        parse_template(text)


@pytest.mark.parametrize("text", ["", "cat 'x"])
def test_a_command_that_is_none(text: str) -> None:
    """Nothing, or an open quotation."""
    with pytest.raises(BadCommand):
        parse_list(text)


# --- following -----------------------------------------------------------------------------------


def following(found: HostList) -> contextlib.AbstractAsyncContextManager[Followed]:
    return following_all(60, hosts=found)


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hosts are listed ten times a second, and what ends, ends soon."""
    monkeypatch.setattr(hosts, "INTERVAL_S", 0.1)
    monkeypatch.setattr(hosts, "SOON_S", 0.1)


@pytest.mark.anyio
async def test_hosts_come_and_go(often: None, worker: FakeWorker, tmp_path: Path) -> None:
    """Their workers are found, and dropped once the host is not listed any more; the others go on."""
    file = tmp_path / "hosts"
    file.write_text("a\n")
    first, second = f"a:{worker.path}", f"b:{worker.path}"
    async with following(listing(f"cat {file}", via(worker))) as followed:
        found = await followed.until(lambda event: isinstance(event, Found))
        assert (found.worker, found.host) == (first, "a")
        await followed.until(lambda event: isinstance(event, Frame) and event.worker == first)
        file.write_text("a\nb\n")
        await followed.until(lambda event: isinstance(event, Frame) and event.worker == second)
        file.write_text("b\n")
        await followed.until(lambda event: event == Dropped(first))
        await followed.until(lambda event: event == Dropped(first))  # again, once its tasks have ended
        for _ in range(5):
            frame = await followed.until(lambda event: isinstance(event, (Frame, Gone)))
            assert frame.worker == second


@pytest.mark.anyio
async def test_a_failing_list_is_said(often: None, worker: FakeWorker, tmp_path: Path) -> None:
    """In an event, and taken back by the next good one; the workers go on."""
    file = tmp_path / "hosts"
    file.write_text("a\n")
    async with following(listing(f"cat {file}", via(worker))) as followed:
        await followed.until(lambda event: isinstance(event, Frame))
        file.unlink()
        said = await followed.until(lambda event: isinstance(event, Listed) and event.problem is not None)
        assert said.problem.startswith("sh: it ended with exit code 1: cat: ")
        assert said.problem.endswith("No such file or directory; the host known before stay")
        await followed.until(lambda event: isinstance(event, Frame))
        file.write_text("a\n")
        await followed.until(lambda event: event == Listed(None))


@pytest.mark.anyio
async def test_a_lost_connection_lists_the_hosts_at_once(
    worker: FakeWorker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So a pod that was deleted goes with its connection, and not after the next interval."""
    monkeypatch.setattr(hosts, "SOON_S", 0.05)
    file, pids = tmp_path / "hosts", tmp_path / "pids"
    file.write_text("a\nb\n")
    template = via(worker).replace("exec", f"echo $0 $$ >> {pids}; exec")
    async with following(listing(f"cat {file}", template)) as followed:
        for host in ("a", "b"):
            key = f"{host}:{worker.path}"
            await followed.until(lambda event, key=key: isinstance(event, Frame) and event.worker == key)
            followed.events.clear()
        file.write_text("b\n")
        running = dict(line.split() for line in pids.read_text().splitlines())
        os.kill(int(running["a"]), signal.SIGKILL)
        await followed.until(lambda event: event == Dropped(f"a:{worker.path}"))
    assert hosts.INTERVAL_S == 15.0


@pytest.mark.anyio
async def test_a_slow_host_delays_nobody(worker: FakeWorker, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor does one that is dead: the others are followed meanwhile."""
    monkeypatch.setattr(child, "END_S", 0.05)
    template = (
        f"""sh -c 'case $0 in slow) sleep 1000;; dead) exit 7;; esac; exec "$@"' {{}} {RELAY} --socket {worker.path}"""
    )
    async with following(listing("echo slow; echo dead; echo well", template)) as followed:
        await followed.until(lambda event: isinstance(event, Gone) and event.worker == "dead")
        for _ in range(3):
            frame = await followed.until(lambda event: isinstance(event, Frame))
            assert frame.worker == f"well:{worker.path}"


@pytest.mark.anyio
async def test_a_host_of_which_nothing_is_heard(
    worker: FakeWorker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Is shown as one that connects, until it has said something."""
    monkeypatch.setattr(follow, "CONNECTING_S", 0.05)
    ready = tmp_path / "ready"
    template = f"""sh -c 'until test -e {ready}; do sleep 0.05; done; exec "$@"' {{}} {RELAY} --socket {worker.path}"""
    async with following(listing("echo slow", template)) as followed:
        assert await followed.until(lambda event: not isinstance(event, (Listed, Died))) == Found("slow", "slow")
        ready.touch()
        assert await followed.until(lambda event: not isinstance(event, (Listed, Died))) == Dropped("slow")
        found = await followed.until(lambda event: isinstance(event, Found))
        assert found.host == "slow"


# --- commands ------------------------------------------------------------------------------------


def test_once(worker: FakeWorker) -> None:
    """Each command takes the hosts; `--via` without the place is one more."""
    options = ["--via-each", "printf 'a\\nb\\n'", "--via", via(worker)]
    result = CliRunner().invoke(app, ["ps", "--json", *options, "--via", f"c={RELAY} --socket {worker.path}"])
    assert (result.exit_code, result.stderr) == (0, "")
    assert sorted(json.loads(line)["host"] for line in result.stdout.splitlines()) == ["a", "b", "c"]
    table = CliRunner().invoke(app, ["top", "--once", *options])
    assert (table.exit_code, table.stderr) == (0, "")
    assert table.stdout.startswith(" openrtc top · 2 workers on 2 hosts ")


def test_once_with_a_host_that_does_not_answer(worker: FakeWorker, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is reported after some seconds, and the others are shown; the exit code says that something is missing."""
    monkeypatch.setattr(child, "END_S", 0.05)
    template = f"""sh -c 'case $0 in slow) sleep 1000;; esac; exec "$@"' {{}} {RELAY} --socket {worker.path}"""
    for patience_s in (3, 10, 40):  # a busy machine may not start the other one in time
        monkeypatch.setattr("openrtc_top._cli.target.LISTED_S", patience_s)
        result = CliRunner().invoke(app, ["ps", "--json", "--via-each", "printf 'slow\\nwell\\n'", "--via", template])
        assert result.exit_code == 1
        assert f"error: slow: nothing heard for {patience_s} s\n" in result.stderr
        if "well" not in result.stderr:
            break
    assert json.loads(result.stdout)["host"] == "well"


def test_once_without_hosts() -> None:
    """One line, and exit code 1."""
    result = CliRunner().invoke(app, ["ps", "--via-each", "sh -c 'echo gone >&2; exit 4'", "--via", "ssh {}"])
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == "error: --via-each: sh: it ended with exit code 4: gone\n"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            ["--via-each", "cat x"],
            "--via-each takes one --via with {} in it, where each host goes, as in --via 'ssh {}'",
        ),
        (["--via-each", "cat x", "--via", "ssh {}", "--via", "sh {}"], "there are 2"),
        (["--via", "ssh {}"], "--via 'ssh {}': {} stands for each host that --via-each COMMAND lists; give that too"),
        (["--via-each", "cat x", "--via", "eu=sh {}"], "--via 'eu=sh {}': each host of --via-each has its own name"),
        (["--via-each", "", "--via", "sh {}"], "--via-each '' has no command in it"),
        (["--via-each", "no-such-command-anywhere", "--via", "sh {}"], "--via-each: there is no command"),
        (["--via-each", "cat x", "--via", "no-such-command-anywhere {}"], "--via: there is no command"),
        (["--via-each", "cat x", "--socket", "x"], "give one of them"),
        (["--via-each", "cat x", "--all-users"], "give one of them"),
        (["--via-each", "cat x", "--replay", "x"], "do not go with it"),
    ],
)
def test_contradictions(options: list[str], said: str) -> None:
    """Are wrong usage, in one line."""
    result = CliRunner().invoke(app, ["top", *options])
    assert (result.exit_code, result.stdout) == (2, "")
    assert said in result.stderr
    assert result.stderr.count("\n") == 1


def test_live(worker: FakeWorker, in_terminal: Callable[..., Any], tmp_path: Path) -> None:
    """The hosts are in one table, by host with g; why they cannot be listed stands above it."""
    file = tmp_path / "hosts"
    file.write_text("east\nwest\n")
    terminal = in_terminal("top", "--via-each", f"cat {file}", "--via", via(worker))
    terminal.wait_for(lambda screen: "2 workers on 2 hosts" in screen and "east:voice-a" in screen)
    terminal.press("g")
    terminal.wait_for(lambda screen: "by host, the worst first" in screen)
    terminal.press("q")
    assert terminal.wait_for_end() == 0
    failing = in_terminal("top", "--via-each", "sh -c 'exit 5'", "--via", via(worker))
    failing.wait_for(lambda screen: "hosts: sh: it ended with exit code 5" in screen)
    failing.press("q")
    assert failing.wait_for_end() == 0
    assert near_side.HELLO_S == 30.0
