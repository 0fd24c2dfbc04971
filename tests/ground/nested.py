"""A task that runs the loop in the middle of its step, with introspection or without. It prints what it found, as JSON.

nested.py nest_asyncio|nest_asyncio2 [without]
"""

from __future__ import annotations

import asyncio
import importlib
import json
import sys
import time
from typing import Any

from openrtc_introspect_core import Introspector

EACH_S = 0.1


async def inner() -> str:
    await asyncio.sleep(0.05)
    time.sleep(EACH_S)
    return "inner"


async def around() -> tuple[list[str], str | None]:
    loop = asyncio.get_running_loop()
    ran = [loop.run_until_complete(inner())]  # nested
    time.sleep(EACH_S)
    await asyncio.sleep(0.01)  # the step in which the loop ran ends here
    ran.append(loop.run_until_complete(inner()))
    task = asyncio.current_task()
    await asyncio.sleep(0.01)
    return ran, task.get_name() if task is not None else None


async def quiet() -> None:
    for _ in range(40):
        await asyncio.sleep(0.01)


async def main(library: str, without: bool) -> dict[str, Any]:
    importlib.import_module(library).apply()
    if without:
        beside = asyncio.create_task(quiet())
        ran, name = await asyncio.create_task(around(), name="around")
        await beside
        return {"ran": ran, "name": name}
    async with Introspector(socket_path=False) as introspector:

        async def in_session(name: str, coro: Any) -> Any:
            with introspector.session(name, agent_name="a") as session:
                result = await asyncio.create_task(coro, name=name if name == "quiet" else "around")
                cpu_s[name] = session.busy
                return result

        cpu_s: dict[str, float] = {}
        beside = asyncio.create_task(in_session("quiet", quiet()))
        ran, name = await asyncio.create_task(in_session("s", around()))
        await beside
        blocks = [
            (block.session_id, block.cause, block.location.function.rpartition(".")[2] if block.location else None)
            for block in introspector.blocks()
        ]
        return {"ran": ran, "name": name, "cpu_s": cpu_s, "blocks": blocks}


if __name__ == "__main__":
    print(json.dumps(asyncio.run(main(sys.argv[1], "without" in sys.argv))))
