"""What is wrong with a worker: all of it as a report, and the worst of it as one line of the live view."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

from openrtc_top._view import quantity
from openrtc_top._view.line import NAME_MOST, Line, clip, fit, visible
from openrtc_top._view.style import ACCENT, BAD, BOLD, DIM, GOOD, PLAIN, WARN

if TYPE_CHECKING:
    from rich.style import Style

    from openrtc_introspect_core import Finding
    from openrtc_top._watching import Watched

PIPELINE = (
    "The loop, its sessions, its memory and the host are within their thresholds. Where calls still suffer, "
    "look at the pipeline: STT, LLM, TTS, the network."
)
_STYLES: dict[str, Style] = {"critical": BAD, "warning": WARN, "note": ACCENT}
_INDENT = 15
CROWDED_PCT = 5.0


def report(watched: Watched, findings: Sequence[Finding], width: int | None) -> list[Line]:
    """A worker's findings, each with its evidence and what to do. Lines are wrapped; not if `width` is None."""
    lines = [_heading(watched, findings, width)]
    if not findings:
        lines += _told("", PIPELINE, width)
        lines += _told("runbook", "openrtc runbook nothing-explains-it", width)
        if watched.not_let_run_pct >= CROWDED_PCT:
            lines += _told("", "The host is crowded, which is no finding yet: openrtc runbook host-throttled", width)
    for found in findings:
        lines += _title(found, width)
        lines += _told("seen", found.seen, width)
        lines += _told("threshold", found.threshold, width)
        lines += _told("fix", found.fix, width)
        lines += _told("runbook", f'openrtc runbook {found.runbook}, "{found.section}"', width)
    return lines if width is None else [line.cropped(width) for line in lines]


def _heading(watched: Watched, findings: Sequence[Finding], width: int | None) -> Line:
    info = watched.snapshots[-1].worker
    sessions = "1 session" if info.sessions == 1 else f"{info.sessions} sessions"
    parts = [(0, Line(clip(visible(info.name), NAME_MOST), BOLD)), (2, Line(f"· pid {info.pid}"))]
    parts += [(1, Line(f"· {sessions}")), (3, Line(f"· watched for {quantity.span(1000 * watched.seconds)}"))]
    crowded = watched.not_let_run_pct
    if crowded >= CROWDED_PCT:
        parts.append((4, Line("· ").add(f"the host did not let it run for {quantity.percent(crowded)} of that", WARN)))
    if not findings:
        parts.append((0, Line("· ").add("nothing found", GOOD)))
    return fit(parts, sum(part.width + 1 for _, part in parts) if width is None else width, gap=1)


def _title(found: Finding, width: int | None) -> list[Line]:
    severity = found.severity.upper()
    text = f"{visible(found.code)}: {visible(found.title)}"
    before = len(severity) + 2
    first, *rest = [text] if width is None else textwrap.wrap(text, max(20, width - before))
    line = Line(" ").add(severity, _STYLES.get(found.severity, PLAIN)).add(" ").add(first, BOLD)
    return [line, *(Line(" " * before).add(more, BOLD) for more in rest)]


def _told(name: str, text: str, width: int | None) -> list[Line]:
    text = visible(text)
    wrapped = [text] if width is None else textwrap.wrap(text, max(20, width - _INDENT))
    first = Line(f"    {name:<{_INDENT - 4}}", DIM) if name else Line(" " * 4)
    lines = [first.add(wrapped[0] if wrapped else "")]
    return lines + [Line((" " * _INDENT if name else " " * 4) + more) for more in wrapped[1:]]


def findings_line(findings: Sequence[Finding], width: int, worker: str | None = None) -> list[Line]:
    """The worst one, how many more there are, and where to read on; no line where there is none."""
    if not findings:
        return []
    worst = findings[0]
    parts = [
        (0, Line(f" {worst.severity.upper()}", _STYLES.get(worst.severity, PLAIN))),
        (0, Line(clip(visible(worst.title), max(20, width - 12)))),
    ]
    if worker is not None:
        parts.insert(1, (3, Line(clip(visible(worker), NAME_MOST))))
    if len(findings) > 1:
        parts.append((1, Line(f"and {len(findings) - 1} more: openrtc diagnose", DIM)))
    parts.append((2, Line(f"openrtc runbook {visible(worst.runbook)}", DIM)))
    return [fit(parts, width)]
