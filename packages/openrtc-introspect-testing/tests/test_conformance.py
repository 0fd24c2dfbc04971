from __future__ import annotations

import contextlib
import itertools
import os
import select
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from openrtc_introspect_core import ConnectionFailed
from openrtc_introspect_core.wire import (
    Block,
    Blocks,
    Done,
    Error,
    Hello,
    Limits,
    LineBuffer,
    Location,
    SessionRow,
    Snapshot,
    Stacks,
    TaskInfo,
    Tasks,
    ThreadStack,
    WatchRequest,
    WorkerInfo,
    encode,
)
from openrtc_introspect_core.wire._endpoint import open_listener
from openrtc_introspect_testing import conformance
from openrtc_introspect_testing.__main__ import main
from openrtc_introspect_testing._rawserver import ANSWERED, Conversation, RawServer

replace = msgspec.structs.replace
PLACES = [Location("agent.py", number, "answer") for number in range(1, 65)]
TASKS = [
    TaskInfo(id=1, name="Task-1", coroutine="entrypoint", awaits=PLACES),
    TaskInfo(id=2, name="Task-2", coroutine="answer", state="running", awaits=PLACES, awaited_by=[1]),
]
STACKS = [
    ThreadStack(name="MainThread", thread_id=7, loop=True, session_id="job", task_name="Task-2", frames=PLACES),
    ThreadStack(name="", thread_id=8),
]
BLOCKS = [Block(seq=seq, started_at=1e9 + seq, duration_ms=60.0) for seq in (3, 4, 5)]


class Books:
    """Snapshots as a worker makes them: totals rise, all is of one moment."""

    def __init__(self) -> None:
        self._seq = itertools.count(1)

    def __call__(self) -> Snapshot:
        seq = next(self._seq)
        now = 1e9 + 100 + seq
        worker = WorkerInfo(
            name="w", pid=os.getpid(), epoch="e", started_at=1e9, uptime_s=now - 1e9, sessions=1, started=1, blocks=5
        )
        row = SessionRow(
            session_id="job", agent_name="a", started_at=1e9 + 1, duration_s=now - 1e9 - 1, cpu_s=10.0 + seq, steps=seq
        )
        block = Block(seq=0, started_at=now - 1, duration_ms=1000.0, in_progress=True, running_since=now - 1)
        return Snapshot(seq=seq, taken_at=now, worker=worker, sessions=[row], blocks_in_progress=[block])


@contextlib.contextmanager
def served(
    folder: Path,
    conversation: type[Conversation] = Conversation,
    limits: Limits | None = None,
    capabilities: tuple[str, ...] = ANSWERED,
) -> Iterator[Path]:
    hello = Hello(
        protocol="1.0",
        worker="w",
        pid=os.getpid(),
        epoch="e",
        capabilities=list(capabilities),
        limits=limits or Limits(),
    )
    listener, path = open_listener("w", folder / f"w-{os.getpid()}.sock")
    server = RawServer(listener, hello, Books(), BLOCKS, conversation, tasks={"job": TASKS}, stacks=STACKS)
    with listener, server:
        yield path


@pytest.fixture
def folder() -> Iterator[Path]:
    """A private directory whose path is short enough for a socket's."""
    with tempfile.TemporaryDirectory(prefix="openrtc-c-", dir="/tmp") as directory:
        yield Path(directory)


# --- servers -----------------------------------------------------------------------------------------


def test_a_server_that_keeps_to_the_page_has_no_findings(folder: Path) -> None:
    """Every rule is seen to be kept, but for a timeout that takes too long."""
    with served(folder) as path:
        outcomes = conformance.server_outcomes(path)
    assert [str(outcome.finding) for outcome in outcomes if outcome.finding is not None] == []
    assert [outcome.rule for outcome in outcomes if outcome.unchecked is not None] == ["idle-timeout"]
    assert tuple(outcome.rule for outcome in outcomes) == conformance.SERVER_RULES


def test_a_short_idle_timeout_is_waited_for(folder: Path) -> None:
    """It is kept, and so seen to be."""
    with served(folder, limits=Limits(idle_timeout_s=0.2)) as path:
        (outcome,) = conformance.server_outcomes(path, rules=["idle-timeout"])
    assert (outcome.finding, outcome.unchecked) == (None, None)


class GreetsWithASnapshot(Conversation):
    def greeting(self) -> bytes:
        return encode(self.server.snapshot())


class GreetsOnlyWhenAsked(Conversation):
    def greeting(self) -> bytes:
        return b""


class HasNoMinorVersion(Conversation):
    def greeting(self) -> bytes:
        return encode(replace(self.server.hello, protocol="1"))


class IsOfAnotherMajorVersion(Conversation):
    def greeting(self) -> bytes:
        return encode(replace(self.server.hello, protocol="2.0"))


class LeavesAFieldOut(Conversation):
    def send(self, data: bytes) -> None:
        super().send(data.replace(b'"agent_name":"a",', b""))


class WritesNumbersAsText(Conversation):
    def send(self, data: bytes) -> None:
        super().send(data.replace(b'"last_seq":5', b'"last_seq":"5"'))


class IsSomeoneElse(Conversation):
    def greeting(self) -> bytes:
        return encode(replace(self.server.hello, pid=1))


class WritesNaN(Conversation):
    def send(self, data: bytes) -> None:
        super().send(data.replace(b'"rss_mb":0.0', b'"rss_mb":NaN'))


class DoesNotCancel(Conversation):
    def cancel(self, request_id: Any) -> None:
        self.say(Error(id=request_id, code="unsupported"))


class AnswersWhatItDoesNotKnow(Conversation):
    def answer(self, line: bytes) -> bool:
        if b"x-unheard-of" in line:
            self.say(Done(id="x"))
            return True
        return super().answer(line)


class MakesTextOfIds(Conversation):
    def blocks(self, request_id: Any, since: int) -> Blocks:
        return super().blocks(str(request_id), since)


class AnswersSnapshotsLast(Conversation):
    def answer(self, line: bytes) -> bool:
        if b'"snapshot"' not in line:
            self.__dict__.setdefault("late", [])
            more = super().answer(line)
            for each in self.late:
                super().answer(each)
            self.late: list[bytes] = []
            return more
        self.late = [line]
        return True


class TakesBlankLinesForRequests(Conversation):
    def buffer(self) -> Any:
        class Buffer(LineBuffer):
            def feed(self, data: bytes) -> Iterator[bytes]:
                yield from data.split(b"\n")[:-1]

        return Buffer(self.limits.request_bytes)


class TakesPiecesForLines(Conversation):
    def buffer(self) -> Any:
        class Buffer(LineBuffer):
            def feed(self, data: bytes) -> Iterator[bytes]:
                yield from data.splitlines()

        return Buffer(self.limits.request_bytes)


class RefusesUnknownFields(Conversation):
    def answer(self, line: bytes) -> bool:
        if b"unheard_of" in line:
            self.say(Error(id=1, code="bad-request"))
            return True
        return super().answer(line)


class HasASmallerLimit(Conversation):
    def buffer(self) -> LineBuffer:
        return LineBuffer(self.limits.request_bytes - 1)


class HasNoLimit(Conversation):
    def buffer(self) -> LineBuffer:
        return LineBuffer(1 << 30)


class ForgetsTheIdOfWhatItRefuses(Conversation):
    def say(self, message: Any) -> None:
        super().say(replace(message, id=None) if isinstance(message, Error) else message)


class ConfusesCodes(Conversation):
    def say(self, message: Any) -> None:
        super().say(replace(message, code="bad-request") if isinstance(message, Error) else message)


class ClosesOnWhatItRefuses(Conversation):
    def answer(self, line: bytes) -> bool:
        return super().answer(line) and b'"hello"' not in line


class GuessesTheEndOfALine(Conversation):
    def buffer(self) -> Any:
        class Buffer(LineBuffer):
            def feed(self, data: bytes) -> Iterator[bytes]:
                yield from super().feed(data or b"\n")

        return Buffer(self.limits.request_bytes)


class DropsWhoSendsNoMore(Conversation):
    def answer(self, line: bytes) -> bool:
        poll = select.poll()
        poll.register(self.socket, select.POLLRDHUP)
        return not poll.poll(50) and super().answer(line)


class WatchesTooOften(Conversation):
    def watch(self, request: WatchRequest) -> None:
        super().watch(request)
        self.watches[request.id] = 0.01, time.monotonic()


class WatchesBackwards(Conversation):
    def snapshot(self, request_id: Any) -> Snapshot:
        taken = super().snapshot(request_id)
        return replace(taken, seq=1000 - taken.seq)


class TakesTwoWatchesOfOneId(Conversation):
    def watch(self, request: WatchRequest) -> None:
        self.watches[request.id] = request.interval_s, time.monotonic()


class TakesAnyNumberOfWatches(Conversation):
    def watch(self, request: WatchRequest) -> None:
        self.limits = replace(self.limits, watches=1000)
        super().watch(request)


class GoesOnAfterACancel(Conversation):
    def cancel(self, request_id: Any) -> None:
        kept = dict(self.watches)
        super().cancel(request_id)
        self.watches = kept


class CancelsWhatIsNot(Conversation):
    def cancel(self, request_id: Any) -> None:
        self.watches.pop(request_id, None)
        self.say(Done(id=request_id))


class StaysAfterBye(Conversation):
    def answer(self, line: bytes) -> bool:
        super().answer(line)
        return True


class LeavesWithoutAWord(Conversation):
    def answer(self, line: bytes) -> bool:
        return b'"bye"' not in line and super().answer(line)


class IgnoresSince(Conversation):
    def blocks(self, request_id: Any, since: int) -> Blocks:
        return super().blocks(request_id, 0)


class TellsBlocksNewestFirst(Conversation):
    def blocks(self, request_id: Any, since: int) -> Blocks:
        told = super().blocks(request_id, since)
        return replace(told, blocks=told.blocks[::-1])


class LosesABlock(Conversation):
    def blocks(self, request_id: Any, since: int) -> Blocks:
        told = super().blocks(request_id, since)
        return replace(told, blocks=[block for block in told.blocks if not (since and block.seq == 5)])


class ForgetsTheLastSeq(Conversation):
    def blocks(self, request_id: Any, since: int) -> Blocks:
        told = super().blocks(request_id, since)
        return replace(told, last_seq=told.blocks[-1].seq if told.blocks else 0)


class FindsEverySession(Conversation):
    def tasks(self, request_id: Any, session_id: str) -> Any:
        return Tasks(id=request_id, session_id=session_id)


class ClosesOnAnUnknownSession(Conversation):
    def tasks(self, request_id: Any, session_id: str) -> Any:
        found = super().tasks(request_id, session_id)
        if isinstance(found, Error):
            self.say(found)
            raise OSError("no such session")
        return found


class FindsNoSession(Conversation):
    def tasks(self, request_id: Any, session_id: str) -> Any:
        return super().tasks(request_id, "")


class TellsAnotherSessionsTasks(Conversation):
    def tasks(self, request_id: Any, session_id: str) -> Any:
        return Tasks(id=request_id, session_id="another", tasks=TASKS)


class TellsOtherTasks(Conversation):
    """Of these, a subclass for each fault."""

    told: tuple[TaskInfo, ...] = ()
    truncated = False

    def tasks(self, request_id: Any, session_id: str) -> Any:
        return Tasks(id=request_id, session_id=session_id, tasks=list(self.told), truncated=self.truncated)


class GivesTwoTasksOneId(TellsOtherTasks):
    told = tuple(replace(task, id=1) for task in TASKS)


class CountsTasksFrom0(TellsOtherTasks):
    told = tuple(replace(task, id=task.id - 1, awaited_by=[]) for task in TASKS)


class TellsTooManyTasks(TellsOtherTasks):
    told = tuple(TaskInfo(id=number, name="t") for number in range(1, 502))


class SaysThatItCutTheList(TellsOtherTasks):
    told, truncated = tuple(TASKS), True


class NamesAWaiterThatIsNot(TellsOtherTasks):
    told = (replace(TASKS[0], awaited_by=[3]),)


class TellsEveryCall(TellsOtherTasks):
    told = (replace(TASKS[0], awaits=PLACES + PLACES[:1]),)


class TellsOtherStacks(Conversation):
    """Of these, a subclass for each fault."""

    told: tuple[ThreadStack, ...] = ()

    def stacks(self, request_id: Any) -> Stacks:
        return Stacks(id=request_id, threads=list(self.told))


class TellsNoThread(TellsOtherStacks): ...


class TellsAThreadTwice(TellsOtherStacks):
    told = (STACKS[0], *STACKS)


class TellsTheLoopsThreadLast(TellsOtherStacks):
    told = tuple(reversed(STACKS))


class PutsATaskWhereNoLoopRuns(TellsOtherStacks):
    told = (replace(STACKS[0], loop=False),)


class TellsEveryFrame(TellsOtherStacks):
    told = (replace(STACKS[0], frames=PLACES + PLACES[:1]),)


class LeavesATasksNameOut(Conversation):
    def send(self, data: bytes) -> None:
        super().send(data.replace(b'"name":"Task-1",', b""))


class LeavesAThreadsIdOut(Conversation):
    def send(self, data: bytes) -> None:
        super().send(data.replace(b'"thread_id":7,', b""))


class DoesNotTellStacks(Conversation):
    def stacks(self, request_id: Any) -> Any:
        return Error(id=request_id, code="unsupported")


class ConsumesTotals(Conversation):
    def snapshot(self, request_id: Any) -> Snapshot:
        taken = super().snapshot(request_id)
        rows = [replace(row, cpu_s=1.0 / taken.seq) for row in taken.sessions]
        return replace(taken, sessions=rows)


class ConsumesTheWorkersTotals(Conversation):
    def snapshot(self, request_id: Any) -> Snapshot:
        taken = super().snapshot(request_id)
        return replace(taken, worker=replace(taken.worker, blocks=1000 - taken.seq))


class GoesBackInTime(Conversation):
    def snapshot(self, request_id: Any) -> Snapshot:
        taken = super().snapshot(request_id)
        return replace(taken, taken_at=2e9 - taken.seq)


class MixesMoments(Conversation):
    def snapshot(self, request_id: Any) -> Snapshot:
        taken = super().snapshot(request_id)
        rows = [replace(row, duration_s=row.duration_s + 0.5) for row in taken.sessions]
        return replace(taken, sessions=rows)


class ForgetsWhenABlockBegan(Conversation):
    def snapshot(self, request_id: Any) -> Snapshot:
        taken = super().snapshot(request_id)
        return replace(taken, blocks_in_progress=[replace(taken.blocks_in_progress[0], running_since=None)])


class FinishesABlockInProgress(Conversation):
    def snapshot(self, request_id: Any) -> Snapshot:
        taken = super().snapshot(request_id)
        return replace(taken, blocks_in_progress=[replace(taken.blocks_in_progress[0], seq=6)])


class ServesOneAtATime(Conversation):
    def run(self) -> None:
        while self.server.clients > 1 and not self.server.over.is_set():
            time.sleep(0.01)
        super().run()


class LetsEveryoneIn(Conversation):
    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.limits = replace(self.limits, clients=1000)


class RefusesWithoutAWord(Conversation):
    def refusal(self) -> bytes:
        return b""


class WaitsForEver(Conversation):
    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.limits = replace(self.limits, idle_timeout_s=1e6)


@pytest.mark.parametrize(
    ("rule", "conversation"),
    [
        ("hello-first", GreetsWithASnapshot),
        ("hello-first", GreetsOnlyWhenAsked),
        ("version", HasNoMinorVersion),
        ("version", IsOfAnotherMajorVersion),
        ("fields", LeavesAFieldOut),
        ("fields", WritesNumbersAsText),
        ("fields", WritesNaN),
        ("fields", LeavesATasksNameOut),
        ("fields", LeavesAThreadsIdOut),
        ("identity", IsSomeoneElse),
        ("capabilities", DoesNotCancel),
        ("capabilities", DoesNotTellStacks),
        ("capabilities", AnswersWhatItDoesNotKnow),
        ("id-echo", MakesTextOfIds),
        ("order", AnswersSnapshotsLast),
        ("blank-lines", TakesBlankLinesForRequests),
        ("pieces", TakesPiecesForLines),
        ("unknown-fields", RefusesUnknownFields),
        ("request-limit", HasASmallerLimit),
        ("request-limit", HasNoLimit),
        ("refusals", ForgetsTheIdOfWhatItRefuses),
        ("refusals", ConfusesCodes),
        ("refusals", ClosesOnWhatItRefuses),
        ("half-line", GuessesTheEndOfALine),
        ("half-close", DropsWhoSendsNoMore),
        ("watch", WatchesTooOften),
        ("watch", WatchesBackwards),
        ("watch-ids", TakesTwoWatchesOfOneId),
        ("watch-limit", TakesAnyNumberOfWatches),
        ("cancel", GoesOnAfterACancel),
        ("cancel", CancelsWhatIsNot),
        ("bye", StaysAfterBye),
        ("bye", LeavesWithoutAWord),
        ("blocks-since", IgnoresSince),
        ("blocks-since", TellsBlocksNewestFirst),
        ("blocks-since", LosesABlock),
        ("blocks-since", ForgetsTheLastSeq),
        ("not-found", FindsEverySession),
        ("not-found", ClosesOnAnUnknownSession),
        ("not-found", ConfusesCodes),
        ("tasks", FindsNoSession),
        ("tasks", TellsAnotherSessionsTasks),
        ("tasks", GivesTwoTasksOneId),
        ("tasks", CountsTasksFrom0),
        ("tasks", TellsTooManyTasks),
        ("tasks", SaysThatItCutTheList),
        ("tasks", NamesAWaiterThatIsNot),
        ("tasks", TellsEveryCall),
        ("stacks", TellsNoThread),
        ("stacks", TellsAThreadTwice),
        ("stacks", TellsTheLoopsThreadLast),
        ("stacks", PutsATaskWhereNoLoopRuns),
        ("stacks", TellsEveryFrame),
        ("totals", ConsumesTotals),
        ("totals", ConsumesTheWorkersTotals),
        ("totals", GoesBackInTime),
        ("one-moment", MixesMoments),
        ("in-progress", ForgetsWhenABlockBegan),
        ("in-progress", FinishesABlockInProgress),
        ("own-connection", ServesOneAtATime),
        ("client-limit", LetsEveryoneIn),
        ("client-limit", RefusesWithoutAWord),
        ("idle-timeout", WaitsForEver),
    ],
)
def test_a_server_that_breaks_a_rule_is_found_out(rule: str, conversation: type[Conversation], folder: Path) -> None:
    """With the rule's name, and where it is written."""
    limits = Limits(clients=6, idle_timeout_s=0.2) if rule == "idle-timeout" else Limits(clients=6)
    with served(folder, conversation, limits) as path:
        (outcome,) = conformance.server_outcomes(path, within_s=0.7, rules=[rule])
    assert outcome.finding is not None
    assert str(outcome.finding).startswith(f"{rule}: ")
    assert str(outcome.finding).endswith(f" (docs/wire-protocol.md#rule-{rule})")


@pytest.mark.parametrize(("socket_mode", "folder_mode"), [(0o644, 0o700), (0o600, 0o777)])
def test_a_socket_that_others_can_get_at_is_found_out(socket_mode: int, folder_mode: int, folder: Path) -> None:
    """By its own mode or by its directory's."""
    with served(folder) as path:
        path.chmod(socket_mode)
        folder.chmod(folder_mode)
        (outcome,) = conformance.server_outcomes(path, rules=["private-socket"])
    assert outcome.finding is not None


def test_what_could_not_be_provoked_is_told(folder: Path) -> None:
    """A rule that was not seen is not called kept."""

    class Calm(Conversation):
        def snapshot(self, request_id: Any) -> Snapshot:
            return replace(super().snapshot(request_id), blocks_in_progress=[])

    with served(folder, Calm) as path:
        (outcome,) = conformance.server_outcomes(path, rules=["in-progress"])
    assert outcome.unchecked == "no block was in progress"


WITHOUT = tuple(kind for kind in ANSWERED if kind not in ("tasks", "stacks"))


def test_what_a_server_does_not_list_is_not_asked_of_it(folder: Path) -> None:
    """It keeps every other rule."""
    with served(folder, capabilities=WITHOUT) as path:
        outcomes = conformance.server_outcomes(path)
    assert [str(outcome.finding) for outcome in outcomes if outcome.finding is not None] == []
    unchecked = {outcome.rule: outcome.unchecked for outcome in outcomes if outcome.unchecked is not None}
    del unchecked["idle-timeout"]
    lacks = "it does not list tasks"
    assert unchecked == {"not-found": lacks, "tasks": lacks, "stacks": "it does not list stacks"}


def test_what_a_server_answers_and_does_not_list_is_found_out(folder: Path) -> None:
    """A client that goes by the list would never ask."""

    class AnswersAllTheSame(Conversation):
        def answer(self, line: bytes) -> bool:
            if b'"stacks"' in line:
                self.say(self.stacks("x"))
                return True
            return super().answer(line)

    with served(folder, AnswersAllTheSame, capabilities=WITHOUT) as path:
        (outcome,) = conformance.server_outcomes(path, rules=["capabilities"])
    assert outcome.finding is not None


def test_tasks_can_only_be_seen_of_a_session(folder: Path) -> None:
    """Where there is none, the rule is not called kept."""

    class Empty(Conversation):
        def snapshot(self, request_id: Any) -> Snapshot:
            return replace(super().snapshot(request_id), sessions=[])

    with served(folder, Empty) as path:
        outcomes = conformance.server_outcomes(path, rules=["fields", "tasks"])
    assert [(outcome.finding, outcome.unchecked) for outcome in outcomes] == [
        (None, None),
        (None, "no session was live"),
    ]


def test_every_server_rule_was_seen_to_fail() -> None:
    """By a test above."""
    (parametrised,) = test_a_server_that_breaks_a_rule_is_found_out.pytestmark  # type: ignore[attr-defined]
    assert {rule for rule, _ in parametrised.args[1]} | {"private-socket"} == set(conformance.SERVER_RULES)


def test_no_server_is_an_error_and_no_finding(folder: Path) -> None:
    """There is nothing to check."""
    with socket.socket(socket.AF_UNIX) as unheard:
        unheard.bind(str(folder / "left-over.sock"))
    with pytest.raises(ConnectionFailed, match="no server answers at"):
        conformance.check_server(folder / "left-over.sock")


# --- clients -----------------------------------------------------------------------------------------

CLIENT = r"""
import json, socket, sys

def fail(text):
    print(text, file=sys.stderr)
    sys.exit(1)

def hear():
    try:
        line = lines.readline()
    except OSError:
        fail("it says nothing")
    if not line.endswith(b"\n"):
        fail("it closed in the middle of a line")
    try:
        return json.loads(line)
    except ValueError:
        fail("it is no worker")

with socket.socket(socket.AF_UNIX) as connection:
    connection.settimeout(float(sys.argv[2]))
    connection.connect(sys.argv[1])
    lines = connection.makefile("rwb")
    hello = hear()
    version = hello.get("protocol", "1.0")
    if version.split(".")[0] != "1":
        fail(f"it speaks {version}, this client 1.0")
    if hello["type"] != "hello":
        fail(hello["message"])
    lines.write(b'{"type":"snapshot","id":1}\n')
    lines.flush()
    reply = hear()
    if reply["type"] == "error":
        fail(reply["message"])
    for row in reply["sessions"]:
        print(ascii(row["session_id"]), row["cpu_pct"])
"""


def command(old: str = "", new: str = "", *, patience_s: float = 3.0) -> list[str]:
    assert old in CLIENT
    return [sys.executable, "-I", "-c", CLIENT.replace(old, new) if old else CLIENT, "{socket}", str(patience_s)]


@pytest.mark.slow
def test_a_client_that_keeps_to_the_page_has_no_findings() -> None:
    """Every rule is seen to be kept."""
    outcomes = conformance.client_outcomes(command())
    assert [str(outcome.finding) for outcome in outcomes if outcome.finding is not None] == []
    assert tuple(outcome.rule for outcome in outcomes) == conformance.CLIENT_RULES


BROKEN_CLIENTS = [
    ("client-reads", 'reply["sessions"]', 'reply["rows"]'),
    ("client-requests", '"snapshot","id":1', '"snapshot"'),
    ("client-requests", r'id":1}\n', r'id":1}\n{"type":"blocks","id":1}\n'),
    ("client-newer-minor", 'version.split(".")[0] != "1"', 'version != "1.0"'),
    ("client-other-major", 'version.split(".")[0] != "1"', "False"),
    ("client-other-major", "this client 1.0", "this client does not"),
    ("client-other-major", 'fail(f"it speaks', 'print(f"it speaks'),
    ("client-pieces", "lines.readline()", 'connection.recv(500) + b"\\n"'),
    ("client-long-lines", "lines.readline()", "lines.readline(65536)"),
    ("client-refused", 'fail(hello["message"])', "sys.exit(0)"),
    ("client-error", 'if reply["type"] == "error"', "if False"),
    ("client-garbage", "except ValueError", "except KeyError"),
    ("client-cut-line", 'fail("it closed in the middle of a line")', "sys.exit(0)"),
    ("client-silence", 'fail("it says nothing")', "sys.exit(0)"),
    ("client-silence", "settimeout(float(sys.argv[2]))", "settimeout(None)"),
    ("client-text", "ascii(", "str("),
]


@pytest.mark.slow
@pytest.mark.parametrize(("rule", "old", "new"), BROKEN_CLIENTS)
def test_a_client_that_breaks_a_rule_is_found_out(rule: str, old: str, new: str) -> None:
    """With the rule's name, and where it is written."""
    within_s = 1.0 if "None" in new else 30.0
    patience_s = 0.1 if rule == "client-silence" else 3.0  # there, no worker says anything
    client = command(old, new, patience_s=patience_s)
    (outcome,) = conformance.client_outcomes(client, within_s=within_s, rules=[rule])
    assert outcome.finding is not None
    assert str(outcome.finding).startswith(f"{rule}: ")


def test_every_client_rule_was_seen_to_fail() -> None:
    """By a test above."""
    assert {rule for rule, _, _ in BROKEN_CLIENTS} == set(conformance.CLIENT_RULES)


def test_a_client_that_is_killed_has_crashed() -> None:
    """However little it wrote."""
    dies = [sys.executable, "-I", "-c", "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"]
    (outcome,) = conformance.client_outcomes(dies, rules=["client-silence"])
    assert outcome.finding is not None
    assert "it was killed by signal 9" in str(outcome.finding)


def test_no_command_is_an_error_and_no_finding() -> None:
    """There is nothing to check."""
    with pytest.raises(ValueError, match="command is empty"):
        conformance.check_client([])


# --- the command ---------------------------------------------------------------------------------------


def test_the_command_tells_each_rule_and_exits_0(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Kept ones, and those that could not be seen."""
    with served(folder) as path:
        assert main(["conformance", "server", str(path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "ok      private-socket"
    assert lines[-2] == "-       idle-timeout: not seen, it is 60 s, and only 2 s are waited for"
    assert lines[-1] == f"{len(lines) - 1} rules: {len(lines) - 2} kept, 0 broken, 1 not seen"


def test_a_broken_rule_exits_1(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With the finding in its line."""
    with served(folder) as path:
        path.chmod(0o666)
        assert main(["conformance", "server", str(path)]) == 1
    told = "BROKEN  private-socket: the socket has mode 0666, expected 0600 (docs/wire-protocol.md#rule-private-socket)"
    assert capsys.readouterr().out.splitlines()[0] == told


@pytest.mark.parametrize("words", [["server", "/nowhere.sock"], ["client", "--", "/no/such/command"]])
def test_nothing_to_check_exits_2(words: list[str]) -> None:
    """In one line, as run by a user."""
    run = [sys.executable, "-m", "openrtc_introspect_testing", "conformance", *words]
    done = subprocess.run(run, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (2, "", 1)
    assert done.stderr.startswith("error: ")


def test_wrong_usage_exits_2() -> None:
    """As everywhere."""
    with pytest.raises(SystemExit) as caught:
        main(["conformance"])
    assert caught.value.code == 2
