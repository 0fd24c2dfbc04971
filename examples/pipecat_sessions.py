"""Ten pipecat pipelines in one worker, each a session: the two lines that are marked below.

    python examples/pipecat_sessions.py
    openrtc top                            # in a second terminal

The pipelines are real ones that need no network, no audio and no keys: callers send their text as frames, and a desk
answers word by word. `call-3` asks for a report now and then, and its desk reads the report from an archive with a
blocking call: its session is named, with the line. The example needs `pip install openrtc-introspect-core pipecat-ai`,
and openrtc-top to watch it.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import sys
import time

import loguru
from pipecat.frames.frames import EndFrame, Frame, LLMTextFrame, TranscriptionFrame
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.worker import PipelineWorker
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor
from pipecat.runner.types import RunnerArguments
from pipecat.workers.runner import WorkerRunner

from openrtc_introspect_core.adapters.pipecat import introspected  # <- one

CALLERS = 10
CULPRIT = "call-3"


class Desk(FrameProcessor):
    """Answers what a caller has said, as a language model would: word by word."""

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        if not isinstance(frame, TranscriptionFrame):
            await self.push_frame(frame, direction)
            return
        answer = read_archive() if frame.text == "The report, please." else "We are open until nine."
        for word in answer.split():
            await asyncio.sleep(0.01)
            await self.push_frame(LLMTextFrame(word))


def read_archive() -> str:
    """Read from the archive, with a blocking call by mistake."""
    time.sleep(0.3)
    return "Here is the report."


class Ear(FrameProcessor):
    """Counts the words that the caller hears."""

    def __init__(self) -> None:
        super().__init__()
        self.words = 0

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        self.words += isinstance(frame, LLMTextFrame)
        await self.push_frame(frame, direction)


@introspected(name="pipecat")  # <- two
async def bot(runner_args: RunnerArguments) -> int:
    """Serve one caller, and return the number of words that the caller heard."""
    ear = Ear()
    worker = PipelineWorker(Pipeline([Desk(), ear]))
    runner = WorkerRunner(handle_sigint=False)
    await runner.add_workers(worker)
    calling = asyncio.create_task(call(worker, runner_args))
    await runner.run()
    await calling
    return ear.words


async def call(worker: PipelineWorker, runner_args: RunnerArguments) -> None:
    """Say something five times a second, in place of a transport."""
    turns = 0
    while time.monotonic() < runner_args.body["ends_at"]:
        turns += 1
        wants_report = runner_args.session_id == CULPRIT and turns % 10 == 0
        text = "The report, please." if wants_report else "How long are you open?"
        await worker.queue_frame(TranscriptionFrame(text, user_id="caller", timestamp=""))
        await asyncio.sleep(0.2)
    await worker.queue_frame(EndFrame())


async def main(seconds: float) -> None:
    ends_at = time.monotonic() + seconds
    tenants = ("acme", "globex")
    bots = (
        bot(RunnerArguments(session_id=f"call-{n}", body={"tenant": tenants[n % 2], "ends_at": ends_at}))
        for n in range(CALLERS)
    )
    words = await asyncio.gather(*bots)
    print(f"{sum(words)} words to {CALLERS} callers")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=str(__doc__).partition(":")[0])
    parser.add_argument("--seconds", type=float, default=60.0, help="how long it runs (60)")
    logging.basicConfig(format="%(message)s")
    loguru.logger.remove()  # pipecat's own log, on the level of debugging by default
    loguru.logger.add(sys.stderr, level="WARNING")
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main(parser.parse_args().seconds))
