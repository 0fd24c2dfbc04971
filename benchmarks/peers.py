"""The kinds of blocks that each tool catches, with the line and with the session.

A virtual clock of another project is compared as well, with the one of this project.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from openrtc_introspect_core.wire import Block
from openrtc_introspect_testing import FakeLoop, blockers
from openrtc_introspect_testing._blockers import calls
from openrtc_introspect_testing._blockers.code_lines import marked_lines

from ._case import Case, Details, Result, Results, Row
from ._figures import quantile
from ._table import figure

THRESHOLD_S = 0.050
SECONDS = 0.120
BEHAVED_S = 0.030
"""A step of this length is within the threshold."""
KINDS = tuple(blockers.all_kinds())
LINES = {kind: marked_lines(make(SECONDS).function or calls.sleep) for kind, make in blockers.all_kinds().items()}
"""The lines that block. They are read before a detector forbids reading files."""


@dataclass(slots=True)
class Report:
    """One report of a detector."""

    text: str
    places: list[str]
    """All reported places as file:line, innermost last."""
    session_id: str | None = None
    seconds: float | None = None


class Detector:
    """A detector on the running loop.

    It records from `start` on; `take` returns the reports since the last call.
    """

    WAIT_S = 0.1
    """Seconds until a detector has reported a block."""

    def __init__(self) -> None:
        self.recorded: list[Report] = []

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    @contextlib.contextmanager
    def session(self, session_id: str) -> Any:
        yield

    async def take(self) -> list[Report]:
        await asyncio.sleep(self.WAIT_S)
        found, self.recorded = self.recorded, []
        return found


class Ours(Detector):
    async def start(self) -> None:
        from openrtc_introspect_core import Introspector

        self._introspector = Introspector(name="bench", socket_path=False, slow_session_threshold_ms=1000 * THRESHOLD_S)
        self._introspector.attach()
        self._seen = 0

    async def stop(self) -> None:
        await self._introspector.aclose()

    def session(self, session_id: str) -> Any:
        return self._introspector.session(session_id, agent_name="bench")

    async def take(self) -> list[Report]:
        await asyncio.sleep(self.WAIT_S)
        found = []
        for block in self._introspector.blocks(since=self._seen):
            self._seen = block.seq
            places = [f"{os.path.abspath(block.location.file)}:{block.location.line}"] if block.location else []
            found.append(Report(f"{block.cause}", places, block.session_id, block.duration_ms / 1000.0))
        return found


class BlockBuster(Detector):
    """Blockbuster, which patches a list of functions.

    On a loop's thread they raise instead of blocking.
    """

    async def start(self) -> None:
        from blockbuster import BlockBuster as Buster

        self._buster = Buster()
        self._buster.activate()

    async def stop(self) -> None:
        self._buster.deactivate()

    def record(self, error: BaseException) -> None:
        frames = traceback.extract_tb(error.__traceback__)
        self.recorded.append(Report(str(error), [f"{frame.filename}:{frame.lineno}" for frame in frames]))


class PyLeak(Detector):
    """Pyleak, which pings the loop and takes its stack if no answer comes.

    Pyleak merges blocks with equal stacks into one, so it is started anew for each.
    """

    async def start(self) -> None:
        import logging

        import pyleak

        logging.getLogger("pyleak.eventloop").disabled = True
        watching: Any = pyleak.no_event_loop_blocking
        self._manager = watching(action="log", threshold=THRESHOLD_S, check_interval=0.01)
        await self._manager.__aenter__()

    async def stop(self) -> None:
        await self._manager.__aexit__(None, None, None)

    async def take(self) -> list[Report]:
        await asyncio.sleep(self.WAIT_S)
        await self.stop()
        found = []
        for block in self._manager.detector.detected_blocks:
            places = [f"{frame.filename}:{frame.lineno}" for frame in block.blocking_stack or ()]
            found.append(Report("blocked", places, None, block.duration))
        await self.start()
        return found


class SlowCallbacks(Detector):
    """aiodebug's timing of each callback, which names the slow ones."""

    async def start(self) -> None:
        from aiodebug import log_slow_callbacks

        log_slow_callbacks.enable(THRESHOLD_S, self._record)

    def _record(self, name: str, seconds: float) -> None:
        self.recorded.append(Report(name, [name], None, seconds))


class HangInspection(Detector):
    """aiodebug's hang inspection.

    A thread writes all stacks to a file if the loop has not turned for an interval.
    """

    WAIT_S = 3.3  # three stacks, a second apart

    async def start(self) -> None:
        import warnings

        from aiodebug import hang_inspection

        self._folder = tempfile.TemporaryDirectory(prefix="hangs-")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self._pair = hang_inspection.start(self._folder.name, interval=THRESHOLD_S)
        self._module = hang_inspection

    async def stop(self) -> None:
        await self._module.stop_wait(self._pair)

    async def take(self) -> list[Report]:
        await asyncio.sleep(self.WAIT_S)
        found = []
        for file in sorted(Path(self._folder.name).glob("stacktrace-*-0.txt")):
            text = file.read_text(encoding="utf-8")
            mine = text.partition(f"# ThreadID: {threading.main_thread().ident}")[2].partition("# ThreadID")[0]
            places = [line[7:].replace('", line ', ":") for line in mine.splitlines() if line.startswith('File: "')]
            found.append(Report("hang", [place.partition(", in ")[0] for place in places]))
        for file in Path(self._folder.name).iterdir():
            file.unlink()
        return found


DETECTORS: dict[str, tuple[type[Detector], tuple[str, ...]]] = {
    "ours": (Ours, ()),
    "blockbuster": (BlockBuster, ("blockbuster",)),
    "pyleak": (PyLeak, ("pyleak",)),
    "aiodebug, slow callbacks": (SlowCallbacks, ("aiodebug",)),
    "aiodebug, hangs": (HangInspection, ("aiodebug",)),
}


def cases(quick: bool) -> list[Case]:
    times = 1 if quick else 5
    found = [
        Case(name, measure, {"name": name, "times": 1 if name.endswith("hangs") else times}, limit_s=200.0, needs=needs)
        for name, (_, needs) in DETECTORS.items()
    ]
    clocks = (
        Case("FakeLoop", clock, {"name": "FakeLoop"}),
        Case("looptime", clock, {"name": "looptime"}, needs=("looptime",)),
    )
    return [*found, *clocks]


def measure(name: str, times: int) -> Result:
    with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
        return runner.run(_measure(DETECTORS[name][0](), times))


async def _measure(detector: Detector, times: int) -> Result:
    await asyncio.sleep(0.05)
    await detector.start()
    kinds: dict[str, Any] = {}
    for kind in KINDS:
        kinds[kind] = {"times": times, "caught": 0, "line": 0, "session": 0, "errors_ms": [], "text": ""}
        for _ in range(times):
            await _one(detector, kind, kinds[kind])
    false = await _behaved(detector)
    await detector.stop()
    return {"kinds": kinds, "false": [asdict(one) for one in false]}


async def _one(detector: Detector, kind: str, entry: dict[str, Any]) -> None:
    blocker = blockers.all_kinds()[kind](SECONDS)

    async def agent() -> None:
        with detector.session("culprit"):
            await asyncio.sleep(0.03)
            try:
                held = blocker.block()
                if isinstance(blocker, blockers.AsyncBlocker):
                    await held  # type: ignore[misc]
            except Exception as error:
                if not isinstance(detector, BlockBuster):
                    raise
                detector.record(error)
            await asyncio.sleep(0.03)

    await detector.take()
    loop = asyncio.get_running_loop()
    if isinstance(detector, BlockBuster):  # its exceptions in a callback go to the loop's handler
        loop.set_exception_handler(lambda _, context: detector.record(context["exception"]))
    # "callback" waits for ever if its callback was interrupted.
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(asyncio.create_task(agent(), name="agent"), 3.0)
    reports = await detector.take()
    if not reports:
        return
    entry["caught"] += 1
    entry["text"] = reports[0].text[:100]
    entry["line"] += _has_line(kind) and any(_is_line(blocker, place) for one in reports for place in one.places)
    if blocker.duration_s is not None:  # None: the detector prevented the block, so there is no truth
        blocks = [Block(seq=0, session_id=one.session_id, cause=one.text) for one in reports]
        entry["session"] += not any("session" in blocker.expected.mismatches(block) for block in blocks)
    seconds = max((one.seconds or 0.0 for one in reports), default=0.0)
    if seconds and blocker.duration_s is not None:
        entry["errors_ms"].append(1000.0 * (seconds - blocker.duration_s))


def _is_line(blocker: Any, place: str) -> bool:
    """Return whether a text contains a line at which this kind blocks."""
    return any(f"{line.file}:{line.line}" in place for line in LINES[blocker.kind])


async def _behaved(detector: Detector) -> list[Report]:
    """Return the reports about two seconds of a well-behaved program.

    Its steps stay below the threshold.
    """
    await detector.take()
    until = time.monotonic() + 2.0

    async def agent() -> None:
        while time.monotonic() < until:
            blockers.spin(BEHAVED_S).block()
            await asyncio.sleep(0.1)

    async def reader() -> None:
        path = Path(__file__)
        while time.monotonic() < until:
            try:
                path.stat()  # takes microseconds, because the file is cached in memory
                await asyncio.to_thread(time.sleep, 0.1)
            except Exception as error:
                if not isinstance(detector, BlockBuster):
                    raise
                detector.record(error)
                await asyncio.sleep(0.1)

    with detector.session("well-behaved"):
        await asyncio.gather(agent(), reader())
    return await detector.take()


# --- virtual clocks ----------------------------------------------------------------------------------


def clock(name: str) -> Result:
    factory: Callable[[], Any] = FakeLoop
    if name == "looptime":
        import looptime

        factory = looptime.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(_clock())


async def _clock() -> Result:
    loop = asyncio.get_running_loop()

    async def timed(work: Callable[[], Any]) -> dict[str, float]:
        real, virtual = time.perf_counter(), loop.time()
        done = work()
        if done is not None:
            await done
        return {"real_s": time.perf_counter() - real, "loop_s": loop.time() - virtual}

    def hold() -> None:
        getattr(loop, "block", time.sleep)(SECONDS)

    return {
        "asyncio.sleep(3600)": await timed(lambda: asyncio.sleep(3600)),
        "to_thread(time.sleep, 0.12)": await timed(lambda: asyncio.to_thread(time.sleep, SECONDS)),
        "time.sleep(0.12)": await timed(lambda: time.sleep(SECONDS)),
        "a block of 0.12 s, by loop.block if there is one": await timed(hold),
    }


# --- tables ----------------------------------------------------------------------------------------


def rows(results: Results) -> list[Row]:
    found = []
    for name in DETECTORS:
        if name != "ours" and name in results and "ours" in results:
            for what, title in (("caught", "caught"), ("line", "reported with the line")):
                ours, of = _always(results, "ours", what)
                theirs, _ = _always(results, name, what)
                found.append(Row(f"kinds {title}, of {of}; the peer is {name}", ours, peer=theirs))
    return found


def _always(results: Results, name: str, what: str) -> tuple[int, int]:
    """Return the number of kinds for which `what` always holds, and can hold.

    It always holds if it holds for each block of the kind.
    """
    asked = [entry for kind, entry in results[name]["kinds"].items() if what == "caught" or _has_line(kind)]
    return sum(entry[what] == entry["times"] for entry in asked), len(asked)


def _has_line(kind: str) -> bool:
    return kind not in ("gc", "gil", "gil-idle", "burst")


def details(results: Results) -> list[Details]:
    names = [name for name in DETECTORS if name in results]
    lines = [[kind, *(_cell(results, name, kind) for name in names)] for kind in KINDS]
    lines.append(["duration error, median and worst", *(_duration(results, name) for name in names)])
    lines.append(["reports about a well-behaved program", *(_false(results, name) for name in names)])
    title = "Blocks caught, of those caused; L: with the line, S: with the session (none if the block is unattributed)"
    clocks = [name for name in ("FakeLoop", "looptime") if name in results]
    whats = list(results[clocks[0]]) if clocks else []
    passed = [
        [
            what,
            *(
                f"{figure(results[name][what]['real_s'], 's')} / {figure(results[name][what]['loop_s'], 's')}"
                for name in clocks
            ),
        ]
        for what in whats
    ]
    return [
        Details(title, ("kind", *names), lines),
        Details("Virtual clocks: real time / the loop's", ("what", *clocks), passed),
    ]


def _cell(results: Results, name: str, kind: str) -> str:
    entry = results[name]["kinds"][kind]
    times, caught = entry["times"], entry["caught"]
    if not caught:
        return "–"
    marks = [mark for mark, what in (("L", "line"), ("S", "session")) if entry[what] == caught]
    if not _has_line(kind):
        marks = [mark for mark in marks if mark == "S" and name == "ours"]
    elif name != "ours":
        marks = [mark for mark in marks if mark == "L"]
    return " ".join([f"{caught} of {times}", "".join(marks)]).strip()


def _passed(times: Mapping[str, float]) -> str:
    return f"{figure(times['real_s'], 's')} / {figure(times['loop_s'], 's')}"


def _duration(results: Results, name: str) -> str:
    errors = sorted(abs(error) for entry in results[name]["kinds"].values() for error in entry["errors_ms"])
    return f"{figure(quantile(errors, 0.5), 'ms')}, {figure(errors[-1], 'ms')}" if errors else "not reported"


def _false(results: Results, name: str) -> str:
    false = results[name]["false"]
    return f"{len(false)} times: {false[0]['text'][:60]}" if false else "nothing"
