"""One session never frees its memory, in a worker with a memory limit."""

from __future__ import annotations

from _worker import FIXED, serve
from agents import restaurant
from openrtc_introspect_core import Introspector


async def culprit(introspector: Introspector) -> None:
    with introspector.session("job-c1d550", agent_name="restaurant", metadata={"tenant": "acme"}):
        await restaurant.keeps_what_was_said(fixed=FIXED)


if __name__ == "__main__":
    serve(culprit, memory_limit_mb=700.0)
