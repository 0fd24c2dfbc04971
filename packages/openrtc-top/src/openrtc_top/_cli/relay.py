"""`openrtc relay`: the far side of a relay, which `--via` runs on another host."""

from __future__ import annotations

import sys
from functools import partial

import typer

from openrtc_top._cli.options import AllUsers, Sockets, Workers
from openrtc_top._cli.outcome import FAILED, OK, USAGE, fail, say
from openrtc_top._cli.target import parse_target


def relay(sockets: Sockets = None, workers: Workers = None, all_users: AllUsers = False) -> None:
    """Relay to this user's workers over stdin and stdout: what --via runs on another host.

    It ends when stdin does. Workers that start later are relayed too, and so is what the black boxes of frozen and
    dead ones say. Nothing listens anywhere, nothing changes a worker.
    """
    target = parse_target(sockets, workers, None, all_users)
    if sys.stdin is None or sys.stdout is None:
        raise fail("stdin or stdout is closed; a relay talks over both", FAILED)
    if sys.stdin.isatty():
        raise fail('stdin is a terminal: leave -t out of the command of --via, as in "docker exec -i NAME"', USAGE)

    from openrtc_introspect_core import ProtocolError
    from openrtc_top._client.black_boxes import dead_finder
    from openrtc_top._client.loop import run_loop
    from openrtc_top._client.unseen import unseen
    from openrtc_top._relay.far_side import relay as run

    try:
        why_none = partial(unseen, all_users, "`openrtc relay --all-users`")
        streams = sys.stdin.fileno(), sys.stdout.fileno()
        run_loop(run, target.find, *streams, say, dead_finder(target), why_none)
    except ProtocolError as error:
        raise fail(str(error), FAILED) from None
    except KeyboardInterrupt:
        raise typer.Exit(OK) from None
