"""Where a replay stands, and its keys."""

from __future__ import annotations

from dataclasses import replace

import pytest

from openrtc_top._model.playback import SPEEDS, Playback
from openrtc_top._view.playback import playback_line

TIMES = [100.0, 101.0, 102.0, 105.0, 120.0, 200.0]


@pytest.mark.parametrize(
    ("frame", "keys", "expected"),
    [
        (2, "left", 1),
        (2, "right", 3),
        (0, "left", 0),
        (5, "right", 5),
        (2, "right right right right right", 5),
        (4, "[", 3),
        (5, "[", 4),
        (3, "[", 0),
        (0, "]", 3),
        (3, "]", 4),
        (5, "]", 5),
        (3, "{", 0),
        (0, "}", 5),
    ],
)
def test_moving(frame: int, keys: str, expected: int) -> None:
    """By a frame, by ten seconds but at least a frame, to the ends, and never beyond them."""
    playback = Playback(TIMES, frame)
    for key in keys.split():
        playback = playback.handle_key(key) or playback
    assert playback.frame == expected


def test_playing() -> None:
    """A frame lasts until the next one's moment, at this speed; long gaps are cut short; the end stops it."""
    playback = Playback(TIMES)
    assert playback.wait_s() == 1.0
    assert replace(playback, speed=4.0).wait_s() == 0.25
    assert replace(playback, frame=4).wait_s() == 10.0
    assert replace(playback, playing=False).wait_s() is None
    last = replace(playback, frame=4).next()
    assert (last.frame, last.playing, last.wait_s()) == (5, False, None)


def test_space() -> None:
    """Stops and goes on; from the end, it begins again."""
    playback = Playback(TIMES, 2)
    stopped = playback.handle_key("space")
    assert stopped is not None
    assert not stopped.playing
    assert stopped.handle_key("space") == playback
    assert Playback(TIMES, 5, playing=False).handle_key("space") == Playback(TIMES, 0)
    alone = Playback([1.0], playing=False).handle_key("space")
    assert alone == Playback([1.0], playing=False)


def test_a_step_stops_it() -> None:
    """Whoever goes frame by frame reads the screen."""
    stepped = Playback(TIMES, 2).handle_key("right")
    assert stepped is not None
    assert not stepped.playing


def test_speed() -> None:
    """From a quarter to sixteen times, and no further."""
    playback = Playback(TIMES)
    for _ in range(20):
        playback = playback.handle_key("+") or playback
    assert playback.speed == SPEEDS[-1]
    for _ in range(20):
        playback = playback.handle_key("-") or playback
    assert playback.speed == SPEEDS[0]


def test_other_keys_are_the_views() -> None:
    """They are not swallowed."""
    assert all(Playback(TIMES).handle_key(key) is None for key in ("q", "up", "down", "home", "end", "s", "/", "enter"))


@pytest.mark.parametrize("width", [20, 40, 60, 80, 120, 250])
def test_the_line(width: int, utc: None) -> None:
    """Tells the moment first, whatever the width, and that a file was cut off."""
    playing = playback_line(Playback(TIMES, 2), width)
    assert playing.width <= width
    text = "".join(segment.text for segment in playing.segments)
    if width >= 60:
        assert "00:01:42" in text
        assert "frame 3 of 6" in text
        assert "playing ×1" in text
    end = playback_line(Playback(TIMES, 5, playing=False, cut_off=True), width)
    assert width < 80 or "the end: cut off here" in "".join(segment.text for segment in end.segments)
