"""From a short series of snapshots and the blocks around it to what is wrong with a worker.

Pure: no clock, no I/O. The rules are in `_rules`, docs/diagnosis.md explains them.
"""

from __future__ import annotations

from collections.abc import Iterable

from ._evidence import Evidence
from ._finding import SEVERITIES, Finding
from ._rules import RULES
from .wire._messages import Block, Snapshot


def diagnose(snapshots: Iterable[Snapshot], blocks: Iterable[Block] = ()) -> list[Finding]:
    """What is wrong with one worker, the worst first; an empty list where nothing is.

    snapshots: of one worker, some seconds of them, at any interval: rates and shares are judged over 1.5
        seconds and 3 snapshots at least, growth of memory over 4 seconds. With fewer, only what blocks
        and single snapshots tell is found; with none, nothing is. Those before a restart are left out.
    blocks: its history, as `Introspector.blocks()` and `read_blocks` return it; those of the last minute count.

    Never raises on anything that a worker can send.
    """
    series = list(snapshots)
    if not series:
        return []
    evidence = Evidence(series, blocks)
    found: list[Finding] = []
    for rule in RULES:
        found.extend(rule(evidence, tuple(found)))
    return sorted(found, key=lambda each: SEVERITIES.index(each.severity))
