"""The bytes of a black box, layout 1.

    0        prefix: magic, layout version, length and CRC of the header, 0    24 bytes
    24       header: JSON
    8192     sections: one of the worker, one of each of 16 loops; then a part that is reserved

A section has two slots, which are written in turn, each by one write. A slot begins with its number, which
rises by one with each write, and the length and the CRC of its record; the record is JSON. The valid slot with the
higher number is the section's record: a writer that is killed in the middle of a write spoils the other one.

All numbers are little-endian; a CRC is zlib's CRC-32. docs/black-box.md is the contract.
"""

from __future__ import annotations

import re
import struct
import zlib
from typing import Annotated, NamedTuple, TypeVar

import msgspec

from .._base.errors import BoxError
from .._os.stacks import Folders

_Kind = TypeVar("_Kind")

MAGIC = b"ORTCBOX1"
"""The first bytes of every layout."""
LAYOUT_VERSION = 1

PREFIX = struct.Struct("<8sIIII")
"""Magic, layout version, length of the header, its CRC, 0."""
SLOT_HEAD = struct.Struct("<QII")
"""Number, length of the record, its CRC."""

HEADER_BYTES = 8 * 1024
"""Prefix and header have at most so many bytes."""
WORKER_SLOT_BYTES = 1024 * 1024
LOOP_SLOT_BYTES = 16 * 1024
MAX_LOOPS = 16
"""The loops that have a section."""
RESERVED_BYTES = 64 * 1024

MAX_FILE_BYTES = 4 * 1024 * 1024
"""No box is longer."""

_Position = Annotated[int, msgspec.Meta(ge=0, le=MAX_FILE_BYTES)]


class Section(NamedTuple):
    """One section's place in the file."""

    offset: _Position
    size: _Position
    """The bytes of one of its two slots; of the reserved part, all of it."""


class Sections(msgspec.Struct, frozen=True, kw_only=True):
    """The places of all sections."""

    worker: Section
    """The worker's: the offset in bytes from the file's begin, and the size of one of its two slots."""
    loops: Annotated[list[Section], msgspec.Meta(max_length=MAX_LOOPS)]
    """The loops', sixteen of them, likewise."""
    dump: Section
    """Reserved: nothing is written there, and readers ignore it. Its offset, and its whole size."""


def _sections() -> Sections:
    loops = HEADER_BYTES + 2 * WORKER_SLOT_BYTES
    reserved = loops + MAX_LOOPS * 2 * LOOP_SLOT_BYTES
    return Sections(
        worker=Section(HEADER_BYTES, WORKER_SLOT_BYTES),
        loops=[Section(loops + number * 2 * LOOP_SLOT_BYTES, LOOP_SLOT_BYTES) for number in range(MAX_LOOPS)],
        dump=Section(reserved, RESERVED_BYTES),
    )


SECTIONS = _sections()
"""The places of the sections that this version writes."""
FILE_BYTES = SECTIONS.dump.offset + SECTIONS.dump.size
"""The length of the file; most of it is a hole, which takes no space."""

_Time = Annotated[float, msgspec.Meta(ge=0.0, le=1e11)]


class Header(msgspec.Struct, frozen=True, kw_only=True):
    """What does not change while the worker lives. Times are Unix time in seconds."""

    worker: Annotated[str, msgspec.Meta(max_length=256)]
    """The worker's name."""
    pid: int
    """Its process id, as the worker itself sees it."""
    epoch: str = ""
    """A text that is different for each start of a worker, as in its snapshots."""
    version: str = ""
    """The version of openrtc-introspect-core that writes."""
    python: str = ""
    """The version of the interpreter."""
    meter: str | None = None
    """The language of the meter. Null: not known."""
    started_at: _Time = 0.0
    """The time at which the introspector was attached."""
    folders: Folders = Folders()
    """The folders that its code is in: files in a loop's record are shown relative to them."""
    sections: Sections = SECTIONS
    """The places of the sections."""


def pack_header(header: Header) -> bytes:
    """Return the first bytes of a box."""
    encoded = msgspec.json.encode(header)
    if PREFIX.size + len(encoded) > HEADER_BYTES:  # very many roots: files are then shown by their whole path
        encoded = msgspec.json.encode(msgspec.structs.replace(header, folders=Folders(own=header.folders.own)))
    return PREFIX.pack(MAGIC, LAYOUT_VERSION, len(encoded), zlib.crc32(encoded), 0) + encoded


def is_box(begin: bytes) -> bool:
    """Return whether a file that begins with these bytes is a black box, of any layout."""
    return begin.startswith(MAGIC)


def unpack_header(begin: bytes) -> Header:
    """Return the header of a box that begins with these bytes. Raises BoxError, without the path."""
    if len(begin) < PREFIX.size:
        raise BoxError(f"is no black box: it has {len(begin)} bytes")
    magic, version, length, crc, _ = PREFIX.unpack_from(begin)
    if magic != MAGIC:
        raise BoxError(f"is no black box: it begins with {magic!r}, not {MAGIC!r}")
    encoded = begin[PREFIX.size : PREFIX.size + length]
    intact = len(encoded) == length <= HEADER_BYTES - PREFIX.size and zlib.crc32(encoded) == crc
    if version != LAYOUT_VERSION:
        writer = f" of openrtc-introspect-core {_version_in(encoded)}" if intact else ""
        raise BoxError(
            f"has layout {version}{writer}, this command reads layout {LAYOUT_VERSION}: "
            "use openrtc-introspect-core of the same version on both sides"
        )
    if not intact:
        raise BoxError(f"is damaged: its header of {length} bytes is not what was written")
    header = decode(encoded, Header, "header")
    for offset, size in (header.sections.worker, *header.sections.loops):
        if offset < HEADER_BYTES or size <= SLOT_HEAD.size or offset + 2 * size > MAX_FILE_BYTES:
            raise BoxError(f"is damaged: its header places a section of two slots of {size} bytes at {offset}")
    return header


class _Versioned(msgspec.Struct):
    version: str = ""


def _version_in(encoded: bytes) -> str:
    try:
        version = decode(encoded, _Versioned, "header").version
    except BoxError:
        version = ""
    return version if re.fullmatch(r"[\w.+-]{1,64}", version) else "of unknown version"


def decode(encoded: bytes, kind: type[_Kind], what: str) -> _Kind:
    """Return a record. Raises BoxError, without the path."""
    try:
        return msgspec.json.decode(encoded, type=kind)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise BoxError(f"is damaged: its {what} cannot be read: {error}") from None


def pack_slot(number: int, record: bytes) -> bytes:
    """Return the bytes of a slot. number: 1 for a section's first record and one more for each."""
    return SLOT_HEAD.pack(number, len(record), zlib.crc32(record)) + record


class SlotHead(NamedTuple):
    """The beginning of a slot."""

    number: int
    """0: the slot has not been written."""
    length: int
    crc: int


def unpack_slot_head(begin: bytes) -> SlotHead:
    """Return a slot's beginning; of fewer bytes than it has, that of a slot that has not been written."""
    return SlotHead(*SLOT_HEAD.unpack_from(begin)) if len(begin) >= SLOT_HEAD.size else SlotHead(0, 0, 0)
