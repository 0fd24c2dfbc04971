from __future__ import annotations

import struct
import zlib

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from openrtc_introspect_core import BoxError
from openrtc_introspect_core._os.stacks import Folders
from openrtc_introspect_core.black_box._layout import (
    FILE_BYTES,
    HEADER_BYTES,
    LOOP_SLOT_BYTES,
    MAX_FILE_BYTES,
    MAX_LOOPS,
    SECTIONS,
    WORKER_SLOT_BYTES,
    Header,
    pack_header,
    pack_slot,
    unpack_header,
    unpack_slot_head,
)

HEADER = Header(worker="voice-a", pid=7, epoch="e", version="1.2.3", started_at=1e9)


def packed(encoded: bytes, *, version: int = 1, magic: bytes = b"ORTCBOX1", crc: int | None = None) -> bytes:
    return struct.pack("<8sIIII", magic, version, len(encoded), crc or zlib.crc32(encoded), 0) + encoded


def test_a_header_is_what_was_packed() -> None:
    """Behind a prefix of 24 bytes, in at most 8 KiB."""
    begin = pack_header(HEADER)
    assert begin == packed(msgspec.json.encode(HEADER))
    assert unpack_header(begin + bytes(HEADER_BYTES - len(begin))) == HEADER


def test_sections_follow_each_other() -> None:
    """The places of layout 1, which other programs know: they never change."""
    assert (HEADER_BYTES, WORKER_SLOT_BYTES, LOOP_SLOT_BYTES, MAX_LOOPS) == (8192, 1048576, 16384, 16)
    assert SECTIONS.worker == (8192, 1048576)
    assert [offset for offset, _ in SECTIONS.loops] == [2105344 + 32768 * number for number in range(16)]
    assert SECTIONS.dump == (2629632, 65536)
    assert FILE_BYTES == 2695168 < MAX_FILE_BYTES


def test_folders_that_do_not_fit_are_left_out() -> None:
    """Files are then shown by their whole path; this package's own folder is kept."""
    roots = tuple(f"/srv/{number:0200}/" for number in range(100))
    begin = pack_header(msgspec.structs.replace(HEADER, folders=Folders(roots=roots, own="/own/")))
    assert len(begin) <= HEADER_BYTES
    assert unpack_header(begin).folders == Folders(own="/own/")


@pytest.mark.parametrize(
    ("begin", "problem"),
    [
        (b"", "is no black box: it has 0 bytes"),
        (pack_header(HEADER)[:23], "is no black box: it has 23 bytes"),
        (bytes(HEADER_BYTES), "is no black box: it begins with b'\\x00"),
        (packed(b"{}", magic=b"ORTCBOX?"), "is no black box: it begins with b'ORTCBOX?', not b'ORTCBOX1'"),
        (pack_header(HEADER)[:100], "is damaged: its header of "),
        (packed(b"{}", crc=1), "is damaged: its header of 2 bytes is not what was written"),
        (packed(b"[" * 8000), "is damaged: its header cannot be read: "),
        (packed(b"{}"), "is damaged: its header cannot be read: Object missing required field `worker`"),
        (packed(b'{"worker":"w","pid":"7"}'), "is damaged: its header cannot be read: Expected `int`"),
        (packed(b'{"worker":"\xff","pid":7}'), "is damaged: its header cannot be read: "),
    ],
)
def test_what_is_no_header_is_described(begin: bytes, problem: str) -> None:
    """In one line."""
    with pytest.raises(BoxError) as caught:
        unpack_header(begin)
    assert problem in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("section", [[0, 100], [8192, 16], [4_000_000, 1_000_000]])
def test_a_section_lies_behind_the_header_and_within_the_longest_file(section: list[int]) -> None:
    """A header that places it elsewhere is damaged."""
    for places in ({"worker": section, "loops": []}, {"worker": [8192, 100], "loops": [section]}):
        header = {"worker": "w", "pid": 7, "sections": {"dump": [0, 0], **places}}
        with pytest.raises(BoxError, match="its header places a section of two slots of"):
            unpack_header(packed(msgspec.json.encode(header)))


def test_another_layout_names_both_versions() -> None:
    """That of the file, with the version of its writer, and the one that is read."""
    with pytest.raises(BoxError) as caught:
        unpack_header(packed(b'{"version":"9.1","worker":[]}', version=2))
    assert str(caught.value) == (
        "has layout 2 of openrtc-introspect-core 9.1, this command reads layout 1: "
        "use openrtc-introspect-core of the same version on both sides"
    )


def test_another_layout_may_have_another_header() -> None:
    """Only its prefix keeps its meaning."""
    with pytest.raises(BoxError, match="has layout 7, this command reads layout 1"):
        unpack_header(packed(b"\xff", version=7, crc=3))
    for other in (b"\xff", b"{}", b'{"version":7}', b'{"version":"1\\n2"}'):
        with pytest.raises(BoxError, match="has layout 7 of openrtc-introspect-core of unknown version, this command"):
            unpack_header(packed(other, version=7))


@given(number=st.integers(1, 2**64 - 1), record=st.binary(max_size=100))
def test_a_slot_begins_with_its_number_length_and_crc(number: int, record: bytes) -> None:
    """In 16 bytes, before the record."""
    slot = pack_slot(number, record)
    assert unpack_slot_head(slot) == (number, len(record), zlib.crc32(record))
    assert slot[16:] == record


def test_less_than_a_slot_s_beginning_is_a_slot_that_was_not_written() -> None:
    """As at the end of a file."""
    assert unpack_slot_head(b"\1" * 15) == (0, 0, 0)


@given(begin=st.binary(max_size=200), prefix=st.booleans())
def test_any_bytes_are_a_header_or_an_error(begin: bytes, prefix: bool) -> None:
    """Nothing else is raised, also behind a right prefix."""
    try:
        header = unpack_header(packed(begin) if prefix else begin)
    except BoxError:
        return
    assert isinstance(header, Header)
