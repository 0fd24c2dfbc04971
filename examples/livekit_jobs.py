"""A LiveKit agent server in which each job is a session: the two lines that are marked below.

    python examples/livekit_jobs.py        # an agent of your own: python my_agent.py start
    openrtc top                            # in a second terminal

A job is one call that a LiveKit server dispatches. The example needs no such server and no keys: it gives its own agent
server four jobs, each of which runs in a thread with an event loop of its own. One caller asks for the menu now and
then, and the agent reads the menu with a blocking call.
The example needs `pip install openrtc-introspect-core livekit-agents`, and openrtc-top to watch it.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import logging
import time

from livekit.agents import AgentServer, JobContext, JobExecutorType

from openrtc_introspect_core.adapters.livekit import introspected  # <- one

CALLERS = 4

server = AgentServer(job_executor_type=JobExecutorType.THREAD, host="127.0.0.1", port=0)


@server.rtc_session(agent_name="restaurant")
@introspected(name="livekit-jobs")  # <- two
async def entrypoint(context: JobContext) -> None:
    """Serve one caller. All work in here is charged to the job's session, and so is that of the task."""
    talking = asyncio.create_task(talk(context.job.room.name), name="talk")
    context.add_shutdown_callback(lambda: hang_up(talking))


async def talk(caller: str) -> None:
    """Answer until the caller hangs up."""
    for answers in itertools.count():
        if caller == "caller-2" and answers % 20 == 19:
            lookup_menu()
        await asyncio.sleep(0.1)


async def hang_up(talking: asyncio.Task[None]) -> None:
    """End the conversation."""
    talking.cancel()
    await asyncio.wait([talking])


def lookup_menu() -> str:
    """Read the menu, with a blocking call by mistake."""
    time.sleep(0.3)
    return "soup"


async def main(seconds: float) -> None:
    running = asyncio.create_task(server.run(devmode=True, unregistered=True))
    started = asyncio.Event()
    server.once("worker_started", started.set)
    await started.wait()
    for number in range(CALLERS):
        await server.simulate_job(f"caller-{number}", fake_job=True)
    await asyncio.sleep(seconds)
    await server.aclose()
    await running
    print(f"{CALLERS} callers were served")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=str(__doc__).partition(":")[0])
    parser.add_argument("--seconds", type=float, default=60.0, help="how long it runs (60)")
    logging.basicConfig(format="%(message)s")
    asyncio.run(main(parser.parse_args().seconds))
