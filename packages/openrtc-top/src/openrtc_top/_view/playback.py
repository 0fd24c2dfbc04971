"""The line below a replay: the recorded moment, and the keys that move it."""

from __future__ import annotations

import time

from openrtc_top._model.playback import Playback
from openrtc_top._view.line import Line, fit
from openrtc_top._view.style import BOLD, DIM, HEADING

_HINTS = (("←→", "frame"), ("space", "play"), ("[ ]", "10 s"), ("+ -", "speed"), ("{ }", "ends"))
_BAR = 20


def playback_line(playback: Playback, width: int) -> Line:
    """Return the line in at most so many cells."""
    count = len(playback.times)
    state = f"playing ×{playback.speed:g}" if playback.playing else "stopped"
    if playback.last:
        state = "the end: cut off here" if playback.cut_off else "the end"
    filled = round(_BAR * playback.frame / max(1, count - 1))
    where = Line(" REPLAY ", HEADING).add(time.strftime("%Y-%m-%d ", time.localtime(playback.at)), DIM)
    where.add(time.strftime("%H:%M:%S", time.localtime(playback.at)), BOLD)
    parts = [
        (0, where),
        (0, Line(f"frame {playback.frame + 1} of {count}")),
        (0, Line(state, BOLD)),
        (6, Line("█" * filled + "·" * (_BAR - filled), DIM)),
    ]
    hints = [(rank, Line(key, HEADING).add(f" {word}")) for rank, (key, word) in enumerate(_HINTS, start=1)]
    return fit([*parts, *hints], width)
