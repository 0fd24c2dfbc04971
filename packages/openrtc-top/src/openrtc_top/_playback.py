"""Where a replay stands, and what its keys do; no I/O, and no clock."""

from __future__ import annotations

import bisect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

SPEEDS = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0)
LEAP_S = 10.0
LONGEST_WAIT_S = 10.0
"""After a longer gap in the recording it goes on: nothing was heard meanwhile."""


@dataclass(frozen=True, slots=True)
class Playback:
    """One moment of a replay of these frames."""

    times: Sequence[float]
    """The moment of each frame, Unix time. There is at least one."""
    frame: int = 0
    playing: bool = True
    speed: float = 1.0
    cut_off: bool = False
    """The recording has no proper end."""

    @property
    def at(self) -> float:
        return self.times[self.frame]

    @property
    def last(self) -> bool:
        """There is no frame after this one."""
        return self.frame == len(self.times) - 1

    def wait_s(self) -> float | None:
        """How long this frame is shown. None: until a key."""
        if not self.playing or self.last:
            return None
        return min(self.times[self.frame + 1] - self.at, LONGEST_WAIT_S) / self.speed

    def next(self) -> Playback:
        """The frame after this one; the last one stops."""
        after = self._to(self.frame + 1)
        return replace(after, playing=False) if after.last else after

    def press(self, key: str) -> Playback | None:
        """After a key. None: the key is not the replay's."""
        action = _KEYS.get(key)
        return action(self) if action else None

    def _to(self, frame: int) -> Playback:
        return replace(self, frame=min(max(frame, 0), len(self.times) - 1))

    def _step(self, by: int) -> Playback:
        return replace(self._to(self.frame + by), playing=False)

    def _leap(self, by_s: float) -> Playback:
        """To the frame that was current so many seconds later or earlier, but at least one frame on."""
        frame = bisect.bisect_right(self.times, self.at + by_s) - 1
        return self._to(max(frame, self.frame + 1) if by_s > 0 else min(frame, self.frame - 1))

    def _toggle(self) -> Playback:
        if self.playing or not self.last:
            return replace(self, playing=not self.playing)
        return replace(self._to(0), playing=len(self.times) > 1)  # from the end, it begins again

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
