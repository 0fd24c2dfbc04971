"""The time that one session was seen waiting, by what it waited for.

Samples say what a session's tasks wait for (`_waits/wait_sampler`). Between two samples the session has run, others'
blocks have delayed it, and the rest it has waited. Each sample divides that rest: while the session took no step, the
answer of the sample before held; the time since then is the new answer's, as if it had been so all along. That is exact
for waits that last from sample to sample, and a fair estimate for shorter ones, since samples come at random moments.
"""

from __future__ import annotations

import struct

from msgspec import Struct

_PAIR = struct.Struct("=Bd")
"""The number of a kind, and seconds."""


# gc=False: ten thousand of them, made within seconds, would set off collections of the host's whole heap. Numbers make
# no cycles; nor do bytes, which take less memory than a dictionary.
class WaitedTime(Struct, gc=False, eq=False):
    """The waits of one session. The service thread writes them."""

    at: float
    """Clock reading of the last sample; of the session's start, if there was none."""
    kinds: bytes = b""
    """The numbers of the kinds that its tasks were last seen waiting for, one for each task; first that of the task
    that stepped last. Empty: none was seen."""
    _steps: int = -1
    """The session's steps at the last sample; -1: its answer may not hold until the next step."""
    _last_step: float = 0.0
    """Clock reading of the session's last step then."""
    _charged: float = 0.0
    """The seconds until then for which the session had neither run nor been delayed: each is charged once."""
    _busy: int = 0
    """How many samples in a row have found the session busy."""
    _pairs: bytes = b""
    """The seconds charged so far, by kind."""

    def holds(self, steps: int, last_step: float) -> bool:
        """Return whether the session has taken no step since the last sample, so that its answer still holds."""
        return self._steps == steps and self._last_step == last_step

    def see(
        self, kinds: bytes, now: float, rest: float, *, steps: int, last_step: float, passed: float, final: bool
    ) -> None:
        """Take a sample of `now`, and charge the time since the one before.

        rest: seconds for which the session has neither run nor been delayed, since its start. passed: clock reading of
        the round of samples before this one. final: False if what the tasks wait for may change without a step.
        """
        since = max(0.0, rest - self._charged)
        if self._steps < 0:
            earlier = 0.0
        elif steps - self._steps == 1:  # its only step ended the earlier wait and began this one
            earlier = since - min(since, max(0.0, now - last_step))
        else:
            earlier = min(since, max(0.0, passed - self.at))
        charged = self._seconds()
        _share(charged, self.kinds, earlier)
        _share(charged, kinds, since - earlier)
        self._pairs = b"".join(_PAIR.pack(kind, seconds) for kind, seconds in charged.items())
        self._steps, self._last_step = steps if final else -1, last_step
        self.at, self._charged, self.kinds = now, max(rest, self._charged), kinds

    def missed(self) -> None:
        """Take note that there was nothing to sample: the next sample speaks for all the time since the last one."""
        self._steps = -1

    def count_busy(self, busy: bool) -> int:
        """Return how many samples in a row, up to this one, have found the session busy."""
        self._busy = self._busy + 1 if busy else 0
        return self._busy

    def seconds(self, rest: float, until: float) -> dict[int, float]:
        """Return the seconds by kind.

        They include the time since the last sample until the clock reading `until`, for which its answer held.
        """
        found = self._seconds()
        _share(found, self.kinds, min(max(0.0, rest - self._charged), max(0.0, until - self.at)))
        return found

    def _seconds(self) -> dict[int, float]:
        return dict(_PAIR.iter_unpack(self._pairs))


def _share(charged: dict[int, float], kinds: bytes, seconds: float) -> None:
    """Charge seconds to these kinds, an equal share to each task."""
    for kind in kinds if seconds else ():
        charged[kind] = charged.get(kind, 0.0) + seconds / len(kinds)
