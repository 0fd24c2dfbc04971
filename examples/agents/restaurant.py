"""An agent that takes table bookings. At times a blocking call delays all others."""

import asyncio
import random
import time

from menu import DISHES


def lookup_menu() -> str:
    """Ask the kitchen's old ordering system, with a blocking call."""
    time.sleep(0.3)
    return random.choice(DISHES)


async def entrypoint(session):
    turns = 0
    while True:
        await asyncio.sleep(random.uniform(0.2, 0.4))  # the guest speaks
        turns += 1
        if turns % 10 == 0:
            lookup_menu()
