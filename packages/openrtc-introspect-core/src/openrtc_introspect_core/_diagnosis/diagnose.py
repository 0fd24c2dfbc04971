"""From snapshots, blocks and waits to what is wrong with a worker.

Pure: no clock, no I/O. The rules are in rules/; docs/diagnosis.md explains them.
"""

from __future__ import annotations

from collections.abc import Iterable

from ..wire._messages import Block, Snapshot, Waits
from .evidence import Evidence
from .finding import SEVERITIES, Finding
from .rules import RULES

__all__ = ["Finding", "diagnose"]


def diagnose(snapshots: Iterable[Snapshot], blocks: Iterable[Block] = (), waits: Iterable[Waits] = ()) -> list[Finding]:
    """Return what is wrong with one worker, the worst first.

    Returns an empty list if nothing is.

    snapshots: some seconds of one worker's, at any interval. Rates and shares need at least 1.5 seconds and 3
        snapshots, growth of memory 4 seconds. With fewer, only blocks and single snapshots count; with none, nothing
        is found. Snapshots from before a restart are ignored.
    blocks: the worker's history, as `Introspector.blocks()` and `read_blocks` return it. Those of the last minute
        count.
    waits: answers to waits requests, as `Introspector.waits()` and `Client.waits` return them, some seconds apart. What
        is said of waiting must hold in nearly all of the last five, and needs three. With fewer, nothing is said of
        waiting, of executors and of what a loop does beside steps.

    Never raises on anything that a worker can send.
    """
    series = list(snapshots)
    if not series:
        return []
    evidence = Evidence(series, blocks, waits)
    found: list[Finding] = []
    for rule in RULES:
        found.extend(rule(evidence, tuple(found)))
    return sorted(found, key=lambda each: SEVERITIES.index(each.severity))
