"""pipecat logs each step on the level of debugging: it is silent here."""

from __future__ import annotations

import loguru
import pytest


@pytest.fixture(autouse=True, scope="session")
def no_log_of_pipecats() -> None:
    loguru.logger.remove()
