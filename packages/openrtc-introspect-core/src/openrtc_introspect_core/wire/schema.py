"""The protocol's JSON Schema, from the messages.

`python -m openrtc_introspect_core.wire.schema` prints it.
"""

from __future__ import annotations

import inspect
import json
from typing import Any

import msgspec

from ._messages import PROTOCOL_MAJOR, PROTOCOL_MINOR, Request, ServerMessage

_HOST = {
    "type": "string",
    "description": "The host that the worker runs on, as it was called, or the worker's owner, or both as owner@host. "
    "Absent: it is a worker of this user on this machine.",
}


def schema() -> dict[str, Any]:
    """Return one schema of all messages.

    The messages of each direction stand under `anyOf`, and behind them the lines that `openrtc top --json` prints;
    everything else is under `$defs`.
    """
    (requests, replies), components = msgspec.json.schema_components(
        [Request, ServerMessage], ref_template="#/$defs/{name}"
    )
    for component in components.values():
        # Before Python 3.13 a docstring's later lines keep the indentation of the source.
        if description := component.get("description"):
            component["description"] = inspect.cleandoc(description)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"OpenRTC introspection protocol {PROTOCOL_MAJOR}.{PROTOCOL_MINOR}",
        "anyOf": [
            {"title": "client to server", **requests},
            {"title": "server to client", **replies},
            {"title": "a line of openrtc top --json", "$ref": "#/$defs/Snapshot", "properties": {"host": _HOST}},
        ],
        "$defs": components,
    }


if __name__ == "__main__":
    print(json.dumps(schema(), indent=2, sort_keys=True))
