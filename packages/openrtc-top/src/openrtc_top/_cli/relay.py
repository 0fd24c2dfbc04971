"""`openrtc relay`: the protocol over stdin and stdout, which is what `--via` runs on the other side."""

from __future__ import annotations

import sys

import typer

from openrtc_top._cli.options import AllUsers, Sockets, Workers
from openrtc_top._cli.outcome import FAILED, OK, USAGE, fail, say
from openrtc_top._cli.target import target


def relay(sockets: Sockets = None, workers: Workers = None, all_users: AllUsers = False) -> None:
    """Relay to this user's workers over stdin and stdout: what --via runs on another host.

    It ends when stdin does. Workers that start later are relayed too. Nothing listens anywhere, nothing changes
    a worker.
    """
    looked_at = target(sockets, workers, None, all_users)
    if sys.stdin is None or sys.stdout is None:
        raise fail("stdin or stdout is closed; a relay talks over both", FAILED)
    if sys.stdin.isatty():
        raise fail('stdin is a terminal; a relay talks to `openrtc top --via "ssh HOST"` and the like', USAGE)

    import anyio

    from openrtc_introspect_core import ProtocolError
    from openrtc_top._relay import relay as run

    try:
        anyio.run(run, looked_at.find, sys.stdin.fileno(), sys.stdout.fileno(), say)
    except ProtocolError as error:
        raise fail(str(error), FAILED) from None
    except KeyboardInterrupt:
        raise typer.Exit(OK) from None
