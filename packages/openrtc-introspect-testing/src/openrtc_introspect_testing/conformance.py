"""Checks of a server or a client against docs/wire-protocol.md.

Each finding names the rule that is broken.

findings = conformance.check_server("/run/user/1000/openrtc-1000/worker-1-4242.sock")
findings = conformance.check_client(["openrtc", "top", "--once", "--socket", "{socket}"])

python -m openrtc_introspect_testing conformance server PATH
python -m openrtc_introspect_testing conformance client -- COMMAND...
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from ._conformance.client import client_rules
from ._conformance.client_command import Command
from ._conformance.dialer import Dialer
from ._conformance.rules import Finding, Outcome
from ._conformance.server import server_rules

__all__ = [
    "CLIENT_RULES", "SERVER_RULES", "Finding", "Outcome", "check_client", "check_server", "client_outcomes",
    "server_outcomes",
]  # fmt: skip

SERVER_RULES: tuple[str, ...] = server_rules.names
"""The rules for a server, in the page's order."""
CLIENT_RULES: tuple[str, ...] = client_rules.names
"""The rules for a client, in the page's order."""

_CLIENTS_AT_ONCE = 4  # they wait more than they compute


def check_server(path: str | os.PathLike[str], *, within_s: float = 10.0, patience_s: float = 2.0) -> list[Finding]:
    """Return a finding for each rule that the server at `path` breaks.

    The check opens as many connections as the server allows, and only reads, as every client does. On a worker in use,
    the server may refuse other clients for a moment.

    within_s: seconds that any answer may take. patience_s: the longest idle timeout, in seconds, that it waits for.
    Raises ConnectionFailed if nothing accepts connections at `path`.
    """
    outcomes = server_outcomes(path, within_s=within_s, patience_s=patience_s)
    return [outcome.finding for outcome in outcomes if outcome.finding is not None]


def check_client(command: Sequence[str], *, within_s: float = 30.0) -> list[Finding]:
    """Return a finding for each rule that a client command breaks.

    The command runs once against each of a dozen workers; some of them misbehave.

    command: words of a command that asks a worker once, prints something, and ends. `{socket}` in a word stands for the
        worker's socket; a command without it finds the worker in $OPENRTC_RUNTIME_DIR.
    within_s: seconds that one run may take.
    Raises FileNotFoundError or PermissionError if the command cannot be run, ValueError for an empty one.
    """
    return [outcome.finding for outcome in client_outcomes(command, within_s=within_s) if outcome.finding is not None]


def server_outcomes(
    path: str | os.PathLike[str],
    *,
    within_s: float = 10.0,
    patience_s: float = 2.0,
    rules: Iterable[str] | None = None,
) -> list[Outcome]:
    """Check as `check_server` does, and return the outcome of every rule.

    rules: check only these.
    """
    return server_rules.check(Dialer(Path(path), within_s, patience_s), rules)


def client_outcomes(
    command: Sequence[str], *, within_s: float = 30.0, rules: Iterable[str] | None = None
) -> list[Outcome]:
    """Check as `check_client` does, and return the outcome of every rule.

    rules: check only these.
    """
    if not command:
        raise ValueError("command is empty: give the words of a client command")
    return client_rules.check(Command(command, within_s), rules, at_once=_CLIENTS_AT_ONCE)
