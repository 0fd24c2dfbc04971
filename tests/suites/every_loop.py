"""Attach an Introspector to each event loop of a process, from the loop's first task to its end.

The testing package's own watcher attaches to the loops of one test, and detaches after it. Here an Introspector stays
attached until its loop ends, as in a worker that is introspected for as long as it runs.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from openrtc_introspect_core import Introspector
from openrtc_introspect_core._base.import_hook import WhenImported
from openrtc_introspect_core._loops.running_loop import Loop
from openrtc_introspect_testing._suite.loop_attacher import LoopAttacher
from openrtc_introspect_testing._suite.loop_monitor import LoopMonitor


class EveryLoop(LoopAttacher):
    """A context manager that detects loops as the testing package does, and attaches an Introspector to each.

    It logs nothing, since tests count the records that they catch, and keeps no ended loop alive. `faults` lists the
    errors of attaching and detaching.
    """

    def __init__(self) -> None:
        super().__init__(threshold_ms=1e6, root=Path.cwd())
        self._introspectors: dict[Loop, Introspector] = {}
        self._when_imported = WhenImported("trio", self._see_ends_of_runs)

    def __enter__(self) -> EveryLoop:
        self._patch.setattr(logging.getLogger("openrtc.introspect"), "disabled", True)
        super().__enter__()
        self._when_imported.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        for loop in tuple(self._introspectors):  # abandoned, or of a run that crashed
            self._detach(loop)
        self._when_imported.__exit__()
        super().__exit__(*error)

    def _detach(self, loop: Loop) -> None:
        self._by_loop.pop(loop, None)
        introspector = self._introspectors.pop(loop, None)
        if introspector is not None:
            try:
                introspector.close()
            except Exception as error:
                self.faults.append(f"close: {error!r}")

    def _attach(self, monitor: LoopMonitor, loop: Loop) -> None:
        introspector = Introspector(name="suites", socket_path=False)
        introspector.attach(loop)
        self.loops += 1
        self._by_loop[loop] = monitor  # the watcher's record of known loops
        self._introspectors[loop] = introspector

    def _see_ends_of_runs(self) -> None:
        from trio._core._run import Runner

        close = Runner.close

        def close_and_detach(runner: Runner) -> None:
            close(runner)
            if runner.trio_token is not None:
                self._detach(runner.trio_token)

        self._patch.setattr(Runner, "close", close_and_detach)
