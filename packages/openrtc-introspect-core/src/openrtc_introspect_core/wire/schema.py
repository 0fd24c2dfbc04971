"""The protocol's JSON Schema, from the messages: `python -m openrtc_introspect_core.wire.schema`."""

from __future__ import annotations

import json
from typing import Any

import msgspec

from ._messages import PROTOCOL_MAJOR, PROTOCOL_MINOR, Request, ServerMessage


def schema() -> dict[str, Any]:
    """One schema with the messages of each direction under `anyOf`, everything else under `$defs`."""
    (requests, replies), components = msgspec.json.schema_components(
        [Request, ServerMessage], ref_template="#/$defs/{name}"
    )
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"OpenRTC introspection protocol {PROTOCOL_MAJOR}.{PROTOCOL_MINOR}",
        "anyOf": [{"title": "client to server", **requests}, {"title": "server to client", **replies}],
        "$defs": components,
    }


if __name__ == "__main__":
    print(json.dumps(schema(), indent=2, sort_keys=True))
