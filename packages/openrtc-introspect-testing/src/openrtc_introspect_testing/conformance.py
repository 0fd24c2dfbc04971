"""Does a server, or a client, keep to docs/wire-protocol.md? Each finding names the rule that was broken.

findings = conformance.check_server("/run/user/1000/openrtc-1000/worker-1-4242.sock")
findings = conformance.check_client(["openrtc", "top", "--once", "--socket", "{socket}"])

python -m openrtc_introspect_testing conformance server PATH
python -m openrtc_introspect_testing conformance client -- COMMAND...
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from ._conformance._client import Command, client_rules
from ._conformance._dialer import Dialer
from ._conformance._rules import Finding, Outcome
from ._conformance._server import server_rules

__all__ = [
    "CLIENT_RULES", "SERVER_RULES", "Finding", "Outcome", "check_client", "check_server", "client_outcomes",
    "server_outcomes",
]  # fmt: skip

SERVER_RULES: tuple[str, ...] = server_rules.names
"""In the page's order."""
CLIENT_RULES: tuple[str, ...] = client_rules.names

_CLIENTS_AT_ONCE = 4
"""They wait more than they compute."""


def check_server(path: str | os.PathLike[str], *, within_s: float = 10.0, patience_s: float = 2.0) -> list[Finding]:
    """The rules that the server at `path` breaks; none of them: an empty list.

    It opens as many connections as the server allows, and reads only, as every client does; on a worker in use,
    other clients may be refused for a moment.

    within_s: seconds that any answer may take. patience_s: the longest idle timeout that is waited for.
    Raises ConnectionFailed where nothing accepts connections at `path`.
    """
    outcomes = server_outcomes(path, within_s=within_s, patience_s=patience_s)
    return [outcome.finding for outcome in outcomes if outcome.finding is not None]


def check_client(command: Sequence[str], *, within_s: float = 30.0) -> list[Finding]:
    """The rules that a client command breaks, run once against each of a dozen workers, some of them misbehaved.

    command: what asks a worker once, tells something, and ends. `{socket}` in it stands for the worker's socket;
        without it, the command finds the worker in $OPENRTC_RUNTIME_DIR.
    within_s: seconds that one run may take.
    Raises FileNotFoundError or PermissionError where the command cannot be run, ValueError for an empty one.
    """
    return [outcome.finding for outcome in client_outcomes(command, within_s=within_s) if outcome.finding is not None]


def server_outcomes(
    path: str | os.PathLike[str],
    *,
    within_s: float = 10.0,
    patience_s: float = 2.0,
    rules: Iterable[str] | None = None,
) -> list[Outcome]:
    """As `check_server`, with what came of every rule, the kept and the unchecked ones too. rules: only these."""
    return server_rules.check(Dialer(Path(path), within_s, patience_s), rules)


def client_outcomes(
    command: Sequence[str], *, within_s: float = 30.0, rules: Iterable[str] | None = None
) -> list[Outcome]:
    """As `check_client`, with what came of every rule. rules: only these."""
    if not command:
        raise ValueError("command is empty: give the words of a client command")
    return client_rules.check(Command(command, within_s), rules, at_once=_CLIENTS_AT_ONCE)
