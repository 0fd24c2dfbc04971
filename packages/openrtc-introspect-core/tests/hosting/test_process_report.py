"""What a worker in process mode serves; test_processes.py has it with real processes."""

from __future__ import annotations

import time
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from openrtc_introspect_core import Introspector
from openrtc_introspect_core._base.log import flush
from openrtc_introspect_core._hosting import process_report
from openrtc_introspect_core._hosting.process_report import ProcessReport
from openrtc_introspect_core._introspector import parts_of

Run = Callable[[Coroutine[Any, Any, Any]], Any]


def test_a_probe_that_fails_is_noted_and_logged_with_its_traceback(
    run_on_asyncio: Run, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Once; the snapshot shows the note."""
    monkeypatch.setattr(process_report, "_INTERVAL_S", 0.01)
    introspector = Introspector(name="apart", socket_path=False)
    report = ProcessReport(parts_of(introspector).shared.settings)

    async def main() -> list[str]:
        report.open("asyncio")

        def fails(now: float) -> None:
            raise OSError("no such thing")

        monkeypatch.setattr(report._host, "sample", fails)
        with report.session("job-1", "agent", {}):
            deadline = time.monotonic() + 60.0
            while not (notes := report.snapshot().worker.notes) and time.monotonic() < deadline:
                time.sleep(0.005)
        await report.aclose()
        return notes

    note = "sampling is switched off: OSError('no such thing')"
    assert run_on_asyncio(main()) == [note]
    assert flush(60.0)
    (record,) = (record for record in caplog.records if note in record.getMessage())
    assert record.exc_info is not None
    assert "fails" in caplog.text
