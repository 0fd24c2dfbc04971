"""The line of a block: where the loop's thread was for most of it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from operator import itemgetter
from typing import NamedTuple

from .._os.stacks import AwaitingCall, Call, Calls, CompiledCall, Places
from ..wire._messages import Location
from .stall_samples import MAJORITY, StallSamples

Line = tuple[str, int, str]
"""(file, line, function)."""


class Located(NamedTuple):
    """Where a block was."""

    location: Location | None = None
    """None: no line is known."""
    stack: Sequence[Location] = ()
    detail: str | None = None
    """What there is to say of a line, or of none, in English."""


def locate(stall: StallSamples, places: Places) -> Located:
    """Return the line at which the loop's thread was for most of the time, and a stack with it.

    The line is in the user's own code if a sample found one there. If most of the time was not seen: the last line that
    was. None: no line was seen, or what ran for most of the time was compiled code that shows none.
    """
    seen = stall.places
    if stall.latest is not None and _mostly_unseen(stall):
        seen = {stall.latest: 1.0}
    seconds: dict[Line, float] = {}
    longest: dict[Line, tuple[float, Calls]] = {}
    for (calls, _), each in seen.items():
        call = places.innermost(calls) or next(iter(calls), None)
        if call is not None:
            line = call[:3]
            seconds[line] = seconds.get(line, 0.0) + each
            longest[line] = max(longest.get(line, (-1.0, ())), (each, calls), key=itemgetter(0))
    if not seconds:
        return Located()
    calls = longest[max(seconds, key=seconds.__getitem__)][1]
    call = places.innermost(calls)
    location = places.location(call) if call is not None else None
    awaiting = {calls[0][:3] for calls, _ in seen if calls and type(calls[0]) is AwaitingCall}
    return Located(location, places.stack(calls), _of_compiled(calls, call, places, awaiting))


def _of_compiled(calls: Calls, shown: Call | None, places: Places, awaiting: Collection[Line]) -> str | None:
    """Return what is to be said of compiled code that ran, or None.

    shown: the call whose line is given. awaiting: the lines that were seen awaiting it; samples without the GIL do not
    show that.
    """
    innermost = calls[0]
    if shown is None:
        return f"in compiled code of {innermost.function}" if innermost.function else None
    if innermost[:3] in awaiting:
        return f"in compiled code called from {places.location(innermost)}"
    if type(shown) is CompiledCall:
        return "in compiled code: the line is the one where the function begins"
    return None


def describe_unseen(stall: StallSamples | None) -> str | None:
    """Return for how long a block was seen, if its line was not seen for most of it; else None."""
    if stall is None or not _mostly_unseen(stall):
        return None
    if stall.latest is None:
        return "C code kept the GIL until the line could no longer be seen"
    duration = stall.until - stall.since
    seen = f"seen for {_span(duration - stall.unseen_s)} of {_span(duration)}"
    return f"{seen}; then C code kept the GIL, at or after this line"


def _mostly_unseen(stall: StallSamples) -> bool:
    """Return whether nobody could see most of the span, as the GIL was kept."""
    return stall.unseen_s >= MAJORITY * (stall.until - stall.since)


def _span(seconds: float) -> str:
    return f"{1000 * seconds:.0f} ms" if seconds < 0.9995 else f"{seconds:.1f} s"
