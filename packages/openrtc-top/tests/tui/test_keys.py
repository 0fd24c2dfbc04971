"""Bytes from a terminal become names of keys."""

from __future__ import annotations

import pytest

from openrtc_top._tui.keys import KeyDecoder


@pytest.mark.parametrize(
    ("data", "keys"),
    [
        (b"qrsfi?", ["q", "r", "s", "f", "i", "?"]),
        (b"\x1b[A\x1b[B\x1b[C\x1b[D", ["up", "down", "right", "left"]),
        (b"\x1bOA\x1bOB\x1bOH\x1bOF", ["up", "down", "home", "end"]),
        (b"\x1b[5~\x1b[6~", ["pageup", "pagedown"]),
        (b"\x1b[H\x1b[1~\x1b[7~\x1b[F\x1b[4~\x1b[8~", ["home", "home", "home", "end", "end", "end"]),
        (b"\x1b[1;5A\x1b[5;2~", ["up", "pageup"]),
        (b"\r\n\t \x7f\x08", ["enter", "enter", "tab", "space", "backspace", "backspace"]),
        (b"\x1bOP\x1b[11~\x1b[21~\x1b[17~", ["f1", "f1", "f10", "f6"]),
        (b"\x03\x0c", ["ctrl-c", "ctrl-l"]),
        ("é東".encode(), ["é", "東"]),
        (b"\xff", ["\ufffd"]),
    ],
)
def test_known_bytes_are_keys(data: bytes, keys: list[str]) -> None:
    """Characters are themselves; both cursor modes and the sequences of different terminals are known."""
    assert KeyDecoder().feed(data) == keys


@pytest.mark.parametrize("data", [b"\x1b[200~", b"\x1b[<0;33;12M", b"\x1b[27;5;9~", b"\x1bOM", b"\x1b[15~"])
def test_unknown_sequences_are_swallowed_whole(data: bytes) -> None:
    """A mouse report or a paste mark never counts as the letters that are in it."""
    assert KeyDecoder().feed(data + b"q") == ["q"]


def test_a_sequence_may_come_in_pieces() -> None:
    """A read may end anywhere, in a sequence or in a character."""
    decoder = KeyDecoder()
    assert [decoder.feed(bytes([byte])) for byte in b"\x1b[5~"] == [[], [], [], ["pageup"]]
    assert [decoder.feed(bytes([byte])) for byte in "東".encode()] == [[], [], ["東"]]


def test_escape_is_known_by_the_silence_after_it() -> None:
    """A lone ESC is a key only once nothing followed."""
    decoder = KeyDecoder()
    assert decoder.feed(b"\x1b") == []
    assert decoder.waiting
    assert decoder.flush() == ["escape"]
    assert not decoder.waiting
    assert decoder.feed(b"A") == ["A"]


def test_escape_before_another_key() -> None:
    """Both count when they come at once, as they do over a slow line."""
    assert KeyDecoder().feed(b"\x1b\x1b[A") == ["escape", "up"]
    assert KeyDecoder().feed(b"\x1bG\x1b\r") == ["escape", "G", "escape", "enter"]
    assert KeyDecoder().feed("\x1bé".encode()) == ["escape", "é"]


def test_an_unfinished_sequence_is_dropped() -> None:
    """A sequence that never ends is no key, and does not swallow the keys that follow."""
    decoder = KeyDecoder()
    assert decoder.feed(b"\x1b[1;") == []
    assert decoder.flush() == []
    assert decoder.feed(b"q") == ["q"]


def test_a_broken_sequence_does_not_take_the_next_key() -> None:
    """A control character in the middle of a sequence ends it."""
    assert KeyDecoder().feed(b"\x1b[1\x03q") == ["ctrl-c", "q"]


def test_a_flood_is_not_kept() -> None:
    """Digits without end are not collected for ever."""
    decoder = KeyDecoder()
    decoder.feed(b"\x1b[" + b"1" * 10_000)
    assert not decoder.waiting
