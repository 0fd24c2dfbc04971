"""Coroutines that Cython compiles."""

import asyncio
import time

import python_code


async def computes():
    await asyncio.sleep(0.02)
    end = time.perf_counter() + 0.2
    n = 0
    while time.perf_counter() < end:
        n = n + 1
    python_code.innocent(n)
    await asyncio.sleep(0.02)


async def computes_to_its_end():
    cdef double end = time.perf_counter() + 0.2
    while time.perf_counter() < end:
        pass


async def sleeps_inside():
    await asyncio.sleep(0.02)
    time.sleep(0.2)
    await asyncio.sleep(0.02)


async def sleeps():
    await sleeps_inside()


async def calls_python():
    await asyncio.sleep(0.02)
    python_code.blocks()


async def waits_inside(helper, event):
    await event.wait()


async def waits(helper, event):
    await waits_inside(helper, event)
