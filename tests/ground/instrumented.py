"""A program under one instrument, with introspection or without. It prints what it found, as JSON.

instrumented.py INSTRUMENT first|after|without     (the instrument before introspection, after it, or alone)
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any

from openrtc_introspect_core import Introspector

HELD_S = 0.1
"""What each call of `held` holds the loop for."""
BEFORE_SEND_S = 0.2
"""What sentry-sdk holds the loop for in the failing task."""
WRAPPER_S = 0.05
"""What ddtrace holds the loop for in each of three tasks, and OpenTelemetry in one."""


truth = {"held_s": 0.0, "began": 0.0}


def held(seconds: float = HELD_S) -> None:
    began = time.perf_counter()
    while time.perf_counter() < began + seconds:
        pass
    truth["held_s"] += time.perf_counter() - began


async def inner() -> str:
    await asyncio.sleep(0.01)
    held()
    await asyncio.sleep(0.05)
    return "returned"


async def work() -> str:
    return await inner()


async def fails() -> None:
    await asyncio.sleep(0.01)
    raise ValueError("of the host")


# --- instruments: each returns what it has found, once it is stopped ---------------------------------------------


def sentry() -> Callable[[], Any]:
    sdk: Any = importlib.import_module("sentry_sdk")
    integration: Any = importlib.import_module("sentry_sdk.integrations.asyncio")
    transport: Any = importlib.import_module("sentry_sdk.transport")
    sent = []

    class Nowhere(transport.Transport):  # type: ignore[misc]
        def capture_envelope(self, envelope: Any) -> None:
            sent.append(envelope)

    def before_send(event: Any, hint: Any) -> Any:
        held(BEFORE_SEND_S)
        return event

    sdk.init(
        dsn="http://a@127.0.0.1:9/1",
        transport=Nowhere,
        before_send=before_send,
        auto_enabling_integrations=False,
        integrations=[integration.AsyncioIntegration()],
    )
    return lambda: len(sent)


def ddtrace() -> Callable[[], Any]:
    for name in ("DD_INSTRUMENTATION_TELEMETRY_ENABLED", "DD_REMOTE_CONFIGURATION_ENABLED"):
        os.environ[name] = "false"
    os.environ["DD_TRACE_AGENT_URL"] = "http://127.0.0.1:9"
    tracer, internal = (importlib.import_module(f"ddtrace.{name}") for name in ("trace", "internal.core"))
    begun: list[Any] = []

    def begins(data: Any) -> None:
        begun.append(data)
        held(WRAPPER_S)

    importlib.import_module("ddtrace").patch(asyncio=True)
    internal.on("asyncio.execute_task", begins)
    tracer.tracer.trace("of the host")  # without an active span it wraps no coroutine
    return lambda: len(begun)


def opentelemetry() -> Callable[[], Any]:
    os.environ["OTEL_PYTHON_ASYNCIO_COROUTINE_NAMES_TO_TRACE"] = "work"
    sdk = importlib.import_module("opentelemetry.sdk.trace")
    names: list[str] = []

    class Processor(sdk.SpanProcessor):  # type: ignore[misc, name-defined]
        def on_start(self, span: Any, parent_context: Any = None) -> None:
            names.append(span.name)
            held(WRAPPER_S)

    provider = sdk.TracerProvider()
    provider.add_span_processor(Processor())
    instrumentation = importlib.import_module("opentelemetry.instrumentation.asyncio")
    instrumentation.AsyncioInstrumentor().instrument(tracer_provider=provider)
    return lambda: names


def yappi() -> Callable[[], Any]:
    profiler: Any = importlib.import_module("yappi")
    profiler.set_clock_type("wall")
    profiler.start()

    def found() -> Any:
        profiler.stop()
        stats = {each.name: each for each in profiler.get_func_stats() if each.module == __file__}
        return {name: [stats[name].ncall, stats[name].ttot] for name in ("work", "inner", "held")}

    return found


def viztracer() -> Callable[[], Any]:
    module: Any = importlib.import_module("viztracer")
    tracer = module.VizTracer(verbose=0, output_file="/dev/null", ignore_c_function=True)
    tracer.start()

    def found() -> Any:
        tracer.stop()
        tracer.parse()
        seconds: dict[str, float] = {}
        for event in tracer.data["traceEvents"]:
            name = event["name"].partition(" ")[0].rpartition(".")[2]
            if name in ("work", "inner", "held") and __file__ in event["name"]:
                seconds[name] = seconds.get(name, 0.0) + event["dur"] / 1e6
        return seconds

    return found


def pyinstrument() -> Callable[[], Any]:
    profiler = importlib.import_module("pyinstrument").Profiler(async_mode="disabled")
    profiler.start()

    def found() -> Any:
        profiler.stop()
        seconds: dict[str, float] = {}

        def add(frame: Any) -> None:
            if frame.function in ("work", "inner", "held"):
                seconds[frame.function] = seconds.get(frame.function, 0.0) + frame.time
            for child in frame.children:
                add(child)

        add(profiler.last_session.root_frame())
        return seconds

    return found


def coverage() -> Callable[[], Any]:
    measured: Any = importlib.import_module("coverage").Coverage(data_file=None, config_file=False)
    measured.start()

    def found() -> Any:
        measured.stop()
        first = work.__code__.co_firstlineno
        lines = measured.get_data().lines(__file__)
        kind = measured._collector.tracer_name() if measured._collector is not None else None
        return [kind, sorted(line for line in lines if abs(line - first) < 10)]

    return found


NONE: Callable[[], Any] = lambda: None  # noqa: E731
INSTRUMENTS = {
    each.__name__: each for each in (sentry, ddtrace, opentelemetry, yappi, viztracer, pyinstrument, coverage)
}


async def run(session: Any) -> dict[str, Any]:
    truth.update(held_s=0.0, began=time.time())  # from here on, all is the session's
    with session:
        task = asyncio.create_task(work(), name="of the host")
        unnamed = asyncio.create_task(asyncio.sleep(0))
        failing = asyncio.create_task(fails())
        result = await task
        await asyncio.wait([failing, unnamed])
        return {
            "result": result,
            "error": repr(failing.exception()),
            "names": [task.get_name(), failing.get_name(), unnamed.get_name().startswith("Task-")],
        }


async def main(instrument: Callable[[], Callable[[], Any]], order: str) -> dict[str, Any]:
    if order == "without":
        found = instrument()
        seen = await run(contextlib.nullcontext())
        return seen | {"found": found()}
    found = instrument() if order == "first" else NONE
    async with Introspector(socket_path=False, budget_pct=0) as introspector:
        if order == "after":
            found = instrument()
        session = introspector.session("s", agent_name="a")
        seen = await asyncio.create_task(run(session))
        row = session.session
        assert row is not None
        since = [block for block in introspector.blocks() if block.started_at >= truth["began"]]
        blocks = [(block.session_id, block.cause) for block in since]
        seen |= {"cpu_s": row.busy, "blocks": blocks, **truth}
        return seen | {"found": found()}


if __name__ == "__main__":
    if "uvloop" in sys.argv:
        import uvloop

        print(json.dumps(uvloop.run(main(INSTRUMENTS[sys.argv[1]], sys.argv[2]))))
    else:
        print(json.dumps(asyncio.run(main(INSTRUMENTS[sys.argv[1]], sys.argv[2]))))
