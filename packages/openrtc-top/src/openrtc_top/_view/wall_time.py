"""The parts of a session's wall time, in one or two lines."""

from __future__ import annotations

from typing import TYPE_CHECKING

from openrtc_top._view import quantity
from openrtc_top._view.holder import noun
from openrtc_top._view.line import Line, with_label

if TYPE_CHECKING:
    from openrtc_introspect_core.wire import WallTime

_INDENT = 1
_LEAST = 0.001
"""Waits of less than this share of the time are not listed."""


def wall_time_lines(time: WallTime | None, width: int | None) -> list[Line]:
    """Return the parts of the time, wrapped unless `width` is None; none if it was not measured.

    `~` stands before parts that are sampled.
    """
    if time is None or time.total_s <= 0.0:
        return []
    parts = [_part("running", time.running_s, time)]
    if time.delayed_s is not None:
        parts.append(_part("delayed by others", time.delayed_s, time))
    sampled = [("queued for a thread", time.queued_s), ("in threads", time.in_threads_s)]
    sampled += [(f"waiting for {noun(each.kind)}", each.seconds) for each in time.waited]
    parts += [_part(name, seconds, time, "~") for name, seconds in sampled if seconds >= _LEAST * time.total_s]
    if time.unknown_s >= _LEAST * time.total_s:
        parts.append(_part("not known", time.unknown_s, time))
    text = f"of {quantity.clock(time.total_s)}: {', '.join(parts)}"
    return with_label("time", text, width, _INDENT)


def _part(name: str, seconds: float, time: WallTime, mark: str = "") -> str:
    share = 100.0 * seconds / time.total_s
    text = f"{share:.0f}" if share >= 9.95 or share < 0.05 else f"{share:.1f}"
    return f"{name} {mark}{text} %"
