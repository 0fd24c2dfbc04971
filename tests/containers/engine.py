"""Containers by podman, with images, containers and settings of their own in a folder of the run."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

DEADLINE_S = 120.0
_SETTINGS = """\
[containers]
netns = "none"
cgroupns = "private"
default_ulimits = ["nofile=1024:1024", "nproc=4096:4096"]
log_driver = "k8s-file"
tz = ""
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "none"
tmp_dir = "{0}/libpod"
"""
_STORAGE = """\
[storage]
driver = "overlay"
graphroot = "{0}/storage"
runroot = "{0}/run"
"""


class Engine:
    """Runs containers; what it makes is below one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "containers.conf").write_text(_SETTINGS.format(folder), encoding="utf-8")
        (folder / "storage.conf").write_text(_STORAGE.format(folder), encoding="utf-8")
        self.environment = {
            **os.environ,
            "CONTAINERS_CONF": str(folder / "containers.conf"),
            "CONTAINERS_STORAGE_CONF": str(folder / "storage.conf"),
        }

    def do(self, *arguments: str | Path, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run podman with arguments."""
        command = ["podman", *map(str, arguments)]
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            env=self.environment,
            cwd=self.folder,  # conmon writes a file `oom` there if the kernel has killed
            timeout=DEADLINE_S,
            check=False,
        )
        assert not check or done.returncode == 0, f"{' '.join(command)}: {done.stdout}{done.stderr}"
        return done

    @contextmanager
    def container(self, image: str, *options: str | Path) -> Iterator[Container]:
        """Run a container while the block lasts."""
        name = self.do("run", "--detach", *options, image).stdout.strip()[:12]
        try:
            yield Container(self, name)
        finally:
            self._remove(name)

    def _remove(self, name: str) -> None:
        """Remove a container. A mount of it is busy while podman's own process cleans up after the kill."""
        deadline = time.monotonic() + DEADLINE_S
        while self.do("rm", "--force", "--ignore", "--time=0", name, check=time.monotonic() > deadline).returncode:
            time.sleep(0.5)

    def close(self) -> None:
        """Remove all that it has made."""
        self.do("rm", "--all", "--force", "--time=0", check=False)
        self.do("rmi", "--all", "--force", check=False)
        subprocess.run(["umount", f"{self.folder}/storage/overlay"], capture_output=True, check=False)
        shutil.rmtree(self.folder, ignore_errors=True)


def openrtc(engine: Engine, *arguments: str | Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run the command on the host."""
    command = [sys.executable, "-m", "openrtc_top", *map(str, arguments)]
    environment = {**engine.environment, **variables}
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=DEADLINE_S, check=False)


class Container:
    """One that runs, or has ended."""

    def __init__(self, engine: Engine, name: str) -> None:
        self.engine = engine
        self.name = name

    def inspect(self, form: str) -> str:
        """Return one of its properties."""
        return self.engine.do("inspect", "--format", form, self.name).stdout.strip()

    @property
    def pid(self) -> int:
        """The process id of its first process, on the host."""
        return int(self.inspect("{{.State.Pid}}"))

    def exec(self, *command: str, options: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
        """Run a command in it, as `docker exec` does."""
        return self.engine.do("exec", *options, self.name, *command, check=False)

    def logs(self) -> str:
        """Return what it has written."""
        done = self.engine.do("logs", self.name)
        return done.stdout + done.stderr

    def wait_for(self, done: Callable[[], bool]) -> None:
        """Wait until something is so; fail if the container has ended meanwhile, or after two minutes."""
        deadline = time.monotonic() + DEADLINE_S
        while not done():
            assert self.inspect("{{.State.Running}}") == "true", self.logs()
            assert time.monotonic() < deadline
            time.sleep(0.2)

    def wait_for_end(self) -> int:
        """Wait until it has ended, and return its exit code."""
        return int(self.engine.do("wait", self.name).stdout)
