"""The observer of the openrtc package, without that package; tests/runtimes has it with a real pool."""

from __future__ import annotations

import logging
import signal
import sys
from collections.abc import Callable, Coroutine
from types import SimpleNamespace
from typing import Any

import pytest

from openrtc_introspect_core._base.log import flush
from openrtc_introspect_core.adapters.openrtc import Observer

Run = Callable[[Coroutine[Any, Any, Any]], Any]


def test_a_session_that_cannot_be_measured_is_logged_with_the_traceback(
    run_on_asyncio: Run, caplog: pytest.LogCaptureFixture
) -> None:
    """It runs unmeasured, and its end is no error either."""
    observer = Observer(socket_path=False)
    info = SimpleNamespace(job_id="", agent_name="agent", tenant="acme")  # no id that a session could have

    async def main() -> None:
        await observer.on_session_start(info, None)
        await observer.on_session_end(info, SimpleNamespace(error=None))
        assert observer.process.introspector is not None
        observer.process.introspector.close()

    with caplog.at_level(logging.WARNING):
        run_on_asyncio(main())
        assert flush(60.0)
    (record,) = (record for record in caplog.records if "it runs unmeasured" in record.getMessage())
    assert record.exc_info is not None
    assert record.exc_info[0] is not None


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGUSR1")
def test_a_signal_handlers_exception_is_the_hosts(run_on_asyncio: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is no fault of ours, and reaches whoever called the observer."""

    class TimeLimit(Exception):
        pass

    def handler(number: int, frame: object) -> None:
        raise TimeLimit

    observer = Observer(socket_path=False)
    monkeypatch.setattr(observer.process, "attached", lambda: signal.raise_signal(signal.SIGUSR1))
    before = signal.signal(signal.SIGUSR1, handler)
    try:
        with pytest.raises(TimeLimit):
            run_on_asyncio(observer.on_session_start(SimpleNamespace(job_id="job-1"), None))
    finally:
        signal.signal(signal.SIGUSR1, before)
