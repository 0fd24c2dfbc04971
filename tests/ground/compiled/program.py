"""Run compiled coroutines under the introspector, and print what it says of them, as JSON.

    python program.py MODULE asyncio|uvloop|classic|rloop

MODULE: `cython_code`, `mypyc_code` or `nuitka_code`, compiled. classic: uvloop, run by its own method. Each function of
the module whose name is that of a block is the coroutine of a task, and once more awaited in Python.
"""

import asyncio
import importlib
import json
import sys
import threading
from collections.abc import Coroutine
from types import ModuleType
from typing import Any

from openrtc_introspect_core import Introspector
from openrtc_introspect_core.wire import Block, Location, TaskInfo

BLOCKS = ("computes", "computes_to_its_end", "sleeps", "calls_python")


async def awaits(coro: Coroutine[Any, Any, None]) -> None:
    await coro


def block_of(block: Block) -> dict[str, Any]:
    return {
        "session": block.session_id,
        "cause": block.cause,
        "detail": block.detail,
        "location": place(block.location) if block.location is not None else None,
        "stack": [place(each) for each in block.stack],
    }


def task_of(task: TaskInfo) -> dict[str, Any]:
    return {
        "coroutine": task.coroutine,
        "state": task.state,
        "awaits": [place(each) for each in task.awaits],
        "waiting_on": task.waiting_on,
    }


def place(location: Location) -> str:
    return f"{location.file.rsplit('/', 1)[-1]}:{location.line} {location.function}"


async def blocks(module: ModuleType, introspector: Introspector) -> tuple[dict[str, Any], dict[str, Any]]:
    seen: list[TaskInfo] = []
    for name in BLOCKS:
        if (function := getattr(module, name, None)) is not None:
            for way, coro in (("task", function()), ("awaited", awaits(function()))):
                task = asyncio.create_task(coro, name=f"{name} {way}")
                timer = threading.Timer(0.12, lambda: seen.extend(introspector.tasks("s1")))
                timer.start()
                await task
                timer.join()
    running = {each.name: task_of(each) for each in seen if each.state == "running"}
    return {str(block.task_name): block_of(block) for block in introspector.blocks()}, running


async def tasks(module: ModuleType, introspector: Introspector) -> tuple[dict[str, Any], dict[str, Any]]:
    event = asyncio.Event()
    helper = asyncio.create_task(asyncio.sleep(60), name="helper")
    waiting = {"task": module.waits(helper, event), "awaited": awaits(module.waits(helper, event))}
    if hasattr(module, "Session"):
        waiting["method"] = module.Session(helper, event).waits()
    made = [asyncio.create_task(coro, name=name) for name, coro in waiting.items()]
    await asyncio.sleep(0.05)
    listed = {task.name: task_of(task) for task in introspector.tasks("s1")}
    groups = await asyncio.to_thread(introspector.waits)
    kinds = {waiter.task_name: [group.kind, group.what] for group in groups.groups for waiter in group.waiters}
    event.set()
    helper.cancel()
    await asyncio.gather(*made)
    return listed, kinds


async def session(module: ModuleType, introspector: Introspector) -> dict[str, Any]:
    with introspector.session("s1", agent_name="a"):
        await asyncio.sleep(0.1)
        blocked, running = await blocks(module, introspector)
        listed, kinds = await tasks(module, introspector)
    return {"blocks": blocked, "running": running, "tasks": listed, "waits": kinds}


async def main() -> dict[str, Any]:
    async with Introspector(socket_path=False) as introspector:
        return await asyncio.create_task(session(importlib.import_module(sys.argv[1]), introspector))


def run(kind: str) -> Any:
    if kind == "asyncio":
        return asyncio.run(main())
    module = importlib.import_module("uvloop" if kind == "classic" else kind)
    if kind == "uvloop":
        return module.run(main())
    loop = module.new_event_loop()
    return loop.run_until_complete(main())


print(json.dumps(run(sys.argv[2])))
