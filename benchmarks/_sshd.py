"""An sshd on loopback, with keys of its own and nobody else's."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PATIENCE_S = 20.0


@contextmanager
def sshd(folder: Path) -> Iterator[list[str]]:
    """Yield the words of the command that logs in.

    Any number may log in at the same time: by default sshd refuses some of more than ten.
    """
    program = shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin:/usr/local/sbin")
    assert program is not None
    with contextlib.ExitStack() as stack:
        if os.geteuid() == 0 and not Path("/run/sshd").exists():  # sshd insists, where root starts it
            Path("/run/sshd").mkdir(0o755)
            stack.callback(_remove, Path("/run/sshd"))
        for name in ("host", "user"):
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)], check=True)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        (folder / "config").write_text(
            f"ListenAddress 127.0.0.1\nPort {port}\nHostKey {folder}/host\nAuthorizedKeysFile {folder}/user.pub\n"
            "PidFile none\nStrictModes no\nUsePAM no\nPermitRootLogin yes\nPasswordAuthentication no\n"
            "MaxStartups 500\n"
        )
        (folder / "known").write_text(f"[127.0.0.1]:{port} {(folder / 'host.pub').read_text()}")
        server = subprocess.Popen([program, "-D", "-e", "-f", str(folder / "config")], stderr=subprocess.DEVNULL)
        stack.callback(server.wait)
        stack.callback(server.kill)
        login = [
            *("ssh", "-F", "none", "-p", str(port), "-i", f"{folder}/user", "-o", "IdentitiesOnly=yes"),
            *("-o", "BatchMode=yes", "-o", f"UserKnownHostsFile={folder}/known", "127.0.0.1"),
        ]
        deadline = time.monotonic() + PATIENCE_S
        while subprocess.run([*login, "true"], capture_output=True, check=False).returncode:
            if server.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError("no login over ssh here")
            time.sleep(0.05)
        yield login


def _remove(folder: Path) -> None:
    with contextlib.suppress(OSError):  # another sshd may use it
        folder.rmdir()
