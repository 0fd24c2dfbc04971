"""Lines about workers that do not answer: one that is frozen, one that died."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING

from openrtc_top._model.workers import worker_label
from openrtc_top._view import quantity
from openrtc_top._view.line import MAX_NAME_WIDTH, Line, cells, clip, fit, visible
from openrtc_top._view.place import place
from openrtc_top._view.style import DIM, PLAIN

if TYPE_CHECKING:
    from rich.style import Style

    from openrtc_introspect_core.wire import Block
    from openrtc_top._model.box_reading import BoxReading, DeadHere

_WIDE = 10_000
"""The width of a line that is not cut."""


def as_of(age_s: float) -> str:
    """Return the words for the age of what is shown."""
    return f"as of {quantity.ago(age_s)} ago"


def holder(block: Block) -> str | None:
    """Return who holds the loop: a session, else a task. None: that is not known, or it is no task."""
    if block.session_id is not None:
        return clip(visible(block.session_id), 40)
    return f"task {clip(visible(block.task_name), 40)}" if block.task_name else None


def blindness(reading: BoxReading) -> str:
    """Return why no later look is known of a worker whose reading is blind."""
    can = ", and the meter in C can" if reading.snapshot.worker.meter == "Python" else ""
    return f"no thread of it can look while C code keeps the GIL{can}"


def frozen_line(name: str, reading: BoxReading) -> str:
    """Return what is known of a worker that does not answer, in one line."""
    held = reading.held
    about = f"{clip(visible(name), MAX_NAME_WIDTH)} pid {reading.pid} does not answer"
    told = f"the rest is {as_of(reading.age_s)}" if reading.recorded else "nothing else is known of it"
    if held is None:
        blind = f": {blindness(reading)}" if reading.blind and reading.recorded else ""
        return f"{about}: its black box says no more than what it did{blind}; {told}"
    where = f" at {place(held.location, _WIDE)}" if held.location else ""
    cause = f" ({visible(held.cause)})" if held.cause else ""
    who = holder(held)
    if reading.blind:
        held_it = "its loop had been held" if who is None else f"{who} had held the loop"
        lasted = f"for {quantity.span(held.duration_ms)}{where}{cause}"
        return f"{about}: {held_it} {lasted} at the last look, {quantity.ago(reading.age_s)} ago: {blindness(reading)}"
    holds = "its loop has been held" if who is None else f"{who} has held the loop"
    return f"{about}: {holds} for {quantity.span(held.duration_ms)}{where}{cause}; {told}"


def dead_line(dead: DeadHere, width: int = _WIDE, style: Style = PLAIN) -> Line:
    """Return what a worker died of, in one line of at most so many cells."""
    worker = dead.worker
    name = clip(visible(worker_label(dead.host, _with_user(worker.name, worker.user))), MAX_NAME_WIDTH)
    parts = [(0, Line(name, style))]
    if worker.pid is not None:
        parts.append((3, Line(f"pid {worker.pid}", style)))
    if worker.error is not None:
        return fit([*parts, (0, Line(f"left no word: {visible(worker.error)}", style))], width, 1)
    parts.append((0, Line(f"died {quantity.ago(worker.age_s)} ago", style)))
    held = worker.held
    if held is not None:
        who = holder(held)
        parts.append((0, Line("while its loop was held" if who is None else f"while {who} held the loop", style)))
        parts.append((2, Line(f"for {quantity.span(held.duration_ms)}", style)))
        if held.location is not None:
            parts.append((1, Line(f"at {place(held.location, max(24, width // 3))}", style)))
    line = fit(parts, width, 1)
    hint = f": {_postmortem([dead])} {visible(shlex.quote(worker.name))}"
    return line.add(hint, style) if line.width + cells(hint) <= width else line


def dead_lines(dead: Sequence[DeadHere], limit: int, width: int = _WIDE) -> list[Line]:
    """Return a quiet line for each worker that died, in at most so many lines."""
    if len(dead) > 1 and limit == 1:
        latest = quantity.ago(dead[0].worker.age_s)
        text = f"{len(dead)} workers died, the last one {latest} ago: {_postmortem(dead)}"
        return [Line(text, DIM).cropped(width)]
    shown = dead if len(dead) <= limit else dead[: limit - 1]
    lines = [dead_line(each, width, DIM) for each in shown]
    if len(shown) < len(dead):
        more = f"… and {len(dead) - len(shown)} more that died: {_postmortem(dead[len(shown) :])}"
        lines.append(Line(more, DIM).cropped(width))
    return lines


def _postmortem(dead: Sequence[DeadHere]) -> str:
    """Return the command that says what they died of. Of several hosts it says that there is a `--via` for each."""
    vias = {each.via for each in dead}
    via = vias.pop() if len(vias) == 1 else "…"
    if via is not None:
        return f"openrtc postmortem --via {via if via == '…' else visible(shlex.quote(via))}"
    return "openrtc postmortem --all-users" if any(each.worker.user for each in dead) else "openrtc postmortem"


def _with_user(name: str, user: str | None) -> str:
    return name if user is None else worker_label(user, name)
