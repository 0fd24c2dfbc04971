"""One of several sessions makes a synchronous call now and then, and all calls stutter."""

from __future__ import annotations

from _worker import FIXED, serve
from agents import restaurant
from openrtc_introspect_core import Introspector


async def culprit(introspector: Introspector) -> None:
    with introspector.session("job-c1d550", agent_name="restaurant", metadata={"tenant": "acme"}):
        await restaurant.asks_for_the_menu(fixed=FIXED)


if __name__ == "__main__":
    serve(culprit)
