"""One session computes most of the time, in steps too short to be blocks."""

from __future__ import annotations

from _worker import FIXED, serve
from agents import restaurant
from openrtc_introspect_core import Introspector


async def culprit(introspector: Introspector) -> None:
    with introspector.session("job-c1d550", agent_name="restaurant", metadata={"tenant": "acme"}):
        await restaurant.scores_all_the_time(fixed=FIXED)


if __name__ == "__main__":
    serve(culprit)
