"""A container beside the worker's, which shares a volume or the process ids with it."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from containers.conftest import RunVoice
from containers.engine import Container, Engine

IN_THE_VOLUME = "OPENRTC_RUNTIME_DIR=/run/openrtc/voice"
SEEN = "/run/openrtc/voice/voice-1.sock"
THROUGH_PROC = "/proc/1/root/tmp/openrtc-1000/voice-1.sock"

Beside = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def beside(engine: Engine, voice_image: str) -> Beside:
    """Run a command in a new container with these options."""
    return lambda *command, options=(): engine.do("run", "--rm", *options, voice_image, *command, check=False)


@pytest.fixture
def shared(run_voice: RunVoice, volume: Path) -> Iterator[tuple[str, ...]]:
    """The options of a container that shares the volume in which a worker serves."""
    options = (f"--volume={volume}:/run/openrtc", f"--env={IN_THE_VOLUME}")
    with run_voice(*options, "--read-only") as container:
        container.wait_for(lambda: "ready" in container.logs())
        yield options


def test_the_same_user_sees_it_in_the_volume(shared: tuple[str, ...], beside: Beside) -> None:
    """With the same variable."""
    done = beside("openrtc", "ps", options=shared)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.rstrip().endswith(SEEN)


def test_root_sees_it_with_the_option(shared: tuple[str, ...], beside: Beside) -> None:
    """And is told of the option."""
    done = beside("openrtc", "ps", options=(*shared, "--user=0"))
    assert done.stderr.splitlines()[1:] == ["1 worker of uid 1000: add --all-users"]
    assert SEEN in beside("openrtc", "ps", "--all-users", options=(*shared, "--user=0")).stdout


def test_another_user_is_told_which_one_to_be(shared: tuple[str, ...], beside: Beside) -> None:
    """Of the directory that the variable names."""
    done = beside("openrtc", "ps", options=(*shared, "--user=2000"))
    assert done.returncode == 1
    assert done.stderr.splitlines()[1].startswith("'/run/openrtc/voice' belongs to uid 1000: run this as that user")


def test_without_the_variable_it_is_said_where_was_searched(shared: tuple[str, ...], beside: Beside) -> None:
    """And which variable names another place."""
    done = beside("openrtc", "ps", options=shared[:1])
    assert done.returncode == 1
    assert done.stderr.splitlines()[1] == (
        "Searched: /tmp/openrtc-1000, /run/user/1000/openrtc-1000, /var/tmp/openrtc-1000, /dev/shm/openrtc-1000. "
        "For a worker whose OPENRTC_RUNTIME_DIR is another, set it here too."
    )


def test_without_the_volume_it_is_said_that_the_directory_is_missing(beside: Beside) -> None:
    """The variable alone shows nothing."""
    done = beside("openrtc", "ps", options=(f"--env={IN_THE_VOLUME}",))
    assert done.stderr.splitlines()[1] == (
        "'/run/openrtc/voice' does not exist: set OPENRTC_RUNTIME_DIR to the worker's, or run this in its container"
    )


@pytest.mark.parametrize("mode", [0o777, 0o2777], ids=oct)
def test_the_root_of_a_volume_is_refused_with_the_folder_to_choose(
    mode: int, run_voice: RunVoice, volume: Path
) -> None:
    """The second mode is that of an emptyDir with an fsGroup. The folder that is named works."""
    volume.chmod(mode)
    share = f"--volume={volume}:/run/openrtc"
    with run_voice(share, "--env=OPENRTC_RUNTIME_DIR=/run/openrtc") as container:
        assert container.wait_for_end() == 1
        assert (
            container.logs()
            .splitlines()[-1]
            .endswith(
                "EndpointError: socket directory '/run/openrtc' belongs to uid 0; it must belong to uid 1000: "
                "set OPENRTC_RUNTIME_DIR to '/run/openrtc/openrtc-1000'"
            )
        )
    with run_voice(share, "--env=OPENRTC_RUNTIME_DIR=/run/openrtc/openrtc-1000") as container:
        container.wait_for(lambda: "ready" in container.logs())
        assert container.exec("openrtc", "ps").returncode == 0


def test_the_same_user_sees_it_by_the_process(voice: Container, beside: Beside) -> None:
    """Which has the same capabilities: none."""
    share = f"--pid=container:{voice.name}"
    assert THROUGH_PROC in beside("openrtc", "ps", "--socket", THROUGH_PROC, options=(share,)).stdout
    directory = "--env=OPENRTC_RUNTIME_DIR=/proc/1/root/tmp/openrtc-1000"
    assert THROUGH_PROC in beside("openrtc", "ps", options=(share, directory)).stdout


@pytest.mark.parametrize("user", [0, 2000])
def test_others_are_told_what_that_needs(user: int, voice: Container, beside: Beside) -> None:
    """Root of a container has not the capability, unless it is given."""
    share = (f"--pid=container:{voice.name}", f"--user={user}")
    done = beside("openrtc", "ps", "--socket", THROUGH_PROC, options=share)
    assert done.returncode == 1
    assert done.stderr.endswith(
        "Permission denied: '/proc/1/root' is open to the same user with the same capabilities, and to CAP_SYS_PTRACE\n"
    )
    if user == 0:
        able = (*share, "--cap-add=SYS_PTRACE")
        assert THROUGH_PROC in beside("openrtc", "ps", "--socket", THROUGH_PROC, options=able).stdout
