"""The report about a worker that died, from its black box."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from msgspec import structs

from openrtc_introspect_core._diagnosis.memory_limits import POOL, own_limit
from openrtc_top._model.blocks import entries
from openrtc_top._view import blocks, quantity
from openrtc_top._view.findings import labelled
from openrtc_top._view.line import MAX_NAME_WIDTH, Line, clip, fit, visible
from openrtc_top._view.place import place
from openrtc_top._view.style import BAD, BOLD, DIM
from openrtc_top._view.unanswered import blindness, holder

if TYPE_CHECKING:
    from openrtc_introspect_core.wire import Block
    from openrtc_top._model.box_reading import BoxReading

_MAX_SESSIONS = 5
_MAX_BLOCKS = 5
_NEAR = 0.9
"""The part of a control group's limit above which it is likely that the kernel killed the worker."""
_DAY_S = 86400.0
_WIDE = 10_000


def report(reading: BoxReading, name: str, width: int | None) -> list[Line]:
    """Return what is known of the worker's end. Lines are wrapped, or cut, unless `width` is None."""
    lines = [_heading(reading, name, width), *labelled("died", _died(reading), width)]
    held = reading.snapshot.blocks_in_progress
    if not held:
        lines += labelled("loop", _not_held(reading), width)
    for block in sorted(held, key=lambda block: -block.duration_ms):
        last = f"; that was its last look: {blindness(reading)}" if reading.blind else ""
        lines += labelled("held by", _held(block) + last, width)
        lines += blocks.stack(block, width)
    lines += labelled("memory", _memory(reading), width)
    lines += labelled("sessions", _sessions(reading), width)
    lines += _blocks(reading, width)
    return lines if width is None else [line.cropped(width) for line in lines]


def _heading(reading: BoxReading, name: str, width: int | None) -> Line:
    ran = quantity.uptime(max(0.0, reading.at - reading.started_at))
    parts = [
        (0, Line(clip(visible(name), MAX_NAME_WIDTH), BOLD)),
        (1, Line(f"· pid {reading.pid}")),
        (0, Line("· ").add(f"died {quantity.ago(reading.now - reading.at)} ago", BAD)),
        (2, Line(f"· ran for {ran}")),
    ]
    return fit(parts, _WIDE if width is None else width, gap=1)


def _died(reading: BoxReading) -> str:
    """Return when it died. That is known to the time between its last record and the reading."""
    form = "%H:%M:%S" if reading.now - reading.at < _DAY_S / 2 else "%Y-%m-%d %H:%M:%S"
    after, before = (time.strftime(form, time.localtime(moment)) for moment in (reading.at, reading.now))
    told = f"between {after}, when it wrote its last record, and {before}, now"
    if reading.snapshot.worker.sessions and not reading.snapshot.blocks_in_progress:
        told += "; with sessions it writes one each second or so"
    return told


def _held(block: Block) -> str:
    who = ", ".join(visible(text) for text in (block.agent_name, block.tenant) if text)
    text = (
        (holder(block) or "no session that is known")
        + (f" ({who})" if who else "")
        + (f" on the loop {visible(block.loop)}" if block.loop else "")
    )
    text += f" for {quantity.span(block.duration_ms)}"
    text += f", since {time.strftime('%H:%M:%S', time.localtime(block.started_at))}"
    text += f", at {place(block.location, _WIDE)}" if block.location else ""
    return text + (f" ({visible(block.cause)})" if block.cause else "")


def _not_held(reading: BoxReading) -> str:
    states = {loop.state for loop in reading.loops}
    if reading.blind:
        if reading.recorded:
            return f"not held at its last record, and not known since then: {blindness(reading)}"
        return "not known: there is no record of it"
    if states == {"quiet"}:
        return "idle at its last record: it waited for something to happen"
    return "ran short steps until its last record, none of which held it for long"


def _memory(reading: BoxReading) -> str:
    limit = own_limit(structs.replace(reading.snapshot.worker, rss_mb=reading.rss_mb))
    trend = reading.trend_mb_per_min
    text = quantity.size(reading.rss_mb)
    if limit is None:
        text += ", no limit known"
    elif limit.name == POOL:
        text += f" of {quantity.size(limit.limit_mb)}"
    else:
        text += f", {quantity.size(limit.used_mb)} of the {limit.name} of {quantity.size(limit.limit_mb)}"
        if max(limit.used_mb, reading.rss_mb) >= _NEAR * limit.limit_mb:  # the limit's count is up to two seconds older
            text += " (where the kernel kills: exit code 137, OOMKilled)"
    return f"{text}, {f'trend {quantity.UNKNOWN}' if trend is None else quantity.trend(trend)}"


def _sessions(reading: BoxReading) -> str:
    if not reading.recorded:
        return "not known: it died before it wrote them down"
    rows = [row for row in reading.snapshot.sessions if row.status != "errored"]
    count = max(reading.snapshot.worker.sessions, len(rows))
    if not count:
        return "none died with it"
    by_time = sorted(rows, key=lambda row: (-(row.cpu_s or 0.0), row.session_id))[:_MAX_SESSIONS]
    named = [
        clip(visible(row.session_id), 40) + ("" if row.cpu_s is None else f" {quantity.number(row.cpu_s)} s")
        for row in by_time
    ]
    more = f", and {count - len(named)} more" if count > len(named) else ""
    return f"{count} died with it; by loop time: {', '.join(named)}{more}"


def _blocks(reading: BoxReading, width: int | None) -> list[Line]:
    if not reading.blocks:
        return labelled("blocks", "none that it remembered", width)
    last = entries("", reading.worker, reading.blocks[-_MAX_BLOCKS:], None)
    form = blocks.columns(last, width, workers=False)
    title = Line(f"    {'blocks':<11}", DIM).add(f"the last {len(last)}" if len(last) > 1 else "the last one")
    return [title, blocks.heading(form), *(blocks.row(entry, form) for entry in last)]
