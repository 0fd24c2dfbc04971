"""Real pipecat pipelines are sessions: all that runs in them, and nothing of the others'."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import uvicorn
from fastapi import FastAPI, WebSocket
from pipecat.frames.frames import EndFrame, Frame, InputTransportMessageFrame, OutputTransportMessageFrame, TextFrame
from pipecat.observers.base_observer import BaseObserver, FramePushed
from pipecat.pipeline.parallel_pipeline import ParallelPipeline
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.worker import PipelineParams, PipelineTask, PipelineWorker
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor
from pipecat.runner.types import RunnerArguments
from pipecat.serializers.base_serializer import FrameSerializer
from pipecat.transports.websocket.fastapi import FastAPIWebsocketParams, FastAPIWebsocketTransport
from pipecat.workers.runner import WorkerRunner
from websockets.asyncio.client import connect

from openrtc_introspect_core import Block, Introspector, SessionRow, current_session
from openrtc_introspect_core.adapters.asgi import IntrospectionMiddleware
from openrtc_introspect_core.adapters.pipecat import introspected

pytestmark = [pytest.mark.slow, pytest.mark.anyio]

WITHIN_S = 60.0
BLOCK_S = 0.3
SESSIONS = 10
OPTIONS: dict[str, Any] = {"socket_path": False, "black_box": False, "stall_log": None}


class Places:
    """The places of one pipeline that have run, each with the sessions that it ran in."""

    def __init__(self) -> None:
        self.sessions: dict[str, set[str | None]] = defaultdict(set)

    def here(self, place: str) -> None:
        session = current_session()
        self.sessions[place].add(session.session_id if session is not None else None)


class Processor(FrameProcessor):  # type: ignore[misc]
    """Notes where it is called. `block` is a text at which it makes a blocking call."""

    def __init__(self, places: Places, *, block: str = "") -> None:
        super().__init__()
        self._places = places
        self._block = block

    async def setup(self, setup: Any) -> None:
        await super().setup(setup)
        self._places.here("setup")

    async def cleanup(self) -> None:
        await super().cleanup()
        self._places.here("cleanup")

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        self._places.here(f"process {type(frame).__name__}")
        if isinstance(frame, TextFrame):
            if frame.text == self._block:
                time.sleep(BLOCK_S)
            await self.create_task(self._work())
            await asyncio.to_thread(self._places.here, "thread")
        await self.push_frame(frame, direction)

    async def _work(self) -> None:
        self._places.here("task of a processor")


class Observer(BaseObserver):  # type: ignore[misc]
    def __init__(self, places: Places) -> None:
        super().__init__()
        self._places = places

    async def on_push_frame(self, data: FramePushed) -> None:
        self._places.here("observer")


def pipeline_worker(places: Places, *, block: str = "", kind: type[PipelineWorker] = PipelineWorker) -> PipelineWorker:
    """Return the worker of a pipeline with branches, observers and handlers of events."""
    inner = ParallelPipeline([Processor(places)], [Processor(places)])
    worker = kind(
        Pipeline([Processor(places), inner, Processor(places, block=block)]),
        params=PipelineParams(enable_heartbeats=True),
        observers=[Observer(places)],
    )
    for event in ("on_pipeline_started", "on_pipeline_finished"):

        async def note(worker: PipelineWorker, frame: Frame, event: str = event) -> None:
            places.here(event)

        worker.add_event_handler(event, note)
    return worker


ALL_PLACES = {
    "setup",
    "cleanup",
    "process StartFrame",
    "process TextFrame",
    "process EndFrame",
    "task of a processor",
    "thread",
    "observer",
    "on_pipeline_started",
    "on_pipeline_finished",
}


def assert_in_session(session_id: str, places: Places) -> None:
    """Assert that all places of a pipeline ran, and in this session only."""
    assert places.sessions.keys() >= ALL_PLACES
    assert set().union(*places.sessions.values()) == {session_id}


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def introspect() -> Iterator[introspected]:
    decorator = introspected(name="pipecat", **OPTIONS)
    yield decorator
    if decorator.sessions.process.introspector is not None:
        decorator.sessions.process.introspector.close()


def introspector_of(decorator: introspected) -> Introspector:
    assert decorator.sessions.process.introspector is not None
    return decorator.sessions.process.introspector


def rows(decorator: introspected) -> dict[str, SessionRow]:
    introspector = decorator.sessions.process.introspector
    return {row.session_id: row for row in introspector.snapshot().sessions} if introspector is not None else {}


async def speak(worker: PipelineWorker, *texts: str) -> None:
    """Send frames from outside of the session, as a server's code may, and then the end."""
    for text in texts:
        await worker.queue_frame(TextFrame(text))
    await worker.queue_frame(EndFrame())


async def until(condition: Any) -> None:
    deadline = time.monotonic() + WITHIN_S
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)


# --- bots ----------------------------------------------------------------------------------------


async def test_all_of_ten_bots_is_their_own_sessions(introspect: introspected) -> None:
    """Processors, their tasks and threads, observers, handlers of events, setup and cleanup."""

    @introspect
    async def bot(runner_args: RunnerArguments) -> None:
        worker = pipeline_worker(places[runner_args.session_id])
        runner = WorkerRunner(handle_sigint=False)
        await runner.add_workers(worker)
        await asyncio.gather(runner.run(), speak(worker, "hello", "bye"))

    places = {f"call-{n}": Places() for n in range(SESSIONS)}
    await asyncio.gather(*(bot(RunnerArguments(session_id=each, body={"tenant": "acme"})) for each in places))
    for session_id, seen in places.items():
        assert_in_session(session_id, seen)
    assert rows(introspect) == {}
    worker = introspector_of(introspect).snapshot().worker
    assert (worker.started, worker.errored, worker.notes) == (SESSIONS, 0, [])


async def test_no_task_of_pipecats_is_outside_of_the_sessions(introspect: introspected) -> None:
    """Also those that it makes for itself: pushing, heartbeats, the bus, observers."""

    @introspect
    async def bot(runner_args: RunnerArguments) -> None:
        worker = pipeline_worker(Places())
        worker.add_event_handler("on_pipeline_started", lambda worker, frame: started.release())
        runner = WorkerRunner(handle_sigint=False)
        await runner.add_workers(worker)
        workers.append(worker)
        await runner.run()

    started, workers = asyncio.Semaphore(0), list[PipelineWorker]()
    before = asyncio.all_tasks()
    bots = [asyncio.create_task(bot(RunnerArguments(session_id=f"call-{n}"))) for n in range(SESSIONS)]
    for _ in bots:
        await started.acquire()
    await until(lambda: sum(row.tasks or 0 for row in rows(introspect).values()) == len(asyncio.all_tasks() - before))
    assert {row.agent_name for row in rows(introspect).values()} == {"pipecat"}
    for worker in workers:
        await worker.cancel()
    await asyncio.gather(*bots)
    await until(lambda: not asyncio.all_tasks() - before)
    assert rows(introspect) == {}


async def test_a_processor_that_blocks_is_named(introspect: introspected) -> None:
    """With its session and the line, among nine others that run."""

    @introspect
    async def bot(runner_args: RunnerArguments) -> list[Block]:
        worker = pipeline_worker(Places(), block="report" if runner_args.session_id == "call-3" else "")
        runner = WorkerRunner(handle_sigint=False)
        await runner.add_workers(worker)
        running = asyncio.create_task(runner.run())
        await asyncio.sleep(0)
        await worker.queue_frame(TextFrame("report"))
        await until(blocks)
        await worker.queue_frame(EndFrame())
        await running
        return blocks()

    def blocks() -> list[Block]:
        found = introspector_of(introspect).blocks()
        return [each for each in found if each.session_id == "call-3" and each.duration_ms >= 1000 * BLOCK_S]

    found = await asyncio.gather(*(bot(RunnerArguments(session_id=f"call-{n}")) for n in range(SESSIONS)))
    assert all(found)
    (location,) = (block.location for block in blocks())
    assert location is not None
    assert location.file.endswith("test_pipecat_adapter.py")
    assert location.function == "Processor.process_frame"


async def test_a_cancelled_pipeline_is_no_failure(introspect: introspected) -> None:
    """Nor is a bot that is cancelled."""

    @introspect
    async def bot(runner_args: RunnerArguments) -> None:
        worker = pipeline_worker(Places())
        worker.add_event_handler("on_pipeline_started", lambda worker, frame: started.set())
        runner = WorkerRunner(handle_sigint=False)
        await runner.add_workers(worker)
        await runner.run()
        raise asyncio.CancelledError  # pipecat's runner keeps the cancellation to itself

    started = asyncio.Event()
    running = asyncio.create_task(bot(RunnerArguments(session_id="call-1")))
    await started.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert rows(introspect) == {}
    assert introspector_of(introspect).snapshot().worker.errored == 0


# --- a runner for several pipelines --------------------------------------------------------------


async def test_a_runner_hosts_a_session_for_each_pipeline(introspect: introspected) -> None:
    """Pipelines come while it runs, and what they do is their own sessions'."""
    runner = WorkerRunner(handle_sigint=False)
    running = asyncio.create_task(runner.run(auto_end=False))
    places = {f"call-{n}": Places() for n in range(SESSIONS)}
    workers = []
    for session_id, each in places.items():
        workers.append(
            introspect.bind(pipeline_worker(each), session_id=session_id, agent_name="dental", tenant="acme")
        )
        await runner.add_workers(workers[-1])
    await until(lambda: len(rows(introspect)) == SESSIONS)
    assert {(row.agent_name, row.tenant) for row in rows(introspect).values()} == {("dental", "acme")}
    for worker in workers:
        await speak(worker, "hello")
    await until(lambda: not rows(introspect))
    await runner.end()
    await running
    for session_id, seen in places.items():
        assert_in_session(session_id, seen)


async def test_a_runner_can_be_a_session(introspect: introspected) -> None:
    """With all of its pipelines."""
    places = [Places(), Places()]
    runner = introspect.bind(WorkerRunner(handle_sigint=False), session_id="call-1")
    workers = [pipeline_worker(each) for each in places]
    await runner.add_workers(*workers)
    await asyncio.gather(runner.run(), *(speak(worker, "hello") for worker in workers))
    for seen in places:
        assert_in_session("call-1", seen)


@pytest.mark.filterwarnings("ignore:.*is deprecated since 1.3.0.*:DeprecationWarning")
async def test_the_older_names_are_sessions_too(introspect: introspected) -> None:
    """PipelineTask and PipelineRunner, until pipecat 2."""
    from pipecat.pipeline.runner import PipelineRunner

    places = Places()
    task = introspect.bind(pipeline_worker(places, kind=PipelineTask), session_id="call-1")
    runner = PipelineRunner(handle_sigint=False)
    await runner.add_workers(task)
    await asyncio.gather(runner.run(), speak(task, "hello"))
    assert_in_session("call-1", places)


# --- transports ----------------------------------------------------------------------------------


class Texts(FrameSerializer):  # type: ignore[misc]
    """Frames as texts: each message is one."""

    def __init__(self, places: Places) -> None:
        super().__init__()
        self._places = places

    async def serialize(self, frame: Frame) -> str | None:
        self._places.here("serialize")
        return str(frame.message["text"]) if isinstance(frame, OutputTransportMessageFrame) else None

    async def deserialize(self, data: str | bytes) -> Frame:
        self._places.here("deserialize")
        return InputTransportMessageFrame(message={"text": str(data)})


class Echo(FrameProcessor):  # type: ignore[misc]
    def __init__(self, places: Places) -> None:
        super().__init__()
        self._places = places

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        self._places.here("echo")
        if isinstance(frame, InputTransportMessageFrame):
            frame = OutputTransportMessageFrame(message=frame.message)
        await self.push_frame(frame, direction)


async def websocket_bot(runner_args: Any) -> None:
    """Echo what a websocket's client says, by pipecat's transport for FastAPI."""
    places: Places = runner_args.places
    serializer = Texts(places)
    transport = FastAPIWebsocketTransport(runner_args.websocket, FastAPIWebsocketParams(serializer=serializer))
    worker = PipelineWorker(Pipeline([transport.input(), Echo(places), transport.output()]))

    async def connected(transport: Any, client: Any) -> None:
        places.here("on_client_connected")

    async def disconnected(transport: Any, client: Any) -> None:
        places.here("on_client_disconnected")
        await worker.cancel()

    transport.add_event_handler("on_client_connected", connected)
    transport.add_event_handler("on_client_disconnected", disconnected)
    runner = WorkerRunner(handle_sigint=False)
    await runner.add_workers(worker)
    await runner.run()


@contextlib.asynccontextmanager
async def serving(app: Any) -> AsyncIterator[str]:
    """Serve an app on this loop, and give its address."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning", ws="websockets-sansio"))
    running = asyncio.create_task(server.serve())
    await until(lambda: server.started)
    try:
        yield f"ws://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        await running


@pytest.mark.parametrize("way", ["decorator", "middleware"])
async def test_a_transports_callbacks_are_the_sessions(introspect: introspected, way: str) -> None:
    """Of real websockets. For a bot in an endpoint the middleware does the same without the decorator."""
    places = {f"call-{n}": Places() for n in range(3)}
    bot = introspect(websocket_bot) if way == "decorator" else websocket_bot
    ids: dict[str, str] = {}

    async def endpoint(websocket: WebSocket) -> None:
        await websocket.accept()
        name = websocket.path_params["name"]
        session = current_session()
        ids[name] = session.session_id if session is not None else name
        await bot(SimpleNamespace(session_id=name, websocket=websocket, places=places[name]))
        done.release()

    done = asyncio.Semaphore(0)
    app = FastAPI()
    app.add_api_websocket_route("/calls/{name}", endpoint)
    served = IntrospectionMiddleware(app, **OPTIONS) if way == "middleware" else app

    async def call(url: str) -> None:
        async with connect(url) as client:
            for text in ("hello", "bye"):
                await client.send(text)
                assert await client.recv() == text

    async with serving(served) as url:
        await asyncio.gather(*(call(f"{url}/calls/{name}") for name in places))
        for _ in places:
            await done.acquire()
    for name, seen in places.items():
        expected = {"deserialize", "echo", "serialize", "on_client_connected", "on_client_disconnected"}
        assert seen.sessions == {place: {ids[name]} for place in expected}
    assert len(set(ids.values())) == len(places)
