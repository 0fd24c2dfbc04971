"""docs/containers.md: its Dockerfile makes the image of all these tests, and its pod runs."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from containers.conftest import excerpt
from containers.engine import Container, Engine


@pytest.fixture
def pod(engine: Engine, voice_image: str) -> Iterator[None]:
    """The pod of the page, with its sidecar, by podman, which reads the manifests of Kubernetes."""
    if shutil.which("catatonit") is None:
        pytest.skip("containers are NOT TESTED: no pod, for lack of catatonit")
    manifest = Path(engine.folder / "pod.yaml")
    head, volumes, tail = excerpt("yaml").partition("  volumes:")
    manifest.write_text(head + excerpt("yaml", 1) + volumes + tail, encoding="utf-8")
    engine.do("play", "kube", "--network=none", manifest)
    try:
        yield
    finally:
        engine.do("play", "kube", "--down", manifest)


@pytest.mark.usefixtures("pod")
def test_the_pod_of_the_page_runs_and_both_containers_see_the_worker(engine: Engine) -> None:
    """In the volume that they share, under the pod's limits."""
    worker, sidecar = Container(engine, "voice-worker"), Container(engine, "voice-openrtc")
    worker.wait_for(lambda: "ready" in worker.logs())
    for container in (worker, sidecar):
        done = container.exec("openrtc", "ps")
        assert (done.returncode, done.stderr) == (0, "")
        (line,) = done.stdout.splitlines()[1:]
        assert line.startswith("voice ")
        assert "1 core, 512 MB" in line
        assert line.endswith("/run/openrtc/voice/voice-1.sock")
