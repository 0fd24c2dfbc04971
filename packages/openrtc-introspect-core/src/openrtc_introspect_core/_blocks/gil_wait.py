"""The wait for the GIL after a sleep of the watchdog: what it says of the code that had it.

A thread that wants the GIL waits for 5 ms at a time. After the first of these waits it asks for the GIL, and Python
code gives it away at once. So a wait tells code apart:

- the GIL was there without a wait, or nearly: it was free;
- about 5 ms: Python code had it;
- more than half as much again: C code kept it, or several threads of Python code pass it around, and this one waits for
  its turn. Then it waits more often than every 5 ms, as it wakes and finds the GIL taken. The meter in C reads how
  often the GIL has changed hands: more than once, and at least every 10 ms.

On a busy machine a wait has other parts. The watchdog may have had to wait for a processor, and its run delay is taken
off. But the GIL may have been kept for all that time as well. So each further wait of 5 ms that has run out counts
in any case: Python code would have given the GIL away by then, if it ran. The kernel counts how often a thread waits.

The meter in C measures the wait itself (watch.c). In Python it is the lateness of the end of the sleep. Reading the run
delay gives the GIL away, so it is read only after a long wait, when the sample has been taken.
"""

from __future__ import annotations

import time

from .._base.clock import perf_counter
from .._native import native
from .._os.thread_usage import ThreadUsage
from .stall_samples import MAX_FREE_GIL_WAIT_S, STARVED_S

SWITCH_S = 0.005
"""Seconds after which a thread that waits for the GIL asks for it: Python's own default (sys.getswitchinterval)."""

OTHERS_HAD_IT_S = 0.003
"""Seconds that stand for a short wait in which others had the GIL: it was neither free nor kept."""

MIN_PAUSE_S = 1e-4
"""Seconds. Without a pause, a tick would not see whether the GIL is kept."""

try:
    from resource import RUSAGE_THREAD, getrusage  # Linux
except ImportError:

    def waits_so_far() -> int | None:
        """Return how often this thread has waited for something so far. None: it is not known."""
        return None

else:

    def waits_so_far() -> int | None:
        """Return how often this thread has waited for something so far. None: it is not known."""
        return getrusage(RUSAGE_THREAD).ru_nvcsw


class GilWait:
    """The latest wait of the watchdog's thread. Used on that thread.

    own: the usage of the thread.
    """

    def __init__(self, own: ThreadUsage) -> None:
        self._own = own
        self._delay_before = own.run_delay_s()
        self._ended = perf_counter()
        """When the wait before ended. Clock reading."""
        self._run_delay_s: float | None = 0.0
        """The part of the latest wait that was a run delay. None: it was not read."""
        self._max_run_delay_s = 0.0
        self.passed = False
        """Whether other threads passed the GIL around in the latest wait."""

    def sleep_until(self, due: float) -> float:
        """Sleep until the clock reads `due`, at least for a moment.

        Return for how many seconds the GIL was waited for.
        """
        now = perf_counter()
        late = now - max(due, self._ended)
        if late >= STARVED_S:  # it was kept while this thread woke, or was at work
            self._take_note(late, None, passed=False)
            return late
        if native is not None:
            waited, run_delay_s, passed = native.pause_watchdog(due - now, self._own.schedstat)
            self.noticed(waited, run_delay_s, passed)
            return waited  # type: ignore[no-any-return]
        due = max(due, now + MIN_PAUSE_S)
        before = waits_so_far()
        # Waiting for an event instead would cost a tick half as much again.
        time.sleep(due - now)
        late, after = perf_counter() - due, waits_so_far()
        waits = after - before - 1 if after is not None and before is not None else 1  # without the sleep itself
        self._take_note(late - SWITCH_S * max(0, waits - 1), None, passed=waits > late / SWITCH_S + 2.5)
        if waits > 0 and late < MAX_FREE_GIL_WAIT_S:
            return late if waits < 2 else OTHERS_HAD_IT_S
        return late if waits > 0 else 0.0

    def noticed(self, waited: float, run_delay_s: float, passed: bool) -> None:
        """Take note of a wait that C has made."""
        self._take_note(waited, run_delay_s, passed=passed)
        self.count_from_now()

    def run_delay(self) -> float:
        """Return how many seconds of the latest wait were a run delay. In Python, this gives the GIL away."""
        if self._run_delay_s is None:
            before = self._delay_before
            self.count_from_now()
            self._run_delay_s = max(0.0, min(self._delay_before - before, self._max_run_delay_s))
        return self._run_delay_s

    def count_from_now(self) -> None:
        """Take the run delay so far for that of earlier waits. In Python, this gives the GIL away."""
        self._delay_before = self._own.run_delay_s()

    def _take_note(self, max_run_delay_s: float, run_delay_s: float | None, *, passed: bool) -> None:
        self.passed = passed
        self._ended, self._max_run_delay_s, self._run_delay_s = perf_counter(), max_run_delay_s, run_delay_s
