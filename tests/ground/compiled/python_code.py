"""What compiled coroutines call, in Python."""

from __future__ import annotations

import time

told: list[int] = []


def innocent(n: int) -> None:
    told.append(n)


def blocks() -> None:
    time.sleep(0.2)
