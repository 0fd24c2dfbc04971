"""The time in which a worker answers while one of its sessions blocks the loop."""

from __future__ import annotations

import asyncio
import time
from statistics import median

from . import _loops
from ._case import Case, Result, Results, Row, value
from ._client import Client
from ._sessions import idle, opened
from ._subjects import make
from ._work import work

KINDS = {"sleep": "time.sleep", "python": "a Python loop", "native": "C that holds the GIL"}


def cases(quick: bool) -> list[Case]:
    return [
        Case(
            f"{kind} {subject}",
            measure,
            {"subject": subject, "kind": kind, "seconds": 0.5 if quick else 1.5},
            needs=_loops.needs("asyncio", subject),
        )
        for kind in KINDS
        for subject in ("exact", "peer")
    ]


def measure(subject: str, kind: str, seconds: float) -> Result:
    return _loops.run("asyncio", _measure(subject, kind, seconds))


async def _measure(subject_name: str, kind: str, seconds: float) -> Result:
    subject = make(subject_name)
    block = work(kind, seconds)
    blocked: list[tuple[float, float]] = []

    async def blocking() -> None:
        await go.wait()
        await asyncio.sleep(0.2)
        began = time.monotonic()
        block()
        blocked.append((began, time.monotonic()))

    go = asyncio.Event()
    await subject.start()
    async with opened(subject, {"blocker": blocking, **idle(99)}):
        client = await Client.start(
            "ask", protocol=subject.protocol, path=str(subject.socket), interval_s=0.02, seconds=0.4 + seconds
        )
        client.go()
        go.set()
        trips = await client.result()
    await subject.close()
    (began, ended) = blocked[0]
    # A request that was under way when the block began has waited for the block as well.
    during = [(max(asked, began), answered) for asked, answered in trips if answered > began and asked < ended]
    waits = [1000.0 * (answered - asked) for asked, answered in during]
    answers = sum(answered < ended for _, answered in during)
    return {
        "p50_ms": median(waits) if waits else None,
        "max_ms": max(waits, default=None),
        "asked": len(waits),
        "answered_meanwhile": answers,
        "blocked_ms": 1000.0 * (ended - began),
    }


def rows(results: Results) -> list[Row]:
    found = []
    for kind, what in KINDS.items():
        ours, peer = f"{kind} exact", f"{kind} peer"
        # No other thread runs while C holds the GIL: nothing in the process can answer.
        must = 200.0 if kind != "native" else None
        for key, name, limit in (("p50_ms", "p50", None), ("max_ms", "longest", must)):
            of_peer = value(results, peer, key)
            if of_peer is not None and not value(results, peer, "answered_meanwhile"):
                of_peer = "not while blocked"
            found.append(Row(f"blocked by {what}, answer, {name}", value(results, ours, key), "ms", limit, of_peer))
    return found
