"""An agent that answers questions about orders. It computes a lot, in short steps."""

import asyncio
import hashlib


def score(text: str) -> str:
    """Compute for some milliseconds."""
    return hashlib.pbkdf2_hmac("sha256", text.encode(), b"order", 10_000).hex()


async def entrypoint(session):
    turn = 0
    while True:
        await asyncio.sleep(0.05)
        turn += 1
        await asyncio.create_task(answer(f"where is order {turn}?"))


async def answer(question: str) -> None:
    score(question)
