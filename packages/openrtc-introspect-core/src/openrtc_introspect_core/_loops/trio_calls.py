"""The calls of a Trio run's instruments, made directly. Loaded only on Trio.

Before and after each step and each wait, Trio asks whether it has instruments for that, and calls them, by functions in
Python that cost several times as much as what the hook does then. While attached, the run has an object in C in their
place, which shares Trio's own table of instruments: it calls the hook if that is the only instrument of this kind, and
else Trio's own function.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from trio._core._instrumentation import INSTRUMENT_LOGGER, Instruments

from .._native import native
from .trio_steps import TrioSteps

if TYPE_CHECKING or native is None:
    TrioCalls = Instruments
else:

    class TrioCalls(native.TrioCalls, Instruments):
        """The instruments of a run, with `in` and `call` in C."""

        def __init__(self, before: Instruments, steps: TrioSteps) -> None:
            self.data = before.data
            self._use(before.data, steps, Instruments.call)

        def call_failed(self, name: str, error: BaseException) -> None:
            """Remove the instrument, which raised no Exception, and log it on the logger that Trio uses for it."""
            for instrument in list(self.data[name]):
                self.remove_instrument(instrument)
                text = "%r of the instrument %r raised an exception: the instrument is removed"
                INSTRUMENT_LOGGER.error(text, name, instrument, exc_info=error)


class DirectCalls:
    """The replacement of a run's instruments while a hook is attached.

    runner: Trio's own object for the run. It stays as it is if it is not as expected.
    """

    def __init__(self, runner: Any, steps: TrioSteps) -> None:
        self._before = getattr(runner, "instruments", None)
        self._calls = direct(self._before, steps)
        if self._calls is not self._before:
            runner.instruments = self._calls

    def put_back(self, runner: Any) -> None:
        """Give the run its own instruments again, unless someone has replaced ours since.

        runner: None if the run is over.
        """
        if runner is not None and getattr(runner, "instruments", None) is self._calls:
            runner.instruments = self._before


def direct(instruments: Any, steps: TrioSteps) -> Any:
    """Return what calls `steps` directly; the same instruments if that is not possible."""
    if native is None or type(instruments) is not Instruments:
        return instruments
    return TrioCalls(instruments, steps)  # type: ignore[arg-type, call-arg]
