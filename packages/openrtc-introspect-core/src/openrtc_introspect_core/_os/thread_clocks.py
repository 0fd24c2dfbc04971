"""The processor time of each thread of the process, read from any thread."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Collection

MAX_THREADS = 256
"""The threads that are read at once. In a process with more, none is: it would take a millisecond."""

_PER_THREAD = 4 | 2
"""The low bits of a Linux clock id: of one thread, the time that it ran."""


def cpu_by_thread(but: Collection[int] = ()) -> dict[int, float]:
    """Return the CPU seconds of the process's threads so far, by thread id, as far as `threading` knows them.

    but: the ids of those that are left out. Empty where a thread's clock is not to be had: elsewhere than on Linux, and
    with more than MAX_THREADS threads. It takes no lock, and half a microsecond a thread.
    """
    threads: dict[int, threading.Thread] = vars(threading).get("_active", {})
    if sys.platform != "linux" or len(threads) > MAX_THREADS:
        return {}
    found = {}
    for thread_id, thread in list(threads.items()):
        native_id = thread.native_id
        if native_id is not None and thread_id not in but:
            try:
                # By its number in the kernel: the clock that pthread_getcpuclockid returns cannot be asked for safely
                # once a thread has ended.
                found[thread_id] = time.clock_gettime(~native_id << 3 | _PER_THREAD)
            except OSError:  # it has ended
                continue
    return found


def name_of_thread(thread_id: int) -> str:
    """Return a thread's name; "" if it has ended."""
    thread = vars(threading).get("_active", {}).get(thread_id)
    return thread.name if thread is not None else ""
