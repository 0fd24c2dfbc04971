"""An Introspector on each event loop of a process, from the loop's first task to its end.

The testing package's own watcher attaches to the loops of one test and lets go after it. Here a loop is let go of when
it ends, as in a worker that is introspected for as long as it runs.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from openrtc_introspect_core import Introspector
from openrtc_introspect_core._running_loop import Loop
from openrtc_introspect_testing._watch import Watch, Watcher


class EveryLoop(Watcher):
    """A context manager: the testing package's way to see loops begin, with a host's Introspector for each of them.

    It logs nothing, since tests count the records that they catch, and keeps no loop alive that has ended.
    `faults` has what kept loops from being attached to, or let go of.
    """

    def __init__(self) -> None:
        super().__init__(threshold_ms=1e6, root=Path.cwd())
        self._introspectors: dict[Loop, Introspector] = {}

    def __enter__(self) -> EveryLoop:
        self._patch.setattr(logging.getLogger("openrtc.introspect"), "disabled", True)
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        for loop in tuple(self._introspectors):  # it was abandoned, or is a run's that crashed
            self._let_go(loop)
        super().__exit__(*error)

    def _let_go(self, loop: Loop) -> None:
        self._by_loop.pop(loop, None)
        introspector = self._introspectors.pop(loop, None)
        if introspector is not None:
            try:
                introspector.close()
            except Exception as error:
                self.faults.append(f"close: {error!r}")

    def _attach(self, watch: Watch, loop: Loop) -> None:
        introspector = Introspector(name="suites", socket_path=False)
        introspector.attach(loop)
        self.loops += 1
        self._by_loop[loop] = watch  # the watcher's record of what it has seen
        self._introspectors[loop] = introspector

    def _see_trio(self) -> None:
        from trio._core._run import Runner

        super()._see_trio()
        close = Runner.close

        def let_go_afterwards(runner: Runner) -> None:
            close(runner)
            if runner.trio_token is not None:
                self._let_go(runner.trio_token)

        self._patch.setattr(Runner, "close", let_go_afterwards)
