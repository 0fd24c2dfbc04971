"""The limits of a container as its worker shows them, and what is left after the kernel has killed it there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from containers.conftest import RunVoice
from containers.engine import Container, Engine, openrtc

from openrtc_introspect_core import read_snapshot
from openrtc_introspect_core.wire import Cgroup


def cgroup(container: Container) -> Cgroup:
    """Return what the worker says of its control group, to the host: what runs in the container is slowed down, too."""
    group = read_snapshot(f"/proc/{container.pid}/root/tmp/openrtc-1000/voice-1.sock", timeout_s=60.0).worker.cgroup
    assert group is not None
    return group


def test_the_limits_are_the_container_s(run_voice: RunVoice) -> None:
    """And what is used of them: a worker that computes is throttled, and uses no more than is charged."""
    with run_voice("--memory=192m", "--cpus=0.3", "--env=SPIN=1") as container:
        container.wait_for(lambda: "ready" in container.logs())
        container.wait_for(lambda: bool(cgroup(container).cpu_throttled_pct))
        group = cgroup(container)
        assert (group.cpu_limit, group.memory_limit_mb) == (0.3, 192.0)
        assert (group.cpu_throttled_s or 0.0) > 0.0
        assert 0.0 < (group.anon_mb or 0.0) <= 192.0
        assert 0.0 < (group.memory_used_mb or 0.0) <= (group.memory_current_mb or 0.0) <= 192.0


@pytest.fixture
def killed(run_voice: RunVoice, volume: Path) -> Iterator[tuple[Container, tuple[str, ...]]]:
    """A container whose worker grew until the kernel killed it, and its options; started again, it does not grow."""
    options = (f"--volume={volume}:/run/openrtc", "--env=OPENRTC_RUNTIME_DIR=/run/openrtc/voice")
    with run_voice(*options, "--memory=96m", "--memory-swap=96m", "--env=GROW=/run/openrtc/grown") as container:
        assert container.wait_for_end() == 137
        yield container, options


def test_a_box_in_a_volume_tells_what_the_killed_worker_did(
    killed: tuple[Container, tuple[str, ...]], engine: Engine, voice_image: str, volume: Path
) -> None:
    """To a sidecar, to the host, and to the same container once it runs again."""
    container, options = killed
    on_the_host = openrtc(engine, "postmortem", "--box", volume / "voice/voice-1.box").stdout
    assert on_the_host.startswith("voice · pid 1 · died ")
    beside = engine.do("run", "--rm", *options, voice_image, "openrtc", "postmortem", "--keep").stdout
    assert beside.startswith("voice · pid 1 · died ")
    assert "of the cgroup limit of 96 MB" in beside
    assert "4 died with it" in beside
    engine.do("start", container.name)
    container.wait_for(lambda: container.logs().count("ready") == 2)
    listed = container.exec("openrtc", "ps").stdout
    assert "voice pid 1 died " in listed
    assert container.exec("openrtc", "postmortem").stdout.startswith("voice · pid 1 · died ")
    assert "died" not in container.exec("openrtc", "ps").stdout
