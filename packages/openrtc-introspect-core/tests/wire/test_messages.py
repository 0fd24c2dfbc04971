from __future__ import annotations

import gc
import typing
from typing import Any

import msgspec
import pytest

from openrtc_introspect_core import Location, SessionRow, Snapshot, WorkerInfo
from openrtc_introspect_core.wire import CAPABILITIES, ERROR_CODES, Error, Hello, Request, ServerMessage
from openrtc_introspect_testing._workers.golden_frames import GoldenFrame, golden_frames


def test_a_location_prints_as_a_place_to_go_to() -> None:
    """The text begins with file:line, so that terminals and editors make a link of it."""
    assert str(Location("agents/restaurant.py", 42, "lookup_menu")) == "agents/restaurant.py:42 in lookup_menu"


@pytest.mark.parametrize("frame", golden_frames, ids=lambda frame: frame.name)
def test_messages_cannot_be_changed(frame: GoldenFrame) -> None:
    """A snapshot may be shared between threads and clients."""
    message: Any = frame.message
    with pytest.raises(AttributeError, match="immutable"):
        message.id = 0


def test_rows_do_not_set_off_collections() -> None:
    """Making 50,000 rows starts no garbage collection of the host's objects."""
    generations: list[int] = []

    def count(phase: str, info: dict[str, int]) -> None:
        generations.append(info["generation"])

    gc.callbacks.append(count)
    try:
        rows = [SessionRow(session_id="job-1", agent_name="restaurant", cpu_pct=1.5) for _ in range(50_000)]
    finally:
        gc.callbacks.remove(count)
    assert len(rows) == 50_000
    assert generations == []


def test_every_message_has_a_golden_frame() -> None:
    """Each direction's golden frames cover all its messages."""
    assert {type(frame.message) for frame in golden_frames if frame.direction == "to worker"} == set(
        typing.get_args(Request)
    )
    assert {type(frame.message) for frame in golden_frames if frame.direction == "to client"} == set(
        typing.get_args(ServerMessage)
    )


def test_every_error_code_has_a_golden_frame() -> None:
    """The golden frames list every error code once, in order."""
    assert [frame.message.code for frame in golden_frames if isinstance(frame.message, Error)] == list(ERROR_CODES)


def test_the_capabilities_are_the_requests() -> None:
    """The hello promises exactly the requests that the decoder knows, and changes."""
    assert list(CAPABILITIES) == [*(kind.__struct_config__.tag for kind in typing.get_args(Request)), "deltas"]


@pytest.mark.parametrize(
    ("kind", "identifying"),
    [
        (Snapshot, {"worker"}),
        (WorkerInfo, {"name", "pid"}),
        (SessionRow, {"session_id", "agent_name"}),
        (Hello, {"protocol", "worker", "pid"}),
    ],
)
def test_only_what_identifies_has_no_default(kind: type[msgspec.Struct], identifying: set[str]) -> None:
    """All other fields have defaults, so an older worker's messages are still read."""
    assert {field.name for field in msgspec.structs.fields(kind) if field.required} == identifying


def test_defaults_are_not_shared() -> None:
    """Each message has lists of its own."""
    first, second = (Snapshot(worker=WorkerInfo(name="w", pid=1)) for _ in range(2))
    assert first.sessions is not second.sessions
