"""The moment at which a replay is, and what its keys do; no I/O, and no clock."""

from __future__ import annotations

import bisect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

SPEEDS = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0)
LEAP_S = 10.0
MAX_WAIT_S = 10.0
"""A longer gap in the recording is cut short: nothing was heard meanwhile."""


@dataclass(frozen=True, slots=True)
class Playback:
    """One moment of a replay of these frames."""

    times: Sequence[float]
    """The moment of each frame, Unix time. There is at least one."""
    frame: int = 0
    playing: bool = True
    speed: float = 1.0
    cut_off: bool = False
    """The recording was cut off: it has no end line."""

    @property
    def at(self) -> float:
        """The moment of this frame, Unix time."""
        return self.times[self.frame]

    @property
    def last(self) -> bool:
        """There is no frame after this one."""
        return self.frame == len(self.times) - 1

    def wait_s(self) -> float | None:
        """Return for how many seconds this frame is shown. None: until a key."""
        if not self.playing or self.last:
            return None
        return min(self.times[self.frame + 1] - self.at, MAX_WAIT_S) / self.speed

    def next(self) -> Playback:
        """Return the replay one frame later; it stops at the last one."""
        after = self._to(self.frame + 1)
        return replace(after, playing=False) if after.last else after

    def handle_key(self, key: str) -> Playback | None:
        """Return the replay after a key. None: the key is not the replay's."""
        action = _KEYS.get(key)
        return action(self) if action else None

    def _to(self, frame: int) -> Playback:
        return replace(self, frame=min(max(frame, 0), len(self.times) - 1))

    def _step(self, by: int) -> Playback:
        return replace(self._to(self.frame + by), playing=False)

    def _leap(self, by_s: float) -> Playback:
        """Go so many seconds forth or back, but at least one frame."""
        frame = bisect.bisect_right(self.times, self.at + by_s) - 1
        return self._to(max(frame, self.frame + 1) if by_s > 0 else min(frame, self.frame - 1))

    def _toggle(self) -> Playback:
        if self.playing or not self.last:
            return replace(self, playing=not self.playing)
        return replace(self._to(0), playing=len(self.times) > 1)  # at the end it starts over

    def _faster(self, by: int) -> Playback:
        place = min(max(SPEEDS.index(self.speed) + by, 0), len(SPEEDS) - 1)
        return replace(self, speed=SPEEDS[place])


_KEYS: dict[str, Callable[[Playback], Playback]] = {
    "left": lambda playback: playback._step(-1),
    "right": lambda playback: playback._step(1),
    "[": lambda playback: playback._leap(-LEAP_S),
    "]": lambda playback: playback._leap(LEAP_S),
    "{": lambda playback: playback._step(-len(playback.times)),
    "}": lambda playback: playback._step(len(playback.times)),
    "space": lambda playback: playback._toggle(),
    "+": lambda playback: playback._faster(1),
    "=": lambda playback: playback._faster(1),
    "-": lambda playback: playback._faster(-1),
}
