"""Servers that break one rule each, and the finding of each."""

from __future__ import annotations

import contextlib
import re
import select
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import msgspec
import pytest

from openrtc_introspect_core import ConnectionFailed
from openrtc_introspect_core.wire import (
    CAPABILITIES,
    MAX_REQUEST_BYTES,
    Block,
    Done,
    Error,
    Limits,
    Snapshot,
    Stacks,
    StacksRequest,
    TaskInfo,
    Tasks,
    TasksRequest,
    ThreadStack,
    Waits,
    WaitsRequest,
    decode_server_message,
    encode,
)
from openrtc_introspect_core.wire._source import Message
from openrtc_introspect_testing import conformance
from openrtc_introspect_testing._workers.conversation import Conversation

replace = msgspec.structs.replace
Served = Callable[..., contextlib.AbstractContextManager[Path]]


def test_a_server_that_keeps_to_the_page_has_no_findings(folder: Path, served: Served) -> None:
    """The checker sees that every rule is kept, but for a timeout that takes too long."""
    with served(folder) as path:
        outcomes = conformance.server_outcomes(path)
    assert [str(outcome.finding) for outcome in outcomes if outcome.finding is not None] == []
    assert [outcome.rule for outcome in outcomes if outcome.unchecked is not None] == ["idle-timeout"]
    assert tuple(outcome.rule for outcome in outcomes) == conformance.SERVER_RULES


def test_a_short_idle_timeout_is_waited_for(folder: Path, served: Served) -> None:
    """The checker sees that the rule is kept."""
    with served(folder, limits=Limits(idle_timeout_s=0.2)) as path:
        (outcome,) = conformance.server_outcomes(path, rules=["idle-timeout"])
    assert (outcome.finding, outcome.unchecked) == (None, None)


class GreetsWithASnapshot(Conversation):
    def greeting(self) -> Message:
        return [encode(self.snapshot())]


class GreetsOnlyWhenAsked(Conversation):
    def greeting(self) -> Message:
        return []


class HasNoMinorVersion(Conversation):
    def greeting(self) -> Message:
        return [encode(replace(self.server.hello, protocol="1"))]


class IsOfAnotherMajorVersion(Conversation):
    def greeting(self) -> Message:
        return [encode(replace(self.server.hello, protocol="2.0"))]


class IsSomeoneElse(Conversation):
    def greeting(self) -> Message:
        return [encode(replace(self.server.hello, pid=1))]


class SendsOtherBytes(Conversation):
    """The base of servers that send `new` in place of `old`."""

    old: bytes
    new: bytes

    def message(self, now: float) -> Message:
        return [b"".join(super().message(now)).replace(self.old, self.new)]


class LeavesAFieldOut(SendsOtherBytes):
    old, new = b'"agent_name":"a",', b""


class LeavesATasksNameOut(SendsOtherBytes):
    old, new = b'"name":"Task-1",', b""


class LeavesAThreadsIdOut(SendsOtherBytes):
    old, new = b'"thread_id":7,', b""


class WritesNumbersAsText(SendsOtherBytes):
    old, new = b'"last_seq":5', b'"last_seq":"5"'


class WritesNaN(SendsOtherBytes):
    old, new = b'"rss_mb":0.0', b'"rss_mb":NaN'


class ForgetsTheLastSeq(SendsOtherBytes):
    old, new = b'"blocks":[],"last_seq":5', b'"blocks":[],"last_seq":0'


class TakesOneRequestForAnother(Conversation):
    """The base of servers that read `new` in place of `old`."""

    old: bytes
    new: bytes

    def answer(self, line: bytes, now: float) -> Message:
        return super().answer(line.replace(self.old, self.new), now)


class DoesNotCancel(TakesOneRequestForAnother):
    old, new = b'"cancel"', b'"x-cancel"'


class DoesNotAnswerStacks(TakesOneRequestForAnother):
    old, new = b'"type": "stacks"', b'"type": "x-stacks"'


class IgnoresSince(TakesOneRequestForAnother):
    old, new = b'"since"', b'"x-since"'


class RefusesUnknownFields(TakesOneRequestForAnother):
    old, new = b'"unheard_of"', b'"type": "unheard-of", "unheard_of"'


class AnswersWhatItDoesNotKnow(Conversation):
    def answer(self, line: bytes, now: float) -> Message:
        return [encode(Done(id="x"))] if b"x-unheard-of" in line else super().answer(line, now)


class MakesTextOfIds(Conversation):
    def answer(self, line: bytes, now: float) -> Message:
        return super().answer(re.sub(rb'"id": (-?\d+)', rb'"id": "\1"', line), now)


class AnswersSnapshotsLast(Conversation):
    late: Message = ()

    def answer(self, line: bytes, now: float) -> Message:
        reply = super().answer(line, now)
        if b'"snapshot"' in line:
            self.late = reply
            return []
        late, self.late = self.late, ()
        return [*reply, *late]


class TakesBlankLinesForRequests(Conversation):
    def receive(self, data: bytes) -> None:
        super().receive(data.replace(b"\n\r\n", b"\n?\r\n"))


class TakesPiecesForLines(Conversation):
    def receive(self, data: bytes) -> None:
        super().receive(data and data + b"\n")


class GuessesTheEndOfALine(Conversation):
    def receive(self, data: bytes) -> None:
        super().receive(data or b"\n")
        self.ended = not data


class HasASmallerLimit(Conversation):
    enforced: ClassVar = {"request_bytes": MAX_REQUEST_BYTES - 1}


class HasNoLimit(Conversation):
    enforced: ClassVar = {"request_bytes": 1 << 30}


class TakesAnyNumberOfWatches(Conversation):
    enforced: ClassVar = {"watches": 1000}


class LetsEveryoneIn(Conversation):
    enforced: ClassVar = {"clients": 1000}


class WaitsForEver(Conversation):
    enforced: ClassVar = {"idle_timeout_s": 1e6}


class SendsOtherErrors(Conversation):
    """The base of servers with one fault in each error."""

    changes: ClassVar[dict[str, Any]]

    def answer(self, line: bytes, now: float) -> Message:
        reply = super().answer(line, now)
        message = decode_server_message(reply[0]) if reply else None
        return [encode(replace(message, **self.changes))] if isinstance(message, Error) else reply


class ForgetsTheIdOfWhatItRefuses(SendsOtherErrors):
    changes: ClassVar = {"id": None}


class ConfusesCodes(SendsOtherErrors):
    changes: ClassVar = {"code": "bad-request"}


class ClosesOnWhatItRefuses(Conversation):
    def send(self, message: Message) -> None:
        super().send(message)
        if self.heard and b'"hello"' in self.heard[-1]:
            raise ConnectionAbortedError("such a request")


class ClosesOnAnUnknownSession(Conversation):
    def send(self, message: Message) -> None:
        super().send(message)
        if b'"not-found"' in message[0]:
            raise ConnectionAbortedError("no such session")


class DropsWhoSendsNoMore(Conversation):
    def answer(self, line: bytes, now: float) -> Message:
        poll = select.poll()
        poll.register(self.socket, select.POLLRDHUP)
        if poll.poll(50):
            raise ConnectionAbortedError("it sends no more")
        return super().answer(line, now)


class WatchesTooOften(Conversation):
    def message(self, now: float) -> Message:
        return [*super().message(now)] * 2


class SendsSnapshotsForChanges(Conversation):
    def message(self, now: float) -> Message:
        return [b"".join(super().message(now)).replace(b'{"type":"frame"', b'{"type":"snapshot"')]


class BuildsOnAFrameOfItsOwn(Conversation):
    def message(self, now: float) -> Message:
        return [re.sub(rb'"base":\d+', b'"base":1000000', b"".join(super().message(now)))]


class CountsARowThatIsNot(Conversation):
    def message(self, now: float) -> Message:
        return [b"".join(super().message(now)).replace(b'"counts":[', b'"counts":[["gone",1,1,1]')]


class AlwaysSendsFrames(Conversation):
    def answer(self, line: bytes, now: float) -> Message:
        return super().answer(line.replace(b'"type": "snapshot", "id": 4', b'"type":"snapshot","base":0,"id":4'), now)


class TakesTwoWatchesOfOneId(Conversation):
    def answer(self, line: bytes, now: float) -> Message:
        super().answer(line.replace(b'"watch"', b'"cancel"'), now)
        return super().answer(line, now)


class GoesOnAfterACancel(Conversation):
    def answer(self, line: bytes, now: float) -> Message:
        reply = super().answer(line, now)
        if b'"done"' in b"".join(reply):
            super().answer(line.replace(b'"cancel"', b'"watch"'), now)
        return reply


class CancelsWhatIsNot(Conversation):
    def answer(self, line: bytes, now: float) -> Message:
        reply = super().answer(line, now)
        return [encode(Done(id="none"))] if b'"cancel"' in line else reply


class StaysAfterBye(Conversation):
    def answer(self, line: bytes, now: float) -> Message:
        return [encode(Done(id="b"))] if b'"bye"' in line else super().answer(line, now)


class LeavesWithoutAWord(Conversation):
    def answer(self, line: bytes, now: float) -> Message:
        if b'"bye"' in line:
            raise ConnectionAbortedError("it left")
        return super().answer(line, now)


class ListsBlocksNewestFirst(Conversation):
    def blocks(self, since: int) -> list[Block]:
        return super().blocks(since)[::-1]


class LosesABlock(Conversation):
    def blocks(self, since: int) -> list[Block]:
        listed = super().blocks(since)
        return listed[:-1] if b'"since"' in self.heard[-1] else listed


class FindsEverySession(Conversation):
    def tasks(self, request: TasksRequest) -> Tasks:
        return Tasks(id=request.id, session_id=request.session_id)


class FindsNoSession(Conversation):
    def tasks(self, request: TasksRequest) -> None:
        return None


class ListsOtherTasks(Conversation):
    """The base of servers with one fault each in the tasks that they list."""

    def changed(self, reply: Tasks) -> Tasks:
        raise NotImplementedError

    def tasks(self, request: TasksRequest) -> Tasks:
        reply = super().tasks(request)
        assert reply is not None
        return self.changed(reply)


class ListsAnotherSessionsTasks(ListsOtherTasks):
    def changed(self, reply: Tasks) -> Tasks:
        return replace(reply, session_id="another")


class GivesTwoTasksOneId(ListsOtherTasks):
    def changed(self, reply: Tasks) -> Tasks:
        return replace(reply, tasks=[replace(task, id=1) for task in reply.tasks])


class CountsTasksFrom0(ListsOtherTasks):
    def changed(self, reply: Tasks) -> Tasks:
        return replace(reply, tasks=[replace(task, id=task.id - 1, awaited_by=[]) for task in reply.tasks])


class ListsTooManyTasks(ListsOtherTasks):
    def changed(self, reply: Tasks) -> Tasks:
        return replace(reply, tasks=[TaskInfo(id=number, name="t") for number in range(1, 502)])


class SaysThatItCutTheList(ListsOtherTasks):
    def changed(self, reply: Tasks) -> Tasks:
        return replace(reply, truncated=True)


class NamesAWaiterThatIsNot(ListsOtherTasks):
    def changed(self, reply: Tasks) -> Tasks:
        return replace(reply, tasks=[replace(reply.tasks[0], awaited_by=[3])])


class ListsEveryCall(ListsOtherTasks):
    def changed(self, reply: Tasks) -> Tasks:
        calls = reply.tasks[0].awaits
        return replace(reply, tasks=[replace(reply.tasks[0], awaits=calls + calls[:1])])


class ListsOtherStacks(Conversation):
    """The base of servers with one fault each in the threads that they list."""

    def changed(self, threads: list[ThreadStack]) -> list[ThreadStack]:
        raise NotImplementedError

    def stacks(self, request: StacksRequest) -> Stacks:
        reply = super().stacks(request)
        return replace(reply, threads=self.changed(reply.threads))


class ListsNoThread(ListsOtherStacks):
    def changed(self, threads: list[ThreadStack]) -> list[ThreadStack]:
        return []


class ListsAThreadTwice(ListsOtherStacks):
    def changed(self, threads: list[ThreadStack]) -> list[ThreadStack]:
        return [threads[0], *threads]


class ListsTheLoopsThreadLast(ListsOtherStacks):
    def changed(self, threads: list[ThreadStack]) -> list[ThreadStack]:
        return threads[::-1]


class PutsATaskWhereNoLoopRuns(ListsOtherStacks):
    def changed(self, threads: list[ThreadStack]) -> list[ThreadStack]:
        return [replace(threads[0], loop=False)]


class ListsEveryFrame(ListsOtherStacks):
    def changed(self, threads: list[ThreadStack]) -> list[ThreadStack]:
        frames = threads[0].frames
        return [replace(threads[0], frames=frames + frames[:1])]


class ListsOtherWaits(Conversation):
    """The base of servers with one fault each in what they say tasks wait for."""

    def changed(self, reply: Waits) -> Waits:
        raise NotImplementedError

    def waits(self, request: WaitsRequest) -> Waits:
        return self.changed(super().waits(request))


class ListsSmallGroupsFirst(ListsOtherWaits):
    def changed(self, reply: Waits) -> Waits:
        return replace(reply, groups=reply.groups[::-1])


class ListsTooManyGroups(ListsOtherWaits):
    def changed(self, reply: Waits) -> Waits:
        return replace(reply, groups=reply.groups[:1] * 201)


class ListsTooManyWaiters(ListsOtherWaits):
    def changed(self, reply: Waits) -> Waits:
        return replace(reply, groups=[replace(reply.groups[0], waiters=reply.groups[0].waiters[:1] * 21)])


class ListsThoseThatCameLastFirst(ListsOtherWaits):
    def changed(self, reply: Waits) -> Waits:
        return replace(reply, groups=[replace(reply.groups[0], waiters=reply.groups[0].waiters[::-1])])


class HasMoreSessionsThanTasks(ListsOtherWaits):
    def changed(self, reply: Waits) -> Waits:
        return replace(reply, groups=[replace(reply.groups[0], sessions=3)])


class TakesOtherSnapshots(Conversation):
    """The base of servers with one fault each in their snapshots."""

    def changed(self, taken: Snapshot) -> Snapshot:
        raise NotImplementedError

    def snapshot(self) -> Snapshot:
        return self.changed(super().snapshot())


class WatchesBackwards(TakesOtherSnapshots):
    def changed(self, taken: Snapshot) -> Snapshot:
        return replace(taken, seq=1000 - taken.seq)


class ConsumesTotals(TakesOtherSnapshots):
    def changed(self, taken: Snapshot) -> Snapshot:
        rows = [replace(row, cpu_s=1.0 / taken.seq) for row in taken.sessions]
        return replace(taken, sessions=rows)


class ConsumesTheWorkersTotals(TakesOtherSnapshots):
    def changed(self, taken: Snapshot) -> Snapshot:
        return replace(taken, worker=replace(taken.worker, blocks=1000 - taken.seq))


class GoesBackInTime(TakesOtherSnapshots):
    def changed(self, taken: Snapshot) -> Snapshot:
        return replace(taken, taken_at=2e9 - taken.seq)


class MixesMoments(TakesOtherSnapshots):
    def changed(self, taken: Snapshot) -> Snapshot:
        rows = [replace(row, duration_s=row.duration_s + 0.5) for row in taken.sessions]
        return replace(taken, sessions=rows)


class ForgetsWhenABlockBegan(TakesOtherSnapshots):
    def changed(self, taken: Snapshot) -> Snapshot:
        return replace(taken, blocks_in_progress=[replace(taken.blocks_in_progress[0], running_since=None)])


class FinishesABlockInProgress(TakesOtherSnapshots):
    def changed(self, taken: Snapshot) -> Snapshot:
        return replace(taken, blocks_in_progress=[replace(taken.blocks_in_progress[0], seq=6)])


class ServesOneAtATime(Conversation):
    def run(self) -> None:
        while self.server.clients > 1 and not self.server.over.is_set():
            time.sleep(0.01)
        super().run()


class RefusesWithoutAWord(Conversation):
    def refusal(self) -> bytes:
        return b""


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
        ("capabilities", DoesNotAnswerStacks),
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
        ("deltas", SendsSnapshotsForChanges),
        ("deltas", BuildsOnAFrameOfItsOwn),
        ("deltas", CountsARowThatIsNot),
        ("deltas", AlwaysSendsFrames),
        ("watch-ids", TakesTwoWatchesOfOneId),
        ("watch-limit", TakesAnyNumberOfWatches),
        ("cancel", GoesOnAfterACancel),
        ("cancel", CancelsWhatIsNot),
        ("bye", StaysAfterBye),
        ("bye", LeavesWithoutAWord),
        ("blocks-since", IgnoresSince),
        ("blocks-since", ListsBlocksNewestFirst),
        ("blocks-since", LosesABlock),
        ("blocks-since", ForgetsTheLastSeq),
        ("not-found", FindsEverySession),
        ("not-found", ClosesOnAnUnknownSession),
        ("not-found", ConfusesCodes),
        ("tasks", FindsNoSession),
        ("tasks", ListsAnotherSessionsTasks),
        ("tasks", GivesTwoTasksOneId),
        ("tasks", CountsTasksFrom0),
        ("tasks", ListsTooManyTasks),
        ("tasks", SaysThatItCutTheList),
        ("tasks", NamesAWaiterThatIsNot),
        ("tasks", ListsEveryCall),
        ("stacks", ListsNoThread),
        ("stacks", ListsAThreadTwice),
        ("stacks", ListsTheLoopsThreadLast),
        ("stacks", PutsATaskWhereNoLoopRuns),
        ("stacks", ListsEveryFrame),
        ("waits", ListsSmallGroupsFirst),
        ("waits", ListsTooManyGroups),
        ("waits", ListsTooManyWaiters),
        ("waits", ListsThoseThatCameLastFirst),
        ("waits", HasMoreSessionsThanTasks),
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
def test_a_server_that_breaks_a_rule_is_found_out(
    rule: str, conversation: type[Conversation], folder: Path, served: Served
) -> None:
    """The finding has the rule's name, and the place of the rule in the page."""
    limits = Limits(clients=6, idle_timeout_s=0.2) if rule == "idle-timeout" else Limits(clients=6)
    with served(folder, conversation, limits) as path:
        (outcome,) = conformance.server_outcomes(path, within_s=0.7, rules=[rule])
    assert outcome.finding is not None
    assert str(outcome.finding).startswith(f"{rule}: ")
    assert str(outcome.finding).endswith(f" (docs/wire-protocol.md#rule-{rule})")


@pytest.mark.parametrize(("socket_mode", "folder_mode"), [(0o644, 0o700), (0o600, 0o777)])
def test_a_socket_that_others_can_get_at_is_found_out(
    socket_mode: int, folder_mode: int, folder: Path, served: Served
) -> None:
    """Its own mode or the mode of its directory is too wide."""
    with served(folder) as path:
        path.chmod(socket_mode)
        folder.chmod(folder_mode)
        (outcome,) = conformance.server_outcomes(path, rules=["private-socket"])
    assert outcome.finding is not None


def test_a_rule_that_could_not_be_seen_is_reported(folder: Path, served: Served) -> None:
    """A rule that was not seen does not count as kept."""

    class Calm(TakesOtherSnapshots):
        def changed(self, taken: Snapshot) -> Snapshot:
            return replace(taken, blocks_in_progress=[])

    with served(folder, Calm) as path:
        (outcome,) = conformance.server_outcomes(path, rules=["in-progress"])
    assert outcome.unchecked == "no block was in progress"


def test_a_server_may_count_clients_that_have_just_closed(folder: Path, served: Served) -> None:
    """The next rule's client waits for room."""

    class CountsForAMoment(Conversation):
        def run(self) -> None:
            super().run()
            if self.ended:
                time.sleep(0.1)

    with served(folder, CountsForAMoment, Limits(clients=3)) as path:
        outcomes = conformance.server_outcomes(path, rules=["client-limit", "identity"])
    assert [outcome.finding for outcome in outcomes] == [None, None]


WITHOUT = tuple(kind for kind in CAPABILITIES if kind not in ("tasks", "stacks", "waits"))


def test_what_a_server_does_not_list_is_not_asked_of_it(folder: Path, served: Served) -> None:
    """It keeps every other rule."""
    with served(folder, capabilities=WITHOUT) as path:
        outcomes = conformance.server_outcomes(path)
    assert [str(outcome.finding) for outcome in outcomes if outcome.finding is not None] == []
    unchecked = {outcome.rule: outcome.unchecked for outcome in outcomes if outcome.unchecked is not None}
    del unchecked["idle-timeout"]
    lacks = "it does not list tasks"
    others = {kind: f"it does not list {kind}" for kind in ("stacks", "waits")}
    assert unchecked == {"not-found": lacks, "tasks": lacks} | others


def test_what_a_server_answers_and_does_not_list_is_found_out(folder: Path, served: Served) -> None:
    """A client that goes by the list would never send such a request."""

    class AnswersAllTheSame(Conversation):
        def answer(self, line: bytes, now: float) -> Message:
            if b'"stacks"' in line:
                return [encode(self.stacks(StacksRequest(id="x")))]
            return super().answer(line, now)

    with served(folder, AnswersAllTheSame, capabilities=WITHOUT) as path:
        (outcome,) = conformance.server_outcomes(path, rules=["capabilities"])
    assert outcome.finding is not None


def test_tasks_can_only_be_seen_of_a_session(folder: Path, served: Served) -> None:
    """Without a session, the rule does not count as kept."""

    class Empty(TakesOtherSnapshots):
        def changed(self, taken: Snapshot) -> Snapshot:
            return replace(taken, sessions=[])

    with served(folder, Empty) as path:
        outcomes = conformance.server_outcomes(path, rules=["fields", "tasks"])
    assert [(outcome.finding, outcome.unchecked) for outcome in outcomes] == [
        (None, None),
        (None, "no session was live"),
    ]


def test_every_server_rule_was_seen_to_fail() -> None:
    """A test above breaks each rule."""
    (parametrised,) = test_a_server_that_breaks_a_rule_is_found_out.pytestmark  # type: ignore[attr-defined]
    assert {rule for rule, _ in parametrised.args[1]} | {"private-socket"} == set(conformance.SERVER_RULES)


def test_no_server_is_an_error_and_no_finding(folder: Path) -> None:
    """There is nothing to check."""
    with socket.socket(socket.AF_UNIX) as unheard:
        unheard.bind(str(folder / "left-over.sock"))
    with pytest.raises(ConnectionFailed, match="no server answers at"):
        conformance.check_server(folder / "left-over.sock")
