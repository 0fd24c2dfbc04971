"""The checksum of the meter's sources in C.

It is compiled in. In a source tree, a module that was compiled from other sources is recognised by it.
"""

from __future__ import annotations

from binascii import crc32  # hashlib takes milliseconds to load
from pathlib import Path


def checksum(folder: Path) -> str | None:
    """Return the CRC-32 of the C files in a folder and of their names, as text. None: there are none, as in a wheel."""
    files = sorted(folder.glob("*.[ch]"))
    return f"{crc32(b''.join(file.name.encode() + file.read_bytes() for file in files)):08x}" if files else None
