"""`openrtc record`: what the workers report, to a file for `top --replay`."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from openrtc_top._cli.options import AllUsers, Sockets, ViaEach, Vias, Workers, parse_interval, parse_seconds
from openrtc_top._cli.outcome import FAILED, NO_WORKER, OK, USAGE, fail, say
from openrtc_top._cli.target import parse_target


def record(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Where to. A name that ends in .gz is compressed.")],
    seconds: Annotated[
        float | None,
        typer.Option("--seconds", metavar="N", parser=parse_seconds, help="End after so long. Without it: at Ctrl-C."),
    ] = None,
    interval: Annotated[
        float,
        typer.Option(
            "--interval", metavar="SECONDS", parser=parse_interval, help="From one frame to the next, 0.1 to 30."
        ),
    ] = 1.0,
    force: Annotated[bool, typer.Option("--force", metavar="", help="Replace the file if it is there.")] = False,
    sockets: Sockets = None,
    workers: Workers = None,
    vias: Vias = None,
    via_each: ViaEach = None,
    all_users: AllUsers = False,
) -> None:
    """Record what the workers report, for `openrtc top --replay FILE`; those that start later too.

    The file holds ids, agents and tenants of sessions, and file names and lines: only you may read it.
    """
    from openrtc_top._recording.recorder import Recorder, Sink

    target = parse_target(sockets, workers, vias, all_users, via_each)
    if not target.remote:
        target.must_find()
    try:
        sink = Sink(file, replace=force)
    except FileExistsError:
        raise fail(f"{str(file)!r} is there already; choose another name, or replace it with --force", USAGE) from None
    except OSError as error:
        raise fail(f"cannot write {str(file)!r}: {error.strerror}", FAILED) from None

    from rich.filesize import decimal

    from openrtc_top._cli.worker_log import WorkerLog
    from openrtc_top._client.loop import run_loop

    recorder = Recorder(target, sink, interval, WorkerLog().take)
    say(f"recording to {file}; Ctrl-C ends it")
    began = time.monotonic()
    try:
        run_loop(recorder.run, seconds)
    finally:
        try:
            sink.close()
        except OSError as error:
            recorder.problem = recorder.problem or error
    took = time.monotonic() - began
    frames, heard = recorder.scribe.frames, len(recorder.scribe.heard)
    size = decimal(file.stat().st_size)
    content = f"{frames} frames of {heard} {'worker' if heard == 1 else 'workers'} in {took:.0f} s, {size}"
    if recorder.problem is not None:
        raise fail(f"cannot write {str(file)!r}: {recorder.problem.strerror}; it has {content}", FAILED)
    say(f"recorded {content}")
    raise typer.Exit(OK if frames else NO_WORKER)
