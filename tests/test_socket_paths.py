"""Tests put sockets below temporary folders, whose paths are short whatever the shell's $TMPDIR is."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="serves no socket")

ROOT = Path(__file__).parent.parent
LONGEST = 107
"""The bytes that a socket's path has at most."""
NAME = 30
"""The bytes that a test may add to tmp_path."""


def test_a_socket_below_tmp_path_has_room_for_its_name(tmp_path: Path) -> None:
    assert len(os.fsencode(tmp_path)) + NAME <= LONGEST


def test_a_long_folder_for_temporary_files_is_not_used(tmp_path: Path) -> None:
    """Neither by the tests nor by what they start."""
    folder = tmp_path / ("long" * 20)
    folder.mkdir()
    code = "import os, tempfile; tempfile.gettempdir(); import conftest; print(tempfile.tempdir, os.environ['TMPDIR'])"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=ROOT, env={**os.environ, "TMPDIR": str(folder)}, capture_output=True, text=True)
    assert done.stdout.split() == ["/tmp", "/tmp"], done.stderr
