"""The server's side of a connection is tested without sockets and in a time of its own."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from typing import Any

import pytest

from openrtc_introspect_core.wire import (
    CAPABILITIES,
    Block,
    Hello,
    Limits,
    Snapshot,
    Stacks,
    StacksRequest,
    Tasks,
    TasksRequest,
)
from openrtc_introspect_core.wire._connection import Action, ServerConnection, next_due, refusal
from openrtc_introspect_core.wire._source import SharedSnapshot

Make = Callable[..., Snapshot]
BLOCKS = b'{"type":"blocks","id":%d}\n'


class Driver:
    """A driver that does what the connection asks for and keeps its messages; a test moves the time on."""

    def __init__(self, limits: Limits | None = None, capabilities: tuple[str, ...] = CAPABILITIES) -> None:
        self.now = 100.0
        self.failure: Exception | None = None
        self.frames = 0
        self.within_s: list[float] = []
        limits = limits or Limits()
        hello = Hello(protocol="1.0", worker="w", pid=1, capabilities=list(capabilities), limits=limits)
        self.connection = ServerConnection(hello, self, self, self.now)

    def message(self, request_id: int | str, within_s: float = 0.0) -> list[bytes]:
        if self.failure is not None:
            raise self.failure
        self.frames += 1
        self.within_s.append(within_s)
        return [json.dumps({"type": "snapshot", "id": request_id, "seq": self.frames}).encode() + b"\n"]

    def frame(self, request_id: int | str, base: int, within_s: float = 0.0) -> tuple[int, list[bytes]]:
        (line,) = self.message(request_id, within_s)
        return self.frames, [json.dumps(json.loads(line) | {"type": "frame", "base": base}).encode() + b"\n"]

    def blocks(self, since: int) -> list[Block]:
        return [Block(seq=seq) for seq in (4, 5)]

    def tasks(self, request: TasksRequest) -> Tasks | None:
        return Tasks(id=request.id, session_id="job") if request.session_id == "job" else None

    def stacks(self, request: StacksRequest) -> Stacks:
        return Stacks(id=request.id)

    def snapshot(self) -> Snapshot:
        raise NotImplementedError

    # --- what a test does ----------------------------------------------------------------------------

    @property
    def action(self) -> Action:
        return self.connection.next_action(self.now)

    def build(self) -> Any:
        """Return the next message, or None if there is nothing to send."""
        message = b"".join(self.connection.message(self.now))
        if not message:
            return None
        self.connection.sent(self.now)
        return json.loads(message)

    def say(self, *messages: dict[str, Any] | bytes) -> None:
        data = [each if isinstance(each, bytes) else json.dumps(each).encode() + b"\n" for each in messages]
        self.connection.receive(b"".join(data))

    def hear(self) -> list[Any]:
        """Return all that is sent until the connection waits or ends, while the time stands still."""
        heard = []
        while self.action in (Action.REPLY, Action.FRAME):
            heard.append(self.build())
        return [message for message in heard if message is not None]

    def hear_for(self, seconds: float) -> list[tuple[float, Any]]:
        """Return what is sent within so many seconds of the driver's time, each message with its time."""
        until, heard = self.now + seconds, []
        while True:
            heard += [(self.now, message) for message in self.hear()]
            if self.action is not Action.WAIT or self.connection.wake_at > until:
                self.now = until
                return heard
            self.now = max(self.now, self.connection.wake_at)


@pytest.fixture
def driver() -> Driver:
    return Driver()


def _ids(messages: list[Any]) -> list[Any]:
    return [message["id"] for message in messages]


# --- requests ------------------------------------------------------------------------------------


def test_it_greets_and_then_waits(driver: Driver) -> None:
    """The connection sends its hello and nothing else before the first request."""
    assert json.loads(b"".join(driver.connection.greeting()))["type"] == "hello"
    assert driver.action is Action.WAIT


def test_requests_are_answered_in_the_order_they_came_in(driver: Driver) -> None:
    """Replies of all types keep the order of their requests, and so does the reply to a refused line."""
    driver.say(
        {"type": "snapshot", "id": 1},
        {"type": "blocks", "id": 2, "since": 4},
        b"nonsense\n",
        {"type": "tasks", "id": 3, "session_id": "job"},
        {"type": "tasks", "id": 4, "session_id": "gone"},
        {"type": "stacks", "id": 5},
        {"type": "reboot", "id": 6},
    )
    heard = driver.hear()
    assert _ids(heard) == [1, 2, None, 3, 4, 5, 6]
    assert [message.get("code", message["type"]) for message in heard] == [
        "snapshot", "blocks", "bad-json", "tasks", "not-found", "stacks", "unsupported",
    ]  # fmt: skip
    assert ([block["seq"] for block in heard[1]["blocks"]], heard[1]["last_seq"]) == ([5], 5)
    assert driver.action is Action.WAIT


def test_a_request_is_answered_once_its_line_has_ended(driver: Driver) -> None:
    """A request that comes byte by byte is answered after its newline and not before."""
    for byte in BLOCKS % 7:
        assert driver.hear() == []
        driver.say(bytes([byte]))
    assert _ids(driver.hear()) == [7]


def test_each_message_is_built_when_it_is_asked_for(driver: Driver) -> None:
    """The connection builds no snapshot ahead for a client that does not read."""
    driver.say(*({"type": "snapshot", "id": number} for number in range(5)))
    driver.build()
    driver.build()
    assert driver.frames == 2


def test_what_the_hello_does_not_list_is_unsupported() -> None:
    """A request outside the capabilities gets the code unsupported, and the connection goes on."""
    driver = Driver(capabilities=("snapshot",))
    driver.say({"type": "stacks", "id": 1}, {"type": "bye", "id": 2}, {"type": "snapshot", "id": 3})
    assert [message.get("code") for message in driver.hear()] == ["unsupported", "unsupported", None]


def test_a_source_that_fails_is_an_error_of_its_request(driver: Driver) -> None:
    """The error's message has at most 200 characters, and the next request is answered."""
    driver.failure = RuntimeError("no memory\n" * 100)
    driver.say({"type": "snapshot", "id": 1}, {"type": "blocks", "id": 2})
    failed, answered = driver.hear()
    assert (failed["id"], failed["code"], len(failed["message"])) == (1, "internal", 200)
    assert answered["type"] == "blocks"


def test_whether_it_has_asked_is_known_before_it_is_answered(driver: Driver) -> None:
    """A client has asked once a whole line has come; half a line does not count."""
    driver.say(b'{"type":"blocks"')
    driver.hear()
    assert not driver.connection.has_asked
    driver.say(b',"id":1}\n')
    assert driver.connection.has_asked


# --- the end -------------------------------------------------------------------------------------


def test_a_bye_is_the_last_that_is_answered(driver: Driver) -> None:
    """A bye ends the watches before it, and the requests behind it get no reply."""
    driver.say({"type": "watch", "id": 1}, {"type": "bye", "id": "b"}, {"type": "blocks", "id": 2})
    assert driver.hear()[-1] == {"type": "done", "id": "b"}
    assert driver.action is Action.CLOSE


def test_a_line_over_the_limit_is_the_end() -> None:
    """Complete lines before it are answered, and a line of exactly the limit is read."""
    driver = Driver(Limits(request_bytes=64))
    driver.say((BLOCKS % 1).rstrip().ljust(63) + b"\n" + BLOCKS % 2 + b"x" * 65)
    first, second, refused = driver.hear()
    assert (first["id"], second["id"], refused["code"]) == (1, 2, "line-too-long")
    assert driver.action is Action.CLOSE


def test_a_client_that_ended_its_side_is_answered_and_closed(driver: Driver) -> None:
    """Complete requests are answered, and half a line at the end is no request."""
    driver.say(BLOCKS % 1 + b'{"type":"blocks","id":2}')
    assert _ids(driver.hear()) == [1]
    driver.say(b"")
    assert driver.connection.ended
    assert driver.hear() == []
    assert driver.action is Action.CLOSE


def test_an_idle_client_is_closed_after_the_timeout() -> None:
    """The idle timeout counts from the last message in either direction."""
    driver = Driver(Limits(idle_timeout_s=10.0))
    driver.now += 9.0
    driver.say(BLOCKS % 1)
    driver.hear()
    assert driver.connection.wake_at == driver.now + 10.0
    driver.now += 9.5
    assert driver.action is Action.WAIT
    driver.now += 0.5
    assert driver.action is Action.CLOSE


@pytest.mark.parametrize("piece", [b"[", b"\n", b" \r\n"], ids=["half a line", "an empty line", "a blank line"])
def test_what_asks_nothing_keeps_no_connection(piece: bytes) -> None:
    """Half a line or an empty line does not restart the idle timeout, however often it comes."""
    driver = Driver(Limits(idle_timeout_s=1.0))
    for _ in range(4):
        driver.say(piece)
        assert driver.hear() == []
        driver.now += 0.25
    assert driver.action is Action.CLOSE


def test_the_refusal_says_why_there_is_no_room() -> None:
    """The refusal has the code too-many-clients, no id, and the number of clients."""
    message = json.loads(refusal(Limits(clients=3)))
    assert (message["code"], message["id"]) == ("too-many-clients", None)
    assert message["message"].startswith("3 clients are connected already")


# --- watches -------------------------------------------------------------------------------------


def test_a_watch_has_a_frame_at_once_and_one_each_interval(driver: Driver) -> None:
    """The connection also says when the next frame is due."""
    driver.say({"type": "watch", "id": "w", "interval_s": 0.5})
    heard = driver.hear_for(1.6)
    assert [when - 100.0 for when, _ in heard] == [0.0, 0.5, 1.0, 1.5]
    assert {message["id"] for _, message in heard} == {"w"}
    assert driver.connection.wake_at == 102.0


def test_a_frame_that_is_late_is_not_made_up_for(driver: Driver) -> None:
    """A slow reader gets fewer frames, and the next is due an interval after the late one came up."""
    driver.say({"type": "watch", "id": 1, "interval_s": 1.0})
    driver.hear()
    driver.now += 7.05
    assert len(driver.hear()) == 1
    assert driver.connection.wake_at == driver.now + 1.0


def test_watches_of_one_interval_come_into_phase() -> None:
    """Within four frames, whenever they began, and no frame comes early or more than a quarter late."""
    for begun in (0.0, 0.3, 0.45, 0.7, 0.99):
        times = [begun]
        for _ in range(5):
            times.append(next_due(times[-1] + 0.002, 1.0))
        gaps = [after - before for before, after in itertools.pairwise(times)]
        assert all(1.0 <= gap <= 1.2521 for gap in gaps)
        assert all(time % 1.0 <= 0.1 for time in times[4:])


@pytest.mark.parametrize(("interval_s", "within_s"), [(0.5, 0.05), (10.0, 0.1)])
def test_watches_in_phase_get_one_snapshot(driver: Driver, interval_s: float, within_s: float) -> None:
    """A frame may be a tenth of the interval old, at most 0.1 s, but the first one is of now."""
    driver.say({"type": "watch", "id": 1, "interval_s": interval_s})
    driver.hear_for(2.5 * interval_s)
    assert driver.within_s == [0.0, within_s, within_s]


def test_a_watch_of_changes_builds_on_its_last_frame(driver: Driver) -> None:
    """Whatever is sent in between."""
    driver.say({"type": "watch", "id": 1, "interval_s": 1.0, "deltas": True})
    (first,) = driver.hear()
    driver.say({"type": "snapshot", "id": 2}, {"type": "snapshot", "id": 3, "base": 0})
    driver.hear()
    driver.now += 1.0
    (second,) = driver.hear()
    assert (first["type"], first["base"], second["type"], second["base"]) == ("frame", 0, "frame", first["seq"])
    assert second["seq"] == first["seq"] + 3


def test_a_request_for_changes_is_answered_by_a_frame(driver: Driver) -> None:
    """It builds on the frame that the client names."""
    driver.say({"type": "snapshot", "id": 1, "base": 17}, {"type": "snapshot", "id": 2, "base": None})
    first, second = driver.hear()
    assert (first["type"], first["base"]) == ("frame", 17)
    assert second["type"] == "snapshot"


def test_a_server_without_changes_sends_whole_snapshots() -> None:
    """It ignores the fields that ask for changes."""
    driver = Driver(capabilities=("snapshot", "watch"))
    driver.say({"type": "snapshot", "id": 1, "base": 17}, {"type": "watch", "id": 2, "deltas": True})
    assert [message["type"] for message in driver.hear()] == ["snapshot", "snapshot"]


def test_the_time_that_a_frame_takes_is_not_added_to_the_interval(driver: Driver) -> None:
    """The interval begins when the frame's turn comes, not when it has been sent."""
    driver.say({"type": "watch", "id": 1, "interval_s": 1.0})
    assert driver.build() is None
    assert driver.action is Action.FRAME
    driver.now += 0.75
    assert driver.action is Action.FRAME
    driver.build()
    assert driver.connection.wake_at == 101.0


def test_frames_that_are_due_all_the_time_leave_requests_their_turn(driver: Driver) -> None:
    """The connection asks for input between two frames, and requests and frames take turns."""
    driver.say({"type": "watch", "id": "w", "interval_s": 0.1})
    driver.hear()
    driver.now += 1.0
    assert driver.action is Action.FRAME
    driver.now += 1.0
    driver.build()
    assert driver.action is Action.WAIT
    driver.say(BLOCKS % 1 + BLOCKS % 2 + BLOCKS % 3)
    types = []
    for _ in range(6):
        types.append(driver.build()["type"] if driver.action is not Action.WAIT else None)
        driver.now += 1.0
    assert types == ["snapshot", "blocks", "snapshot", "blocks", "snapshot", "blocks"]


def test_several_watches_take_turns(driver: Driver) -> None:
    """Eight watches that are due all the time get equal numbers of frames, give or take one."""
    driver.say(*({"type": "watch", "id": number, "interval_s": 0.1} for number in range(8)))
    heard: list[Any] = []
    for _ in range(16):
        heard += driver.hear()
        driver.now += 1.0
    counts = [_ids(heard).count(number) for number in range(8)]
    assert max(counts) - min(counts) <= 1


def test_a_cancelled_watch_says_no_more(driver: Driver) -> None:
    """The watch's id is free again, and the idle timeout begins."""
    driver.say({"type": "watch", "id": 1, "interval_s": 0.1})
    driver.hear()
    driver.say({"type": "cancel", "id": 1})
    assert driver.hear() == [{"type": "done", "id": 1}]
    assert driver.hear_for(59.0) == []
    driver.say({"type": "cancel", "id": 1}, {"type": "watch", "id": 1})
    assert [message.get("code") for message in driver.hear()] == ["bad-request", None]


def test_watches_need_ids_of_their_own_and_are_limited() -> None:
    """Each connection refuses a second watch under one id and a watch over the limit."""
    driver = Driver(Limits(watches=2))
    driver.say(*({"type": "watch", "id": request_id, "interval_s": 60} for request_id in (1, 1, 2, 3)))
    refused = [(message["id"], message["code"]) for message in driver.hear() if message["type"] == "error"]
    assert refused == [(1, "bad-request"), (3, "too-many-watches")]


def test_a_frame_that_fails_ends_its_watch(driver: Driver) -> None:
    """The watch gets an error under its id, and the other watches go on."""
    driver.say({"type": "watch", "id": 1, "interval_s": 1}, {"type": "watch", "id": 2, "interval_s": 1.5})
    driver.hear_for(0.5)
    driver.failure = RuntimeError("gone")
    driver.now = 101.0
    (failed,) = driver.hear()
    assert (failed["id"], failed["code"]) == (1, "internal")
    driver.failure = None
    assert {message["id"] for _, message in driver.hear_for(5.0)} == {2}


def test_a_watch_outlives_the_client_s_own_side_and_the_idle_timeout() -> None:
    """Frames go on after the client ended its side and longer than the idle timeout."""
    driver = Driver(Limits(idle_timeout_s=0.3))
    driver.say({"type": "watch", "id": 1, "interval_s": 2.0})
    driver.hear()
    driver.say(b"")
    assert [when - 100.0 for when, _ in driver.hear_for(5.0)] == [2.0, 4.0]


# --- its driver's errors -------------------------------------------------------------------------


def test_it_takes_no_more_than_one_piece(driver: Driver) -> None:
    """The connection refuses input while replies are due, so its buffer is bounded by one read."""
    driver.say(BLOCKS % 1 + BLOCKS % 2)
    with pytest.raises(RuntimeError, match="only when its next action is to wait"):
        driver.say(BLOCKS % 3)
    driver.build()
    with pytest.raises(RuntimeError, match="only when its next action is to wait"):
        driver.say(BLOCKS % 3)
    assert _ids(driver.hear()) == [2]


def test_it_takes_nothing_after_the_end(driver: Driver) -> None:
    """Bytes after the end of the input raise RuntimeError."""
    driver.say(b"")
    with pytest.raises(RuntimeError, match="none after the end"):
        driver.say(b"x")


def test_it_builds_nothing_that_is_not_due(driver: Driver) -> None:
    """A message that is asked for while the action is WAIT raises RuntimeError."""
    assert driver.action is Action.WAIT
    with pytest.raises(RuntimeError, match="only when its next action is to send one"):
        driver.build()


def test_a_shared_body_is_passed_on_as_it_is(make_snapshot: Make) -> None:
    """Connections share one encoded snapshot, and none of them copies it."""
    hello = Hello(protocol="1.0", worker="w", pid=1, capabilities=["snapshot"])
    source = Driver()
    source.snapshot = lambda: make_snapshot(3)  # type: ignore[method-assign]
    shared = SharedSnapshot(source, lambda: 0.0, itertools.count().__next__)
    bodies = []
    for _ in range(2):
        connection = ServerConnection(hello, source, shared, 0.0)
        connection.receive(b'{"type":"snapshot","id":1}\n')
        assert connection.next_action(0.0) is Action.REPLY
        bodies.append(list(connection.message(0.0))[2])
    assert bodies[0] is bodies[1]
