"""The columns are remembered in a file, which is nobody else's to read and never half written."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from openrtc_top._model.columns import DEFAULT
from openrtc_top._tui.config import ConfigError, path, read_columns, write_columns


def file_with(home: Path, text: str) -> Path:
    file = home / "openrtc" / "top.toml"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return file


def test_what_is_written_is_read(config_home: Path) -> None:
    """In the same order; the file is 0600 in a folder 0700, under any umask, and nothing else is left there."""
    assert read_columns() == DEFAULT
    before = os.umask(0)
    try:
        write_columns(("cpu_pct", "session"))
    finally:
        os.umask(before)
    assert read_columns() == ("cpu_pct", "session")
    file = config_home / "openrtc" / "top.toml"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    write_columns(("session",))
    assert read_columns() == ("session",)
    assert [entry.name for entry in file.parent.iterdir()] == ["top.toml"]


def test_the_default_is_not_spelled_out(config_home: Path) -> None:
    """So that columns which a later version adds come to those who never chose."""
    write_columns(DEFAULT)
    assert "columns =" not in (config_home / "openrtc" / "top.toml").read_text()
    assert read_columns() == DEFAULT


def test_titles_and_wire_names_are_accepted(config_home: Path) -> None:
    """Whoever writes the file by hand may use what is on the screen."""
    file_with(config_home, 'columns = ["session_id", "cpu%", "#", "cpu_pct"]')
    assert read_columns() == ("session", "cpu_pct", "number")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("columns = [", "is no TOML"),
        ("columns = 7", "columns is 7; accepted is a list"),
        ("columns = []", "accepted is a list"),
        ('columns = ["nope"]', "has 'nope', which is no column"),
        ("columns = [1]", "has 1, which is no column"),
        ("colums = []", "'colums' is not known; accepted is columns"),
        ("# " + "x" * 70_000, "has more than 65536 bytes"),
    ],
)
def test_a_broken_file(text: str, reason: str, config_home: Path) -> None:
    """It is reported in one line, and left as it is."""
    file = file_with(config_home, text)
    with pytest.raises(ConfigError, match=reason) as caught:
        read_columns()
    assert "\n" not in str(caught.value)
    with pytest.raises(ConfigError):
        write_columns(("session",))
    assert file.read_text() == text


def test_a_link_stays_a_link(config_home: Path, tmp_path: Path) -> None:
    """A user who keeps such files elsewhere and links to them finds the new one there."""
    target = tmp_path / "dotfiles.toml"
    target.write_text("")
    file = config_home / "openrtc" / "top.toml"
    file.parent.mkdir(parents=True)
    file.symlink_to(target)
    write_columns(("session",))
    assert file.is_symlink()
    assert "session" in target.read_text()


def test_what_cannot_be_written(config_home: Path) -> None:
    """A path that can be no folder is an error that names it."""
    config_home.write_text("a file")
    assert read_columns() == DEFAULT
    with pytest.raises(ConfigError, match="cannot be written"):
        write_columns(("session",))


def test_where(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """In XDG_CONFIG_HOME if that is absolute, else in .config of the home."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", "relative")
    assert path() == tmp_path / ".config" / "openrtc" / "top.toml"
