"""A base image of this machine's own files: no registry of images is reached, and none is needed.

It has what `python:X-slim` has and the tests use: a shell, the usual commands, and this Python in /usr/local.
"""

from __future__ import annotations

import io
import os
import platform
import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterable
from importlib import util
from pathlib import Path

COMMANDS = ("sh", "bash", "env", "id", "ls", "cat", "stat", "sleep", "kill", "mkdir", "chmod", "chown", "rm", "grep")
_LOADED = ("libpthread.so.0", "librt.so.1", "libdl.so.2", "libutil.so.1", "libgcc_s.so.1", "libstdc++.so.6")
"""Libraries that wheels load."""
_LEFT_OUT = "test|idlelib|tkinter|turtledemo|config-[^/]*|(site|dist)-packages|include|share"
_SKIPPED = re.compile(rf"/({_LEFT_OUT})(/|$)|/_tkinter\.")
_USERS = {
    "etc/passwd": "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/bin/false\n",
    "etc/group": "root:x:0:\nnogroup:x:65534:\n",
}
_FOLDERS = {"tmp": 0o1777, "var/tmp": 0o1777, "run": 0o755, "root": 0o700, "etc": 0o755, "home": 0o755, "app": 0o755}


def write_base(path: Path) -> None:
    """Write the root file system as a tar archive."""
    with tarfile.open(path, "w") as archive:
        for name, mode in _FOLDERS.items():
            _add_folder(archive, name, mode)
        for name, target in (("bin", "usr/bin"), ("sbin", "usr/sbin"), ("lib", "usr/lib"), ("lib64", "usr/lib64")):
            _add_link(archive, name, target)
        for name, text in _USERS.items():
            _add_text(archive, name, text)
        prefix = Path(sys.base_prefix)
        programs = [Path(shutil.which(name) or f"/bin/{name}").resolve() for name in COMMANDS]
        python = (prefix / f"bin/python3.{sys.version_info.minor}").resolve()
        modules = (prefix / "lib").glob("python3*/lib-dynload/*.so")
        for library in sorted(_libraries([*programs, python, *modules])):
            if not library.name.startswith("libpython"):
                archive.add(library.resolve(), _usr(library))
        for name in _LOADED:
            found = Path(f"/usr/lib/{platform.machine()}-linux-gnu", name)
            archive.add(found.resolve(), _usr(found))
        for name, program in zip(COMMANDS, programs, strict=True):
            archive.add(program, f"usr/bin/{name}")
        _add_python(archive, prefix, python.name)


def _add_python(archive: tarfile.TarFile, prefix: Path, name: str) -> None:
    def kept(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
        return None if _SKIPPED.search(f"/{member.name}") else member

    archive.add((prefix / "bin" / name).resolve(), f"usr/local/bin/{name}")
    for alias in ("python3", "python"):
        _add_link(archive, f"usr/local/bin/{alias}", name)
    _add_text(archive, "usr/local/bin/pip", '#!/bin/sh\nexec python -m pip "$@"\n', 0o755)
    archive.add(prefix / "lib" / name, f"usr/local/lib/{name}", filter=kept)
    pip = util.find_spec("pip")  # of the session's environment
    assert pip is not None
    assert pip.origin is not None
    archive.add(Path(pip.origin).parent, f"usr/local/lib/{name}/site-packages/pip")
    for library in (prefix / "lib").glob("libpython3*.so*"):
        archive.add(library, f"usr/lib/{library.name}")  # found without ldconfig


def _libraries(programs: Iterable[Path]) -> set[Path]:
    listed = subprocess.run(["ldd", *map(str, programs)], capture_output=True, text=True, check=False).stdout
    return {Path(name) for name in re.findall(r"(?:=> |^\s)(/\S+) \(0x", listed, re.MULTILINE)}


def _usr(library: Path) -> str:
    where = Path(os.path.realpath(library.parent)) / library.name
    return str(where).lstrip("/")


def _add_folder(archive: tarfile.TarFile, name: str, mode: int) -> None:
    member = tarfile.TarInfo(name)
    member.type, member.mode = tarfile.DIRTYPE, mode
    archive.addfile(member)


def _add_link(archive: tarfile.TarFile, name: str, target: str) -> None:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = tarfile.SYMTYPE, target
    archive.addfile(member)


def _add_text(archive: tarfile.TarFile, name: str, text: str, mode: int = 0o644) -> None:
    member = tarfile.TarInfo(name)
    member.size, member.mode = len(text), mode
    archive.addfile(member, io.BytesIO(text.encode()))
