"""Asking a worker what its tasks wait for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from openrtc_introspect_core import RequestFailed
from openrtc_top._client.query import Unlisted, must_list
from openrtc_top._model.waits import Survey

if TYPE_CHECKING:
    from openrtc_introspect_core.wire import Block, Client, Hello, Waits


async def ask_waits(client: Client) -> Waits:
    """Return what the tasks wait for. Raises Unlisted if the worker does not know."""
    must_list(client.hello, "waits")
    return await client.waits()


async def ask_all_waits(client: Client) -> tuple[Hello, Waits, list[Block]]:
    """Return who answers, what the tasks wait for, and what holds the loops meanwhile. Raises Unlisted as above."""
    return client.hello, await ask_waits(client), (await client.snapshot()).blocks_in_progress


async def survey(client: Client) -> Survey:
    """Return what the tasks wait for. What cannot be had is a problem in the answer, no error."""
    try:
        return Survey(await ask_waits(client))
    except (Unlisted, RequestFailed) as error:
        return Survey(None, str(error))
