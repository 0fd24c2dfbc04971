"""Findings of a worker: all as a report, the worst as a line of the live view."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from openrtc_introspect_core._diagnosis.wait_kind import awaited
from openrtc_top._model.observation import Observation
from openrtc_top._view import quantity
from openrtc_top._view.holder import holder_name
from openrtc_top._view.line import MAX_NAME_WIDTH, Line, clip, fit, visible, wrap
from openrtc_top._view.style import ACCENT, BAD, BOLD, DIM, GOOD, PLAIN, WARN
from openrtc_top._view.unanswered import as_of

if TYPE_CHECKING:
    from rich.style import Style

    from openrtc_introspect_core import Finding
    from openrtc_introspect_core.wire import WaitGroup

WITHIN = "The loop, its sessions, its memory and the host are within their thresholds."
PIPELINE = "If calls still suffer, look at the pipeline: STT, LLM, TTS, the network."
WAITING = "A chat may wait for its user so; if these should get on, look here first."
_STYLES: dict[str, Style] = {"critical": BAD, "warning": WARN, "note": ACCENT}
_INDENT = 15
CROWDED_PCT = 5.0
SHARED = frozenset({"lock", "semaphore", "condition", "event", "queue", "barrier"})
"""The kinds of waits for an object that others may wait for."""
HELD = frozenset({"lock", "semaphore", "condition"})
"""The kinds of waits for what another task has."""


def report(observed: Observation, findings: Sequence[Finding], width: int | None) -> list[Line]:
    """Return a worker's findings, each with its evidence and what to do.

    Lines are wrapped unless `width` is None.
    """
    lines = [_heading(observed, findings, width)]
    if not findings:
        lines += _nothing_found(observed, width)
        if observed.run_delay_pct >= CROWDED_PCT:
            lines += labelled(
                "", "The host is crowded, which alone is no finding: openrtc runbook host-throttled", width
            )
    if observed.snapshots[-1].worker.isolation == "process":
        lines += labelled("", "Each session is a process of its own: what is inside of them is not seen.", width)
    for found in findings:
        lines += _title(found, width)
        lines += labelled("seen", found.seen, width)
        lines += labelled("threshold", found.threshold, width)
        lines += labelled("fix", found.fix, width)
        lines += labelled("runbook", f'openrtc runbook {found.runbook}, "{found.section}"', width)
    return lines if width is None else [line.cropped(width) for line in lines]


def _nothing_found(observed: Observation, width: int | None) -> list[Line]:
    """Return the lines of a worker without a finding: where its sessions wait, if any take no step."""
    if not (places := observed.waiting):
        return [
            *labelled("", f"{WITHIN} {PIPELINE}", width),
            *labelled("runbook", "openrtc runbook nothing-explains-it", width),
        ]
    stuck = sum(group.stuck for group in places)
    number = "1 session takes" if stuck == 1 else f"{stuck:,} sessions take"
    lines = labelled("", f"{WITHIN} But {number} no step. {WAITING}", width)
    for group in places:
        lines += labelled("waiting", _place(group, observed.waits[-1].taken_at), width)
    return lines + labelled("runbook", 'openrtc runbook nothing-moves, "Nothing is found"', width)


def _place(group: WaitGroup, now: float) -> str:
    sessions = "1 session" if group.stuck == 1 else f"{group.stuck:,} sessions"
    at = f" at {group.location}" if group.location else ""
    longest = f", the longest for {quantity.span(1000 * (now - group.since))}" if group.since is not None else ""
    first = next((waiter.session_id for waiter in group.waiters if waiter.session_id is not None), None)
    held = f", held by {holder_name(group.holders[0])}" if group.holders and group.kind in HELD else ""
    one = "one and the same " if group.shared and group.kind in SHARED else ""
    return (
        f"{sessions} for {one}{awaited(group.kind, group.what)}{at}{longest}" + (f": {first}" if first else "") + held
    )


def _heading(observed: Observation, findings: Sequence[Finding], width: int | None) -> Line:
    info = observed.snapshots[-1].worker
    sessions = "1 session" if info.sessions == 1 else f"{info.sessions} sessions"
    parts = [(0, Line(clip(visible(info.name), MAX_NAME_WIDTH), BOLD))]
    if where := observed.host:
        parts.append((1, Line(f"at {clip(visible(where), MAX_NAME_WIDTH)}")))
    parts.append((2, Line(f"· pid {info.pid}")))
    parts.append((1, Line(f"· {sessions}")))
    if observed.frozen is None:
        parts.append((3, Line(f"· watched for {quantity.span(1000 * observed.seconds)}")))
    elif (held := observed.frozen.held) is not None:
        since = time.strftime("%H:%M:%S", time.localtime(held.started_at))
        state = "does not answer" if observed.frozen.blind else f"frozen since {since}"
        parts.append((0, Line("· ").add(state, BAD)))
        parts.append((2, Line(f"· {as_of(observed.frozen.age_s)}", DIM)))
    crowded = observed.run_delay_pct
    if crowded >= CROWDED_PCT:
        parts.append(
            (4, Line("· ").add(f"the host kept it from running for {quantity.percent(crowded)} of that", WARN))
        )
    if not findings:
        parts.append((0, Line("· ").add("nothing found", GOOD)))
    return fit(parts, sum(part.width + 1 for _, part in parts) if width is None else width, gap=1)


def _title(found: Finding, width: int | None) -> list[Line]:
    severity = found.severity.upper()
    text = f"{visible(found.code)}: {visible(found.title)}"
    before = len(severity) + 2
    first, *rest = [text] if width is None else wrap(text, width - before)
    line = Line(" ").add(severity, _STYLES.get(found.severity, PLAIN)).add(" ").add(first, BOLD)
    return [line, *(Line(" " * before).add(more, BOLD) for more in rest)]


def labelled(label: str, text: str, width: int | None) -> list[Line]:
    """Return a text behind its label, wrapped unless `width` is None."""
    text = visible(text)
    wrapped = [text] if width is None else wrap(text, width - _INDENT)
    first = Line(f"    {label:<{_INDENT - 4}}", DIM) if label else Line(" " * 4)
    lines = [first.add(wrapped[0] if wrapped else "")]
    return lines + [Line((" " * _INDENT if label else " " * 4) + more) for more in wrapped[1:]]


def findings_line(findings: Sequence[Finding], width: int, worker: str | None = None) -> list[Line]:
    """Return one line of the worst finding, how many more there are, the runbook.

    There is no line if there is no finding.
    """
    if not findings:
        return []
    worst = findings[0]
    parts = [
        (0, Line(f" {worst.severity.upper()}", _STYLES.get(worst.severity, PLAIN))),
        (0, Line(clip(visible(worst.title), max(20, width - 12)))),
    ]
    if worker is not None:
        parts.insert(1, (3, Line(clip(visible(worker), MAX_NAME_WIDTH))))
    if len(findings) > 1:
        parts.append((1, Line(f"and {len(findings) - 1} more: openrtc diagnose", DIM)))
    parts.append((2, Line(f"openrtc runbook {visible(worst.runbook)}", DIM)))
    return [fit(parts, width)]
