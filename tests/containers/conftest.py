"""An engine, and the images of a worker: as docs/containers.md makes it, and without a shell or the command."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from containers.engine import Container, Engine
from containers.image import write_base

HERE = Path(__file__).parent
PAGE = HERE.parents[1] / "docs/containers.md"
WHEELS = os.environ.get("OPENRTC_TEST_WHEELS", "")
"""The folder of wheels that `nox -s containers` makes: of the packages, and of what they require."""
VOICE, BARE = "localhost/voice", "localhost/bare"
_LIMITS = ("--ulimit=nofile=1024:1024", "--ulimit=nproc=4096:4096")
"""The engine's settings are not for builds."""
_PIP = """\
[global]
no-index = true
find-links = /wheels
no-cache-dir = true
root-user-action = ignore
disable-pip-version-check = true
"""

RunVoice = Callable[..., AbstractContextManager[Container]]


@pytest.fixture(scope="session")
def engine() -> Iterator[Engine]:
    """An engine, if containers can be run here."""
    if os.name != "posix" or os.geteuid() != 0:
        pytest.skip("containers are NOT TESTED: that needs root")
    missing = [name for name in ("podman", "runc", "nsenter") if shutil.which(name) is None]
    if missing:
        pytest.skip(f"containers are NOT TESTED, for lack of {', '.join(missing)}")
    if not WHEELS:
        pytest.skip("containers are NOT TESTED: nox -s containers runs these tests")
    folder = Path(tempfile.mkdtemp(prefix="ortc", dir="/tmp"))
    engine = Engine(folder)
    try:
        write_base(folder / "base.tar")
        _import(engine, folder / "base.tar", "docker.io/library/python:3.13-slim")
        probe = engine.do("run", "--rm", "python:3.13-slim", "pip", "--version", check=False)
        if probe.returncode:
            pytest.skip(f"containers are NOT TESTED: none can be run here: {probe.stderr.strip()}")
        yield engine
    finally:
        engine.close()


def _import(engine: Engine, archive: Path, name: str) -> None:
    engine.do("import", "--quiet", "--change", "ENV PATH=/usr/local/bin:/usr/bin", archive, name)
    archive.unlink()


def excerpt(language: str, number: int = 0) -> str:
    """Return a block of code of docs/containers.md."""
    blocks: list[str] = re.findall(rf"```{language}\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    return blocks[number]


@pytest.fixture(scope="session")
def voice_image(engine: Engine) -> str:
    """The image that the Dockerfile of the page makes. Its base is of this machine's Python and files."""
    context, settings = engine.folder / "context", engine.folder / "pip.conf"
    context.mkdir()
    shutil.copy(HERE / "worker.py", context)
    (context / "Dockerfile").write_text(excerpt("dockerfile"), encoding="utf-8")
    settings.write_text(_PIP, encoding="utf-8")
    offline = [f"--volume={WHEELS}:/wheels:ro", f"--volume={settings}:/etc/pip.conf:ro", "--network=none"]
    engine.do("build", "--quiet", "--pull-never", "--no-cache", *_LIMITS, *offline, f"--tag={VOICE}", context)
    return VOICE


@pytest.fixture(scope="session")
def bare_image(engine: Engine, voice_image: str) -> str:
    """The same image without a shell, commands and the command: distroless, with the packages."""
    engine.do("build", "--quiet", "--pull-never", *_LIMITS, f"--tag={BARE}", "--file", HERE / "bare.dockerfile", HERE)
    return BARE


@pytest.fixture
def run_voice(engine: Engine, voice_image: str) -> RunVoice:
    """Run the worker in a container with these options of the engine."""
    return lambda *options: engine.container(voice_image, *options)


@pytest.fixture(scope="session")
def voice(engine: Engine, voice_image: str) -> Iterator[Container]:
    """A worker in a container without options; user 1000 runs it."""
    with engine.container(voice_image) as container:
        container.wait_for(lambda: "ready" in container.logs())
        yield container


@pytest.fixture
def volume() -> Iterator[Path]:
    """A folder to share between containers. As an emptyDir it is root's, and everybody may write to it."""
    with tempfile.TemporaryDirectory(prefix="ortv", dir="/tmp") as folder:
        os.chmod(folder, 0o777)
        yield Path(folder)
