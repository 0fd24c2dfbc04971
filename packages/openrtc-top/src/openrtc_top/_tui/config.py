"""The columns that `openrtc top` remembers, in openrtc/top.toml.

The file is in $XDG_CONFIG_HOME, or in ~/.config. It is replaced as a whole, so that a reader sees the old or the new
one. A file that cannot be understood is left alone: it may be someone's work.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
import tomllib
from pathlib import Path

from openrtc_top._model.columns import DEFAULT, known

MAX_BYTES = 64 * 1024


class ConfigError(Exception):
    """The file cannot be read, understood or written; the message says why."""


def path() -> Path | None:
    """Return the path of the file, whether or not it is there.

    None: this user has no home.
    """
    home = os.environ.get("XDG_CONFIG_HOME", "")
    if not os.path.isabs(home):  # the specification wants a relative one ignored
        try:
            home = str(Path.home() / ".config")
        except RuntimeError:
            return None
    return Path(home) / "openrtc" / "top.toml"


def read_columns() -> tuple[str, ...]:
    """Return the remembered columns, or the default ones. Raises ConfigError."""
    file = path()
    if file is None:
        return DEFAULT
    try:
        with file.open("rb") as opened:
            text = opened.read(MAX_BYTES + 1)
    except (FileNotFoundError, NotADirectoryError):
        return DEFAULT
    except OSError as error:
        raise ConfigError(f"{file} cannot be read: {error.strerror}") from None
    if len(text) > MAX_BYTES:
        raise ConfigError(f"{file} has more than {MAX_BYTES} bytes")
    try:
        document = tomllib.loads(text.decode())
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{file} is no TOML: {error}") from None
    return _columns(document, file)


def _columns(document: dict[str, object], file: Path) -> tuple[str, ...]:
    unknown = [name for name in document if name != "columns"]
    if unknown:
        raise ConfigError(f"{file}: {unknown[0]!r} is not known; accepted is columns")
    names = document.get("columns", [*DEFAULT])
    if not isinstance(names, list) or not names:
        raise ConfigError(f"{file}: columns is {names!r}; accepted is a list of names of columns")
    columns = []
    for name in names:
        column = known(name) if isinstance(name, str) else None
        if column is None:
            raise ConfigError(f"{file}: columns has {name!r}, which is no column")
        columns.append(column)
    return tuple(dict.fromkeys(columns))


def write_columns(columns: tuple[str, ...]) -> None:
    """Remember the columns. Raises ConfigError."""
    file = path()
    if file is None:
        raise ConfigError("there is no home directory to keep a file in")
    read_columns()  # a file that is not understood is not replaced
    # Without a list the default columns hold, also those of a later version. Ids are plain words: no TOML escapes.
    listed = ", ".join(f'"{column}"' for column in columns)
    line = "" if columns == DEFAULT else f"columns = [{listed}]\n"
    try:
        file = file.resolve()  # of a link, the file that it leads to is replaced
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        _replace(file, f"# Written by openrtc top when columns are chosen with the key c.\n{line}")
    except OSError as error:
        raise ConfigError(f"{file} cannot be written: {error.strerror}") from None


def _replace(file: Path, text: str) -> None:
    descriptor, name = tempfile.mkstemp(prefix=".top-", suffix=".toml", dir=file.parent)  # 0600
    try:
        with open(descriptor, "w", encoding="utf-8") as written:
            written.write(text)
            written.flush()
            os.fsync(written.fileno())
        os.replace(name, file)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(name)
        raise
