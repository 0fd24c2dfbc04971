from __future__ import annotations

import asyncio
import errno
import json
import os
import random
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import msgspec
import psutil
import pytest

from openrtc_introspect_core import ConnectionFailed, Introspector, Snapshot, read_snapshot
from openrtc_introspect_core._service.worker_service import WorkerService
from openrtc_introspect_core.wire import PROTOCOL_MAJOR, PROTOCOL_MINOR, Block, Hello, Limits, _server, encode
from openrtc_introspect_core.wire._endpoint import open_listener
from openrtc_introspect_core.wire._server import Server
from openrtc_introspect_core.wire._source import SharedSnapshot
from openrtc_introspect_testing._workers.fake_worker import FakeWorker
from openrtc_introspect_testing._workers.golden_frames import refused_lines

Dial = Callable[..., Any]
Make = Callable[..., Snapshot]
Counting = Callable[..., FakeWorker]
Eventually = Callable[[Callable[[], bool]], None]

root_only = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become someone else")
linux_only = pytest.mark.skipif(sys.platform != "linux", reason="only Linux reports what a peer has not read")

DONE = {"type": "done"}


# --- requests ------------------------------------------------------------------------------------


def test_the_worker_speaks_first(worker: FakeWorker, dial: Dial) -> None:
    """The hello names the worker, its protocol, its capabilities and the limits for its clients."""
    hello = dial(worker, greeted=False).hear()
    assert hello.pop("version")
    assert hello == {
        "type": "hello",
        "protocol": f"{PROTOCOL_MAJOR}.{PROTOCOL_MINOR}",
        "worker": "fake",
        "pid": os.getpid(),
        "epoch": "fake",
        "capabilities": ["snapshot", "watch", "cancel", "blocks", "tasks", "stacks", "waits", "bye", "deltas"],
        "limits": json.loads(msgspec.json.encode(Limits())),
    }


def test_a_snapshot_is_answered_under_its_id(worker: FakeWorker, dial: Dial) -> None:
    """An id may be a number or a text."""
    peer = dial(worker)
    for request_id in (1, -5, "a", "", "é\n", 2**63 - 1):
        reply = peer.ask(type="snapshot", id=request_id)
        assert (reply["type"], reply["id"]) == ("snapshot", request_id)


def test_requests_are_answered_in_order(worker: FakeWorker, dial: Dial) -> None:
    """Requests that come in one piece are answered in order, and so are the refused ones."""
    peer = dial(worker)
    kinds = ["snapshot", "blocks", "nonsense"] * 20
    peer.say(b"".join(json.dumps({"type": kind, "id": n}).encode() + b"\r\n\n" for n, kind in enumerate(kinds)))
    replies = [peer.hear() for _ in kinds]
    assert [reply["id"] for reply in replies] == list(range(len(kinds)))
    assert {reply["type"] for reply in replies} == {"snapshot", "blocks", "error"}


def test_a_request_may_come_in_pieces(worker: FakeWorker, dial: Dial) -> None:
    """A request that comes byte by byte is answered."""
    peer = dial(worker)
    for byte in b'{"type":"blocks","id":"pieces"}\n':
        peer.say(bytes([byte]))
    assert peer.hear() == {"type": "blocks", "id": "pieces", "blocks": [], "last_seq": 0}


def test_blocks_are_those_since(make_snapshot: Make, dial: Dial) -> None:
    """The reply's last_seq is the newest block's, so it corrects a number from before a restart."""
    with FakeWorker([make_snapshot()], blocks=[Block(seq=seq) for seq in (4, 5, 6)]) as worker:
        peer = dial(worker)

        def answer(since: int) -> tuple[list[int], int]:
            reply = peer.ask(type="blocks", id=1, since=since)
            return [block["seq"] for block in reply["blocks"]], reply["last_seq"]

        assert answer(0) == ([4, 5, 6], 6)
        assert answer(5) == ([6], 6)
        assert answer(6) == ([], 6)
        assert answer(10**30) == ([], 6)


def test_bye_is_answered_and_ends_it(worker: FakeWorker, dial: Dial) -> None:
    """A request behind the bye is not answered."""
    peer = dial(worker)
    peer.say(b'{"type":"bye","id":"b"}\n{"type":"snapshot","id":2}\n')
    assert peer.hear_all() == [{"type": "done", "id": "b"}]


def test_a_client_that_ended_its_side_gets_its_answers(worker: FakeWorker, dial: Dial) -> None:
    """A client that has shut down its sending side, as one in a pipe does, still gets its replies."""
    peer = dial(worker)
    peer.say({"type": "snapshot", "id": 1}, {"type": "blocks", "id": 2})
    peer.socket.shutdown(socket.SHUT_WR)
    assert [reply["id"] for reply in peer.hear_all()] == [1, 2]


def test_half_a_line_at_the_end_is_no_request(worker: FakeWorker, dial: Dial) -> None:
    """The worker closes without a reply to half a line."""
    peer = dial(worker)
    peer.say(b'{"type":"snapshot","id":1}')
    peer.socket.shutdown(socket.SHUT_WR)
    assert peer.hear_all() == []


def test_many_clients_see_the_same_totals(make_snapshot: Make, dial: Dial) -> None:
    """Reading a snapshot consumes nothing of it."""
    with FakeWorker([make_snapshot(3)]) as worker:
        peers = [dial(worker) for _ in range(20)]
        replies = [peer.ask(type="snapshot", id=0) for peer in peers * 2]
    assert all(reply == replies[0] for reply in replies)


def test_a_failed_snapshot_is_an_error_and_no_more(make_snapshot: Make, dial: Dial) -> None:
    """The same connection and the same worker go on."""
    with FakeWorker([RuntimeError("no memory\n" * 100), make_snapshot()]) as worker:
        peer = dial(worker)
        reply = peer.ask(type="snapshot", id=1)
        assert (reply["id"], reply["code"]) == (1, "internal")
        assert reply["message"].startswith("RuntimeError: no memory")
        assert len(reply["message"]) <= 200
        assert peer.ask(type="snapshot", id=2)["type"] == "snapshot"


def test_a_row_that_cannot_be_encoded_is_an_error(make_snapshot: Make, dial: Dial) -> None:
    """The request gets the code internal, and the service goes on."""
    broken = msgspec.structs.replace(make_snapshot(), sessions=[object()])
    with FakeWorker([broken, make_snapshot()]) as worker:
        assert dial(worker).ask(type="snapshot", id=1)["code"] == "internal"
        assert dial(worker).ask(type="snapshot", id=2)["type"] == "snapshot"


# --- watches -------------------------------------------------------------------------------------


def test_a_watch_sends_a_frame_per_interval(worker: FakeWorker, dial: Dial) -> None:
    """The first frame comes at once, and no interval has more than one."""
    peer = dial(worker)
    began = time.monotonic()
    peer.say({"type": "watch", "id": "w", "interval_s": 0.1})
    frames = [peer.hear() for _ in range(4)]
    assert time.monotonic() - began >= 0.29
    assert [(frame["type"], frame["id"], frame["seq"]) for frame in frames] == [
        ("snapshot", "w", seq) for seq in (1, 2, 3, 4)
    ]


def test_requests_are_answered_between_frames(worker: FakeWorker, dial: Dial) -> None:
    """A watch does not take the connection for itself."""
    peer = dial(worker)
    assert peer.ask(type="watch", id="w", interval_s=60)["seq"] == 1
    assert peer.ask(type="blocks", id=2)["type"] == "blocks"
    assert peer.ask(type="snapshot", id=3)["id"] == 3


def test_no_frame_comes_after_a_cancelled_watch_is_done(worker: FakeWorker, dial: Dial) -> None:
    """The id of a cancelled watch is free again."""
    peer = dial(worker)
    for _ in range(5):
        peer.say({"type": "watch", "id": 1, "interval_s": 0.1}, {"type": "cancel", "id": 1})
        while (message := peer.hear())["type"] == "snapshot":
            pass
        assert message == {"type": "done", "id": 1}
    assert peer.ask(type="bye", id=2) == {"type": "done", "id": 2}


def test_a_cancel_in_the_middle_of_a_frame_does_not_cut_it(counting: Counting, dial: Dial) -> None:
    """The cancel is answered behind the whole frame."""
    with counting(5_000) as worker:
        peer = dial(worker)
        peer.say({"type": "watch", "id": 1, "interval_s": 0.1}, {"type": "cancel", "id": 1})
        messages = [peer.hear()]
        while messages[-1]["type"] == "snapshot":
            assert len(messages[-1]["sessions"]) == 5_000
            messages.append(peer.hear())
        assert messages[-1] == {"type": "done", "id": 1}


def test_what_cannot_be_cancelled_is_a_bad_request(worker: FakeWorker, dial: Dial) -> None:
    """A cancel under an id that no watch has is refused."""
    reply = dial(worker).ask(type="cancel", id="x")
    assert (reply["id"], reply["code"], reply["message"]) == ("x", "bad-request", "no watch has the id 'x'")


def test_two_watches_need_two_ids(worker: FakeWorker, dial: Dial) -> None:
    """A second watch under one id is refused, because nothing would distinguish their frames."""
    peer = dial(worker)
    peer.ask(type="watch", id=1, interval_s=60)
    reply = peer.ask(type="watch", id=1, interval_s=60)
    assert (reply["id"], reply["code"]) == (1, "bad-request")


def test_the_ninth_watch_is_refused(worker: FakeWorker, dial: Dial) -> None:
    """A connection has room for eight watches, and a cancelled one makes room again."""
    peer = dial(worker)
    for request_id in range(8):
        assert peer.ask(type="watch", id=request_id, interval_s=60)["id"] == request_id
    assert peer.ask(type="watch", id=8, interval_s=60)["code"] == "too-many-watches"
    assert peer.ask(type="cancel", id=3) == {"type": "done", "id": 3}
    assert peer.ask(type="watch", id=8, interval_s=60)["type"] == "snapshot"


def test_several_watches_of_one_connection_all_get_frames(worker: FakeWorker, dial: Dial) -> None:
    """All eight watches get frames, although they are due at the same time."""
    peer = dial(worker)
    for request_id in range(8):
        peer.say({"type": "watch", "id": request_id, "interval_s": 0.1})
    heard = dict.fromkeys(range(8), 0)
    deadline = time.monotonic() + 20
    while min(heard.values()) < 3:
        heard[peer.hear()["id"]] += 1
        assert time.monotonic() < deadline


def test_a_failed_frame_ends_its_watch_only(make_snapshot: Make, dial: Dial) -> None:
    """The watch gets an error under its id, which is free again."""
    with FakeWorker([RuntimeError("no memory"), make_snapshot()]) as worker:
        peer = dial(worker)
        reply = peer.ask(type="watch", id=1, interval_s=60)
        assert (reply["id"], reply["code"]) == (1, "internal")
        assert peer.ask(type="watch", id=1, interval_s=60)["type"] == "snapshot"
        assert worker.faults == []


@linux_only
def test_a_watch_goes_on_after_its_client_ended_its_side(counting: Counting, dial: Dial) -> None:
    """The watch ends when its client closes the whole socket."""
    with counting(limits=Limits(clients=1)) as worker:
        peer = dial(worker)
        peer.say({"type": "watch", "id": 1, "interval_s": 0.1})
        peer.socket.shutdown(socket.SHUT_WR)
        assert [peer.hear()["seq"] for _ in range(3)] == [1, 2, 3]
        peer.close()
        _until_admitted(worker, dial)


@linux_only
def test_a_client_that_ended_its_side_and_vanishes_gives_its_place_up(counting: Counting, dial: Dial) -> None:
    """The place is free before the watch's next frame, 60 s away, is due."""
    with counting(limits=Limits(clients=1)) as worker:
        peer = dial(worker)
        peer.ask(type="watch", id=1, interval_s=60)
        peer.socket.shutdown(socket.SHUT_WR)
        peer.close()
        _until_admitted(worker, dial)


@linux_only
def test_a_client_that_closes_without_reading_costs_no_further_frame(
    counting: Counting, dial: Dial, eventually: Eventually
) -> None:
    """The next frame waits until the client reads, and none is made once the client is gone."""
    with counting(limits=Limits(clients=1, write_timeout_s=60)) as worker:
        peer = dial(worker)
        peer.say({"type": "watch", "id": 1, "interval_s": 0.1})
        eventually(lambda: worker.snapshots_taken == 1)
        time.sleep(0.2)
        peer.close()
        _until_admitted(worker, dial)
        assert worker.snapshots_taken == 1


# --- slow readers --------------------------------------------------------------------------------


def test_a_slow_reader_gets_the_newest_frame(counting: Counting, dial: Dial, eventually: Eventually) -> None:
    """A slow reader of large frames gets the one that was being sent, then a new one."""
    with counting(5_000, limits=Limits(write_timeout_s=60)) as worker:
        slow, quick = dial(worker), dial(worker)
        slow.say({"type": "watch", "id": 1, "interval_s": 0.1})
        eventually(lambda: worker.snapshots_taken >= 1)
        quick.say({"type": "watch", "id": 1, "interval_s": 0.1})
        while (newest := quick.hear()["seq"]) < 5:
            pass
        assert slow.hear()["seq"] <= 2
        assert slow.hear()["seq"] >= newest


@linux_only
def test_a_slow_reader_of_small_frames_gets_the_newest_too(counting: Counting, dial: Dial) -> None:
    """Frames that would fit the socket's buffer do not grow old there."""
    with counting(limits=Limits(write_timeout_s=60)) as worker:
        slow, quick = dial(worker), dial(worker)
        slow.say({"type": "watch", "id": 1, "interval_s": 0.1})
        quick.say({"type": "watch", "id": 1, "interval_s": 0.1})
        while (newest := quick.hear()["seq"]) < 10:
            pass
        assert slow.hear()["seq"] <= 2
        assert slow.hear()["seq"] >= newest


def test_readers_that_never_read_do_not_make_the_worker_grow(counting: Counting, dial: Dial) -> None:
    """All clients that never read together hold less memory than 24 frames."""
    with counting(5_000, limits=Limits(write_timeout_s=60)) as worker:
        quick = dial(worker)
        frame = len(json.dumps(quick.ask(type="snapshot", id=0)))
        before = psutil.Process().memory_info().rss
        for _ in range(31):
            mute = dial(worker)
            for request_id in range(8):
                mute.say({"type": "watch", "id": request_id, "interval_s": 0.1})
        for _ in range(5):
            quick.ask(type="snapshot", id=1)
        assert psutil.Process().memory_info().rss - before < 24 * frame


@pytest.mark.parametrize("sessions", [5_000, pytest.param(0, marks=linux_only)])
def test_a_watcher_that_never_reads_is_closed(counting: Counting, dial: Dial, sessions: int) -> None:
    """The worker closes it after the write timeout and serves the others."""
    with counting(sessions, limits=Limits(write_timeout_s=0.2)) as worker:
        mute = dial(worker)
        mute.say({"type": "watch", "id": 1, "interval_s": 0.1})
        mute.wait_until_closed()
        assert dial(worker).ask(type="blocks", id=1)["type"] == "blocks"
        assert worker.faults == []


def test_a_client_that_never_reads_its_replies_is_closed(counting: Counting, dial: Dial) -> None:
    """The worker closes it after the write timeout and serves the others."""
    with counting(2_000, limits=Limits(write_timeout_s=0.2)) as worker:
        mute = dial(worker)
        mute.say(*({"type": "snapshot", "id": n} for n in range(20)))
        mute.wait_until_closed()
        assert dial(worker).ask(type="blocks", id=1)["type"] == "blocks"
        assert worker.faults == []


def test_stopping_does_not_wait_for_a_client_that_never_reads(counting: Counting, dial: Dial) -> None:
    """The worker stops within 4 s, although the write timeout is 60 s."""
    with counting(5_000, limits=Limits(write_timeout_s=60)) as worker:
        for request_id in (1, 2):
            dial(worker).say({"type": "watch", "id": request_id, "interval_s": 0.1})
        dial(worker).ask(type="snapshot", id=1)
        began = time.monotonic()
    assert time.monotonic() - began < 4


# --- idle ----------------------------------------------------------------------------------------


def test_an_idle_client_is_closed(short_tempered: FakeWorker, dial: Dial) -> None:
    """The worker closes it after the idle timeout and not before."""
    began = time.monotonic()
    assert dial(short_tempered).hear_all() == []
    assert time.monotonic() - began >= 0.3


@pytest.mark.slow
def test_half_a_request_does_not_keep_a_connection(short_tempered: FakeWorker, dial: Dial) -> None:
    """A client that sends a line without end is closed, although its bytes keep coming."""
    peer = dial(short_tempered)

    def dawdle() -> None:
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            peer.say(b"[")
            time.sleep(0.02)

    with pytest.raises(ConnectionError):
        dawdle()


@pytest.mark.slow
def test_a_watch_keeps_a_connection(short_tempered: FakeWorker, dial: Dial) -> None:
    """The idle timeout begins when the watch ends."""
    peer = dial(short_tempered)
    peer.say({"type": "watch", "id": 1, "interval_s": 0.1})
    assert [peer.hear()["seq"] for _ in range(7)] == list(range(1, 8))
    began = time.monotonic()
    peer.say({"type": "cancel", "id": 1})
    assert peer.hear_all()[-1] == {"type": "done", "id": 1}
    assert time.monotonic() - began >= 0.3


@pytest.mark.slow
def test_a_watch_slower_than_the_idle_timeout_keeps_a_connection(short_tempered: FakeWorker, dial: Dial) -> None:
    """The connection stays open between two frames, too."""
    peer = dial(short_tempered)
    peer.say({"type": "watch", "id": 1, "interval_s": 0.8})
    assert [peer.hear()["seq"] for _ in range(2)] == [1, 2]


# --- hostile clients -----------------------------------------------------------------------------


def _until_admitted(worker: FakeWorker, dial: Dial) -> Any:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        peer = dial(worker, greeted=False)
        if peer.hear()["type"] == "hello":
            return peer
        peer.close()
        time.sleep(0.01)
    raise AssertionError("the worker takes no one any more")


def test_the_33rd_client_is_refused(worker: FakeWorker, dial: Dial) -> None:
    """If all 32 clients have asked something, the next is refused until one of them leaves."""
    peers = [dial(worker) for _ in range(32)]
    for peer in peers:
        peer.ask(type="blocks", id=0)
    refused = dial(worker, greeted=False)
    (reply,) = refused.hear_all()
    assert (reply["id"], reply["code"]) == (None, "too-many-clients")
    assert peers[31].ask(type="snapshot", id=1)["type"] == "snapshot"
    peers[0].close()
    assert _until_admitted(worker, dial).ask(type="snapshot", id=1)["type"] == "snapshot"


def test_a_crowd_that_asks_nothing_locks_nobody_out(worker: FakeWorker, dial: Dial) -> None:
    """The oldest clients that have asked nothing give way and get the reason; half a request is none."""
    watcher, half, oldest = (dial(worker) for _ in range(3))
    assert watcher.ask(type="watch", id=1, interval_s=0.1)["seq"] == 1
    half.say(b'{"type":"snapshot"')
    crowd = [dial(worker) for _ in range(29)]
    newcomers = [dial(worker) for _ in range(3)]
    for gone in (half, oldest, crowd[0]):
        assert [message["code"] for message in gone.hear_all()] == ["too-many-clients"]
    for peer in (*newcomers, *crowd[1:]):
        assert peer.ask(type="blocks", id=1)["type"] == "blocks"
    assert watcher.hear()["type"] == "snapshot"


def test_a_client_that_vanishes_gives_its_place_up(counting: Counting, dial: Dial) -> None:
    """The place is free before the watch's next frame, 60 s away, is due."""
    with counting(limits=Limits(clients=1)) as worker:
        peer = dial(worker)
        peer.ask(type="watch", id=1, interval_s=60)
        peer.close()
        _until_admitted(worker, dial)


def test_every_refused_line_is_answered_on_one_connection(worker: FakeWorker, dial: Dial) -> None:
    """No refused line breaks the connection."""
    peer = dial(worker)
    for refused in refused_lines:
        peer.say(refused.line + b"\n")
        reply = peer.hear()
        assert (reply["type"], reply["code"], reply["id"]) == ("error", refused.code, refused.id), refused.name
    assert peer.ask(type="snapshot", id=1)["type"] == "snapshot"


def test_a_line_over_the_limit_is_reported_and_ends_it(worker: FakeWorker, dial: Dial) -> None:
    """Complete lines before it are answered, and a line of exactly the limit is read."""
    peer = dial(worker)
    fits = b'{"type":"blocks","id":1}'
    peer.say(fits.ljust(65_535) + b"\n")
    assert peer.hear()["id"] == 1
    peer.say(fits + b"\n" + fits.ljust(65_536) + b"\n")
    answer, refusal = peer.hear_all()
    assert answer["id"] == 1
    assert (refusal["id"], refusal["code"]) == (None, "line-too-long")


@pytest.mark.parametrize("depth", [1_000, 10_000, 30_000])
def test_deep_nesting_is_answered(worker: FakeWorker, dial: Dial, depth: int) -> None:
    """The service's thread, whose stack is smaller, refuses the line and goes on."""
    peer = dial(worker)
    for line in (b"[" * depth, b'{"type":"x","id":1,"y":' + b"[" * depth + b"]" * depth + b"}"):
        peer.say(line + b"\n")
        assert peer.hear()["type"] == "error"
    assert peer.ask(type="snapshot", id=1)["type"] == "snapshot"


def _flood(path: Path, data: bytes, over: threading.Event) -> None:
    while not over.is_set():
        with socket.socket(socket.AF_UNIX) as client:
            try:
                client.settimeout(0.2)
                client.connect(str(path))
                while not over.is_set():
                    client.sendall(data)
            except OSError:
                pass


@linux_only
def test_what_a_client_left_behind_is_not_worked_off(counting: Counting, dial: Dial) -> None:
    """The place is free once the client is gone, and most of its requests are never answered."""
    with counting(limits=Limits(clients=1)) as worker:
        peer = dial(worker)
        requests = b'{"type":"snapshot","id":1}\n' * 100
        peer.say(requests)
        peer.hear()
        peer.say(requests)
        peer.close()
        _until_admitted(worker, dial)
        assert worker.snapshots_taken < 150


@pytest.mark.parametrize(
    "data",
    [
        b"x" * (1 << 20),
        b"\n" * (1 << 16),
        b"{}\n" * (1 << 14),
        b'{"type":"snapshot","id":1}\n' * 1_000,
        b'{"type":"blocks"',
        random.Random(7).randbytes(1 << 16),
    ],
    ids=["no newline", "newlines", "bad requests", "requests", "half lines", "noise"],
)
def test_a_flood_is_its_own_connections_matter(worker: FakeWorker, dial: Dial, data: bytes) -> None:
    """Another client is served during the flood and after it."""
    assert worker.path is not None
    over = threading.Event()
    peer = dial(worker)
    floods = [threading.Thread(target=_flood, args=(worker.path, data, over)) for _ in range(3)]
    for flood in floods:
        flood.start()
    try:
        for request_id in range(10):
            assert peer.ask(type="snapshot", id=request_id)["id"] == request_id
    finally:
        over.set()
        for flood in floods:
            flood.join(20)
    assert _until_admitted(worker, dial).ask(type="snapshot", id=1)["type"] == "snapshot"


def test_connections_that_come_and_go_disturb_no_client(worker: FakeWorker, dial: Dial) -> None:
    """A client is served while 200 others come and go, more at once than the limit."""
    peer = dial(worker)
    for _ in range(5):
        crowd = [dial(worker, greeted=False) for _ in range(40)]
        for each in crowd[::2]:
            each.close()
        assert peer.ask(type="snapshot", id=1)["type"] == "snapshot"
        for each in crowd:
            each.close()
    assert _until_admitted(worker, dial).ask(type="snapshot", id=1)["type"] == "snapshot"
    assert worker.faults == []


_AS_SOMEONE_ELSE = """
import os, socket, sys
os.setgroups([])
os.setgid(65534)
os.setuid(65534)
client = socket.socket(socket.AF_UNIX)
client.settimeout(20)
try:
    client.connect(sys.argv[1])
    print(client.recv(100))
except OSError as error:
    print(type(error).__name__)
"""


def _as_someone_else(worker: FakeWorker) -> str:
    command = [sys.executable, "-c", _AS_SOMEONE_ELSE, str(worker.path)]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout.strip()


@root_only
def test_another_user_cannot_connect(worker: FakeWorker) -> None:
    """The socket's own mode keeps another user out, even if the directory is open."""
    assert worker.path is not None
    worker.path.parent.chmod(0o755)
    assert _as_someone_else(worker) == "PermissionError"


@root_only
def test_another_user_who_connects_gets_nothing(worker: FakeWorker) -> None:
    """The kernel reports the peer's user, so an open directory and socket give nothing away."""
    assert worker.path is not None
    worker.path.parent.chmod(0o755)
    worker.path.chmod(0o666)
    assert _as_someone_else(worker) == "b''"


class Nothing:
    """A source without sessions."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot

    def snapshot(self) -> Snapshot:
        return self._snapshot

    def blocks(self, since: int) -> list[Block]:
        return []


def _hello() -> Hello:
    return Hello(protocol="1.0", worker="w", pid=1, capabilities=["snapshot"])


def test_running_out_of_files_passes(short_dir: Path, make_snapshot: Make) -> None:
    """The server waits until file descriptors are free again."""

    class Exhausted(socket.socket):
        refusals = 0

        def accept(self) -> Any:
            if self.refusals < 2:
                self.refusals += 1
                raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
            return super().accept()

    listener, path = open_listener("w", short_dir / "w.sock")
    exhausted = Exhausted(fileno=listener.detach())

    async def main() -> int:
        async with anyio.create_task_group() as group:
            group.start_soon(Server(exhausted, Nothing(make_snapshot(seq=7)), _hello()).serve)
            snapshot = await anyio.to_thread.run_sync(lambda: read_snapshot(path, timeout_s=20))
            group.cancel_scope.cancel()
        return snapshot.seq

    with exhausted:
        assert anyio.run(main) == 7
        assert exhausted.refusals == 2


def test_a_server_that_fails_is_reported_and_refuses(short_dir: Path, make_snapshot: Make) -> None:
    """Clients get ConnectionFailed, the fault is reported once, and the service's ticks go on."""

    class Broken(socket.socket):
        def accept(self) -> Any:
            raise RuntimeError("no such thing")

    listener, path = open_listener("w", short_dir / "w.sock")
    faults: list[str] = []
    reported, ticked = threading.Event(), threading.Semaphore(0)

    def on_fault(part: str, error: Exception) -> None:
        faults.append(part)
        reported.set()

    service = WorkerService(
        listener=Broken(fileno=listener.detach()),
        source=Nothing(make_snapshot()),
        hello=_hello(),
        clock=time.perf_counter,
        interval_s=0.01,
        idle=lambda: False,
        tick=lambda now: ticked.release(),
        on_fault=on_fault,
    )
    service.start()
    with pytest.raises(ConnectionFailed):
        read_snapshot(path, timeout_s=20)
    assert reported.wait(20)
    with pytest.raises(ConnectionFailed, match="Connection refused"):
        read_snapshot(path, timeout_s=20)
    for _ in range(3):
        assert ticked.acquire(timeout=60)
    service.stop()
    service.join(20)
    assert faults == ["socket"]


# --- pacing --------------------------------------------------------------------------------------


def test_a_snapshot_is_shared_while_it_is_fresh(make_snapshot: Make) -> None:
    """It is shared for four times its building time, each under its request's id."""
    now = 0.0
    taken = 0

    class Slow(Nothing):
        def snapshot(self) -> Snapshot:
            nonlocal now, taken
            now += 0.5
            taken += 1
            return make_snapshot(seq=taken)

    shared = SharedSnapshot(Slow(make_snapshot()), lambda: now, lambda: now)

    def ask(request_id: int | str) -> Any:
        reply = json.loads(b"".join(shared.message(request_id)))
        return reply["id"], reply["seq"]

    assert ask(1) == (1, 1)
    now += 1.9
    assert ask("é") == ("é", 1)
    now += 0.2
    assert ask(3) == (3, 2)


def test_nothing_is_kept_for_nobody(counting: Counting, dial: Dial, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rows are freed once the last client has left and none has come for a while."""
    made: list[SharedSnapshot] = []

    class Noted(SharedSnapshot):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            made.append(self)

    monkeypatch.setattr(_server, "SharedSnapshot", Noted)
    monkeypatch.setattr(_server, "KEPT_S", 0.05)
    with counting(3) as worker:
        for _ in range(2):
            first, second = dial(worker), dial(worker)
            first.ask(type="snapshot", id=1)
            second.ask(type="snapshot", id=1)
            first.close()
            time.sleep(0.2)
            (shared,) = made
            assert shared._table is not None
            second.close()
            deadline = time.monotonic() + 20
            while shared._table is not None:
                assert time.monotonic() < deadline
                time.sleep(0.01)


@pytest.mark.parametrize("sessions", [0, 1, 1000, 1001, 2500])
def test_a_shared_snapshot_is_encoded_like_any(make_snapshot: Make, sessions: int) -> None:
    """The bytes equal those of a snapshot that is encoded whole, whatever the number of rows."""
    snapshot = make_snapshot(sessions)
    message = SharedSnapshot(Nothing(snapshot), lambda: 0.0, lambda: 0.0).message("id")
    assert b"".join(message) == encode(msgspec.structs.replace(snapshot, id="id"))


def test_work_is_followed_by_four_times_its_rest(make_snapshot: Make) -> None:
    """The next request waits four times the CPU time of the work before it."""
    cpu = 0.0

    async def main() -> float:
        with socket.socket(socket.AF_UNIX) as unused:
            server = Server(unused, Nothing(make_snapshot()), _hello(), cpu_clock=lambda: cpu)

            def work() -> None:
                nonlocal cpu
                cpu += 0.05

            began = time.perf_counter()
            await server.paced(work)
            await server.paced(lambda: None)
            return time.perf_counter() - began

    assert anyio.run(main) >= 0.2


def test_those_who_wait_for_one_snapshot_get_the_same(make_snapshot: Make) -> None:
    """Five watchers share one snapshot that took 1 s to build, because their turns come in time."""
    cpu = 0.0
    taken = 0

    class Slow(Nothing):
        def snapshot(self) -> Snapshot:
            nonlocal cpu, taken
            cpu += 1.0
            taken += 1
            return make_snapshot(seq=taken)

    async def main() -> None:
        with socket.socket(socket.AF_UNIX) as unused:
            server = Server(unused, Slow(make_snapshot()), _hello(), cpu_clock=lambda: cpu)
            async with anyio.create_task_group() as group:
                for watcher in range(5):
                    group.start_soon(server.paced, lambda watcher=watcher: server.shared.message(watcher))

    anyio.run(main)
    assert taken == 1


# --- a real worker -------------------------------------------------------------------------------


def _sleep_until(over: threading.Event) -> None:
    over.wait(20)


def _spin_until(over: threading.Event) -> None:
    while not over.is_set():
        pass


@pytest.mark.parametrize("block", [_sleep_until, _spin_until], ids=["sleeping", "spinning"])
def test_a_worker_answers_while_its_loop_is_blocked(short_dir: Path, block: Callable[[threading.Event], None]) -> None:
    """The worker names the blocking session before the block ends."""
    path = short_dir / "w.sock"
    over = threading.Event()
    answers: list[Snapshot] = []

    def ask() -> None:
        try:
            deadline = time.monotonic() + 15
            while time.monotonic() < deadline:
                snapshot = read_snapshot(path, timeout_s=15)
                # At its beginning a block may be due to the machine, on one that is busy: then it is no session's.
                if any(block.session_id for block in snapshot.blocks_in_progress):
                    answers.append(snapshot)
                    return
        finally:
            over.set()

    async def main() -> None:
        async with Introspector(socket_path=path) as introspector:
            with introspector.session("job-1", agent_name="restaurant"):
                asker = threading.Thread(target=ask)
                await asyncio.sleep(0)
                asker.start()
                block(over)
                asker.join(20)

    asyncio.run(main())
    (snapshot,) = answers
    (row,) = snapshot.sessions
    (in_progress,) = snapshot.blocks_in_progress
    assert (row.session_id, row.status) == ("job-1", "blocked")
    assert (in_progress.session_id, in_progress.in_progress) == ("job-1", True)
    assert in_progress.running_since is not None
    assert in_progress.running_since < snapshot.taken_at
    assert not path.exists()
