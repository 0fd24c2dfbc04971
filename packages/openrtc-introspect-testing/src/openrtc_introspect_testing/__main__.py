"""The conformance checks on the command line.

`python -m openrtc_introspect_testing conformance server PATH`, or `client -- COMMAND...`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from openrtc_introspect_core import IntrospectError

from . import conformance

KEPT, BROKEN, USAGE = 0, 1, 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the checks, print the outcomes, and return the exit code.

    0: every rule that was seen is kept. 1: some rules are broken. 2: there is nothing to check.
    """
    options = _parser().parse_args(arguments)
    try:
        if options.side == "server":
            outcomes = conformance.server_outcomes(options.path)
        else:
            outcomes = conformance.client_outcomes(options.command)
    except (IntrospectError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return USAGE
    for outcome in outcomes:
        if outcome.finding is not None:
            print(f"BROKEN  {outcome.finding}")
        elif outcome.unchecked is not None:
            print(f"-       {outcome.rule}: not seen, {outcome.unchecked}")
        else:
            print(f"ok      {outcome.rule}")
    broken = sum(outcome.finding is not None for outcome in outcomes)
    unseen = sum(outcome.unchecked is not None for outcome in outcomes)
    print(f"{len(outcomes)} rules: {len(outcomes) - broken - unseen} kept, {broken} broken, {unseen} not seen")
    return BROKEN if broken else KEPT


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m openrtc_introspect_testing")
    conformance_parser = parser.add_subparsers(dest="word", required=True).add_parser(
        "conformance", help="check a server or a client against docs/wire-protocol.md"
    )
    sides = conformance_parser.add_subparsers(dest="side", required=True)
    server = sides.add_parser("server", help="the server of a socket")
    server.add_argument("path", type=Path, metavar="PATH", help="the socket")
    client = sides.add_parser(
        "client",
        help="a client command",
        description="{socket} in COMMAND stands for the worker's socket; $OPENRTC_RUNTIME_DIR has its directory.",
    )
    client.add_argument("command", nargs="+", metavar="COMMAND", help="the words of the command, after --")
    return parser


if __name__ == "__main__":
    sys.exit(main())
