"""The host looks into containers: by their processes, or by an engine's exec behind `--via`."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

import pytest
from containers.conftest import RunVoice
from containers.engine import Container, Engine, openrtc

SOCKET = "/tmp/openrtc-1000/voice-1.sock"
ELSEWHERE = ("--uidmap=0:200000:65536", "--gidmap=0:200000:65536")


@pytest.fixture
def elsewhere(run_voice: RunVoice) -> Iterator[Container]:
    """A worker in a user namespace of its own: its user 1000 is 201000 on the host."""
    with run_voice(*ELSEWHERE) as container:
        container.wait_for(lambda: "ready" in container.logs())
        yield container


@pytest.fixture
def bare(engine: Engine, bare_image: str) -> Iterator[Container]:
    """A worker in a container that has Python and the packages, no shell and no command."""
    with engine.container(bare_image) as container:
        container.wait_for(lambda: "ready" in container.logs())
        yield container


def test_root_of_the_host_names_the_socket_by_the_process(engine: Engine, voice: Container) -> None:
    """The rules of sockets hold there as anywhere."""
    socket = f"/proc/{voice.pid}/root{SOCKET}"
    done = openrtc(engine, "ps", "--socket", socket)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.rstrip().endswith(socket)


@pytest.mark.parametrize(
    "variables",
    [{"TMPDIR": "/proc/{0}/root/tmp"}, {"OPENRTC_RUNTIME_DIR": "/proc/{0}/root/tmp/openrtc-1000"}],
    ids=["TMPDIR", "OPENRTC_RUNTIME_DIR"],
)
def test_root_of_the_host_finds_it_by_a_directory(variables: dict[str, str], engine: Engine, voice: Container) -> None:
    """Among every user's workers."""
    given = {name: value.format(voice.pid) for name, value in variables.items()}
    done = openrtc(engine, "ps", "--all-users", **given)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"/proc/{voice.pid}/root{SOCKET}" in done.stdout


def test_a_container_without_a_shell_is_seen(engine: Engine, bare: Container) -> None:
    """There it needs Python alone, and on the host not even that."""
    assert SOCKET in bare.exec("python", "-m", "openrtc_top", "ps").stdout
    via = f"podman exec -i {bare.name} python -m openrtc_top relay"
    assert f"{bare.name}:{SOCKET}" in openrtc(engine, "ps", "--via", via).stdout
    done = openrtc(engine, "top", "--once", "--socket", f"/proc/{bare.pid}/root{SOCKET}")
    assert (done.returncode, done.stderr) == (0, "")
    assert "call-3" in done.stdout


def test_a_worker_to_which_the_host_s_root_is_nobody_says_where_to_run(engine: Engine, elsewhere: Container) -> None:
    """Its user namespace has other users. In the container it is seen, by the engine's exec and by nsenter."""
    socket = f"/proc/{elsewhere.pid}/root{SOCKET}"
    done = openrtc(engine, "ps", "--socket", socket)
    assert done.returncode == 1
    assert done.stderr == (
        f"error: no worker answers at '{socket}': it closed the connection: it runs as uid 201000, and uid 0 of "
        "another user namespace is nobody to it; run this in its container\n"
    )
    assert SOCKET in elsewhere.exec("openrtc", "ps").stdout
    enter = ["nsenter", f"--target={elsewhere.pid}", "--all", "/usr/local/bin/python", "-m", "openrtc_top"]
    entered = subprocess.run([*enter, "ps", "--all-users"], capture_output=True, text=True, timeout=60, check=False)
    assert SOCKET in entered.stdout


def test_via_the_engine_s_exec(engine: Engine, voice: Container, elsewhere: Container) -> None:
    """Two containers in one table, whatever their users are on the host."""
    vias = (f"--via=one=podman exec -i {voice.name}", f"--via=podman exec -i {elsewhere.name}")
    done = openrtc(engine, "ps", *vias)
    assert (done.returncode, done.stderr) == (0, "")
    places = [line.split()[-1] for line in done.stdout.splitlines()[1:]]
    assert places == [f"one:{SOCKET}", f"{elsewhere.name}:{SOCKET}"]


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("podman exec {0}", "the relay's input ended: docker exec, podman exec and kubectl exec need -i"),
        ("podman exec -it {0}", "stdin is a terminal: leave -t out of the comm"),
        ("podman exec -i -u 0 {0}", "{0}: 1 worker of uid 1000: add `openrtc relay --all-users`"),
        ("podman exec -i -u 2000 {0}", "{0}: '/tmp/openrtc-1000' belongs to uid 1000: run this as that user"),
        ("podman exec -i nosuch", 'nosuch: Error: no container with name or ID "nosuch" found'),
    ],
    ids=["no input", "terminal", "root", "another user", "no container"],
)
def test_a_wrong_exec_is_told_in_one_line(command: str, said: str, engine: Engine, voice: Container) -> None:
    """What is missing or too much, or who to be."""
    done = openrtc(engine, "top", "--once", "--via", command.format(voice.name))
    assert (done.returncode, done.stdout) == (1, "")
    assert said.format(voice.name) in done.stderr


def test_root_in_the_container_relays_every_user_s(engine: Engine, voice: Container) -> None:
    """With the option of the relay."""
    done = openrtc(engine, "ps", "--via", f"podman exec -i -u 0 {voice.name} openrtc relay --all-users")
    assert (done.returncode, done.stderr) == (0, "")
    assert f"{voice.name}:{SOCKET}" in done.stdout


def test_a_container_without_the_command_says_so(engine: Engine, bare: Container) -> None:
    """The engine names it, and the last words say what is missing."""
    done = openrtc(engine, "ps", "--via", f"podman exec -i {bare.name}")
    assert done.returncode == 1
    assert '"openrtc": executable file not found' in done.stderr
    assert done.stderr.startswith(f"error: {bare.name}: openrtc-top must be installed there: ")
