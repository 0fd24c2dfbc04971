"""Worker and operator in one container, as by `docker exec` and `kubectl exec`."""

from __future__ import annotations

import pytest
from containers.conftest import RunVoice
from containers.engine import Container

ROOT = ("--user=0",)
STRANGER = ("--user=2000",)
SOCKET = "/tmp/openrtc-1000/voice-1.sock"
EMPTY = ("env", "--ignore-environment", "PATH=/usr/local/bin:/usr/bin")
READ_ONLY = ("--read-only", "--read-only-tmpfs=false")


def ready(container: Container) -> Container:
    container.wait_for(lambda: "ready" in container.logs())
    return container


def test_the_same_user_sees_the_worker(voice: Container) -> None:
    """No variable and no volume is needed."""
    done = voice.exec("openrtc", "ps")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[1].split()[:2] == ["voice", "1"]
    assert done.stdout.rstrip().endswith(SOCKET)


@pytest.mark.parametrize("home", [(), ("HOME=/root",)], ids=["none", "another's"])
def test_no_variable_of_the_image_is_needed(home: tuple[str, ...], voice: Container) -> None:
    """No home, and none that can be written to, is needed either."""
    done = voice.exec(*EMPTY, *home, "openrtc", "top", "--once")
    assert (done.returncode, done.stderr) == (0, "")
    assert "call-3" in done.stdout


def test_root_is_told_of_the_option(voice: Container) -> None:
    """As `docker exec -u 0` is often used. With the option root sees it."""
    done = voice.exec("openrtc", "ps", options=ROOT)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.splitlines()[1:] == ["1 worker of uid 1000: add --all-users"]
    assert SOCKET in voice.exec("openrtc", "ps", "--all-users", options=ROOT).stdout


def test_another_user_is_told_which_one_to_be(voice: Container) -> None:
    """In one line, with the option of `docker exec`; with it the worker is seen."""
    done = voice.exec("openrtc", "top", options=STRANGER)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.splitlines()[1:] == [
        "'/tmp/openrtc-1000' belongs to uid 1000: run this as that user, in a container by `docker exec -u 1000`, "
        "or as root with --all-users"
    ]
    assert SOCKET in voice.exec("openrtc", "ps", options=("--user=1000",)).stdout


def test_another_user_who_names_the_socket_is_told_whose_it_is(voice: Container) -> None:
    """The kernel refuses the connection."""
    done = voice.exec("openrtc", "ps", "--socket", SOCKET, options=STRANGER)
    assert done.returncode == 1
    assert done.stderr == (
        f"error: no worker answers at '{SOCKET}': Permission denied: "
        "'/tmp/openrtc-1000' belongs to uid 1000, this is uid 2000\n"
    )


def test_a_read_only_root_leaves_shared_memory(run_voice: RunVoice) -> None:
    """There the socket and the black box are, and both users find them."""
    with run_voice(*READ_ONLY) as container:
        done = ready(container).exec("openrtc", "ps")
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.rstrip().endswith("/dev/shm/openrtc-1000/voice-1.sock")
        assert (
            "/dev/shm/openrtc-1000/voice-1.sock" in container.exec("openrtc", "ps", "--all-users", options=ROOT).stdout
        )
        assert "call-3" in container.exec("openrtc", "top", "--once").stdout
        assert container.exec("ls", "/dev/shm/openrtc-1000").stdout.split() == ["voice-1.box", "voice-1.sock"]


def test_a_file_system_for_temporary_files_is_preferred(run_voice: RunVoice) -> None:
    """Beside a read-only root."""
    with run_voice(*READ_ONLY, "--tmpfs=/tmp") as container:
        assert ready(container).exec("openrtc", "ps").stdout.rstrip().endswith(SOCKET)


def test_where_nothing_can_be_written_the_worker_says_what_to_set(run_voice: RunVoice) -> None:
    """Its start fails, with the place and the variable in the last line."""
    with run_voice(*READ_ONLY, "--tmpfs=/dev/shm:ro") as container:
        assert container.wait_for_end() == 1
        assert (
            container.logs()
            .splitlines()[-1]
            .endswith(
                "EndpointError: cannot create socket directory '/tmp/openrtc-1000': Read-only file system; "
                "set OPENRTC_RUNTIME_DIR to a directory of your own, in a container to one in a volume"
            )
        )


def test_root_without_capabilities_is_told_which_user_to_be(run_voice: RunVoice) -> None:
    """It may not read what is another user's."""
    with run_voice("--cap-drop=all") as container:
        ready(container)
        for option in ((), ("--all-users",)):
            done = container.exec("openrtc", "ps", *option, options=ROOT)
            assert (done.returncode, done.stdout) == (1, "")
            assert done.stderr.splitlines()[1:] == [
                "'/tmp/openrtc-1000' belongs to uid 1000, and root may not read it here (no CAP_DAC_OVERRIDE): "
                "run this as that user, in a container by `docker exec -u 1000`"
            ]
        assert SOCKET in container.exec("openrtc", "ps").stdout
